"""The reference report: its figures, which were simulated, and its claims against these runs.

Figures stand beside measured ones, never instead. Left out is what does not mean the same thing here: its
precision equals its mAP to the last digit, its detection MSE is above 1, which boxes in 0-1 cannot reach on
average, and its losses are undefined. Its mAP names no IoU and stands beside mAP@0.5.

A claim of differences is `supported` where all its figures differ from zero its way, `contradicted` where one
differs the other way, `equivalent` where all lie within their margins, `excluded` where one cannot go its way
by its margin, else `undecided`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from gradlib.config import TASKS
from gradlib.evidence import diagnostics
from gradlib.evidence.intervals import proportion_interval
from gradlib.evidence.tables import SCORES, per_cent
from gradlib.report import facts
from gradlib.report.facts import Difference

_METRICS = ("map50", "recall", "f1", "accuracy", "parameters", "seconds")
#: Final figures by solution and metric.
FINAL = {
    "gradnorm": dict(zip(_METRICS, (0.0666, 0.2071, 0.1007, 0.6547, 1752, 45.2), strict=True)),
    "dual": dict(zip(_METRICS, (0.0610, 0.2500, 0.0981, 0.6220, 5400, 120.5), strict=True)),
}
#: What moved in training, from start to end, by solution and quantity of `tables.dynamics`.
MOVES = {
    "gradnorm": {"weight_detection": (1.0, 0.0), "weight_classification": (0.01, 4.0)},
    "dual": {"lr_detection": (0.001, 0.0001), "lr_classification": (0.001, 0.0001)},
}
# Per cent: a training loss that never rises by more from one epoch to the next is called smooth.
STEADY = 5.0


def change(first: str, second: str, metric: str) -> float:
    """Relative change from one solution to another in per cent; NaN where the report has no such figures."""
    return per_cent(*(FINAL.get(name, {}).get(metric, np.nan) for name in (first, second)))


@dataclass(frozen=True)
class Claim:
    """A claim, by its key in the templates.

    figures: (solution, solution, metric), of each the second solution is said to be better. needs: solutions,
    where these are not the figures'. rule: what the runs say where that is no difference: a reading ("": by
    the figures), the macro that says what was measured, and its argument. control: left out where its
    solutions are missing. below: the figure is said to be below zero.
    """

    key: str
    figures: tuple[tuple[str, str, str], ...] = ()
    needs: tuple[str, ...] = ()
    rule: Callable = lambda a: ("",)
    control: bool = False
    below: bool = False

    def lacking(self, a) -> list[str]:
        """The solutions that it needs and that have no complete run."""
        named = [name for *pair, _ in self.figures for name in pair if name]
        special = facts.SPECIALISTS if any(metric == "delta_m" for *_, metric in self.figures) else ()
        return a.lacking(*dict.fromkeys(self.needs or (*named, *special)))

    def judge(self, figures: Sequence[Difference]) -> str:
        wrong, right, none = ("better", "worse", "loss") if self.below else ("worse", "better", "gain")
        verdicts = {one.verdict for one in figures}
        if wrong in verdicts:
            return "contradicted"
        for one, reading in ((right, "supported"), ("equivalent", "equivalent")):
            if verdicts == {one}:
                return reading
        return "excluded" if verdicts & {"equivalent", f"no {none} that matters"} else "undecided"


@dataclass(frozen=True)
class Reading:
    """What the runs say of a claim: `supported`, `contradicted`, `equivalent`, `excluded`, `undecided`,
    `by_construction`, `not_for_runs`, or `no_runs` (of the solutions in `lacking`); and what was measured."""

    key: str
    reading: str
    figures: Sequence[Difference]
    measured: Sequence
    lacking: Sequence[str]

    @property
    def reasons(self) -> dict[str, None]:
        """Why figures have no verdict, where nothing is shown."""
        reasons = [one.estimate.insufficient_reason for one in self.figures]
        return dict.fromkeys(filter(None, reasons)) if self.reading == "undecided" else {}


def asked(a) -> list[Claim]:
    """The claims that an `Analysis` looks at."""
    return [claim for claim in CLAIMS if not claim.control or a.has(*claim.figures[0][:2])]


def read(a) -> list[Reading]:
    """What the runs of an `Analysis` say of every claim."""
    claims = a.asked
    lacking = {claim: claim.lacking(a) for claim in claims}
    told = {claim: ("no_runs",) if lacking[claim] else claim.rule(a) for claim in claims}
    asked = {
        claim: [figure for figure in claim.figures if not told[claim][0] and a.has(*filter(None, figure[:2]))]
        for claim in claims
    }
    differences = facts.differences(a, [figure for figures in asked.values() for figure in figures])
    found = {(one.a, one.b, one.metric): one for one in differences}
    figures = {claim: [found[figure] for figure in asked[claim]] for claim in claims}
    return [
        Reading(claim.key, reading or claim.judge(figures[claim]), figures[claim], measured, lacking[claim])
        for claim, (reading, *measured) in told.items()
    ]


def _switched_off(a) -> tuple:
    states = a.collapse.loc["gradnorm-reported"]["state"]
    return "contradicted" if (states == "collapse").any() else "", "balance", "gradnorm-reported"


def _reached(a) -> tuple:
    counts = a.reached.loc["dual"]
    if np.isnan(counts["both"]):  # runs of an earlier version do not say it
        return ("no_runs",)
    return "by_construction" if counts["both"] == 0 else "contradicted", "reached", counts


def _smooth(a, name: str) -> tuple:
    changes = diagnostics.loss_changes(a.study).query("solution == @name")
    rises = changes.groupby(["fold", "seed"])["largest_rise"].max()
    return _counted("smooth", rises <= STEADY, limit=STEADY)


def _trained(a, name: str) -> tuple:
    """In how many runs both tasks' training losses fell and no task collapsed."""
    losses = [f"train_loss_{task}" for task in TASKS]
    runs = a.study.epochs.query("solution == @name").groupby(["fold", "seed"])[losses]
    fell = (runs.last() < runs.first()).all(axis=1)
    off = a.collapse.query("solution == @name and state == 'collapse'").reset_index(["solution", "task"])
    return _counted("trained", fell & ~fell.index.isin(off.index))


def _counted(macro: str, good: pd.Series, **numbers) -> tuple:
    """A claim that holds in so many runs: supported where the exact interval of the share is above a half."""
    low, high = proportion_interval(int(good.sum()), len(good))
    reading = "supported" if low > 0.5 else "contradicted" if high < 0.5 else "undecided"
    return reading, macro, {"count": int(good.sum()), "runs": len(good), "low": low, "high": high, **numbers}


def _lean(a) -> tuple:
    times = a.efficiency.loc["dual"] / a.efficiency.loc["gradnorm"]
    # The numbers of parameters and operations are the networks', the same in every run.
    lean = times["parameters"] > 1 and times["macs"] > 1
    return "supported" if lean else "contradicted", "lean", times


def _not_for_runs(a) -> tuple:
    return ("not_for_runs",)


def _gain(key: str, first: str, second: str, **options) -> Claim:
    return Claim(key, ((first, second, "delta_m"),), **options)


BOTH = ("gradnorm", "dual")
CLAIMS = (
    Claim("gradients_oppose", (("", "baseline", "rho"),), below=True),
    _gain("sharing_harms", "", "baseline", below=True),
    Claim("fewer_conflicts", (("baseline", "gradnorm", "rho"),)),
    Claim("balances", (("baseline", "gradnorm", "imbalance"),)),
    Claim(
        "zero_is_balance",
        (("baseline", "gradnorm-reported", "imbalance"),),
        ("gradnorm-reported",),
        _switched_off,
    ),
    Claim("dual_removes", needs=("dual",), rule=_reached),
    _gain("balance_helps", "baseline", "gradnorm"),
    _gain("balance_beats_tuned", "static-tuned", "gradnorm", control=True),
    _gain("moving_helps", "gradnorm-static", "gradnorm", control=True),
    _gain("separation_beats_size", "baseline", "dual-equal", control=True),
    _gain("separation_helps", "baseline", "dual"),
    _gain("fusion_beats_gradnorm", "gradnorm", "fusion"),
    _gain("fusion_beats_dual", "dual", "fusion"),
    *(Claim(f"map_rises.{name}", (("baseline", name, "map50"),)) for name in BOTH),
    Claim("gradnorm_map", (("dual", "gradnorm", "map50"),)),
    Claim("gradnorm_precise", (("dual", "gradnorm", "precision"), ("gradnorm", "dual", "recall")), BOTH),
    Claim("gradnorm_f1", (("dual", "gradnorm", "f1"),)),
    *(
        Claim(f"{key}.{name}", needs=(name,), rule=partial(rule, name=name))
        for name in BOTH
        for key, rule in (("stable", _smooth), ("trained", _trained))
    ),
    Claim("gradnorm_lean", needs=BOTH, rule=_lean),
    Claim("dual_precise", tuple((*BOTH, score) for score in SCORES)),
    *(Claim(key, rule=_not_for_runs) for key in ("novel", "practice", "transfer")),
)
