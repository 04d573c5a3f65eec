"""The reference report's claims, and what its remedies rest on, against these runs.

A claim of differences is `supported` where all its figures differ from zero its way, `contradicted` where one
differs the other way, else `not_shown`; p is Holm-corrected over the figures of all claims.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gradlib.config import TASKS
from gradlib.evidence import diagnostics
from gradlib.evidence.intervals import proportion_interval
from gradlib.evidence.tables import SCORES
from gradlib.report import facts
from gradlib.report.facts import Difference

# Per cent: a training loss that never rises by more from one epoch to the next is called smooth.
STEADY = 5.0


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
        verdicts = {one.estimate.verdict(one.higher != self.below) for one in figures}
        if "worse" in verdicts:
            return "contradicted"
        return "supported" if verdicts == {"better"} else "not_shown"


@dataclass(frozen=True)
class Reading:
    """What the runs say of a claim: `supported`, `contradicted`, `not_shown`, `by_construction`,
    `not_for_runs`, or `no_runs` (of the solutions in `lacking`); and what was measured."""

    key: str
    reading: str
    figures: Sequence[Difference]
    measured: Sequence
    lacking: Sequence[str]

    @property
    def reasons(self) -> dict[str, None]:
        """Why figures have no verdict, where nothing is shown."""
        reasons = [one.estimate.insufficient_reason for one in self.figures]
        return dict.fromkeys(filter(None, reasons)) if self.reading == "not_shown" else {}


def read(a) -> list[Reading]:
    """What the runs of an `Analysis` say of every claim."""
    lacking = {claim: claim.lacking(a) for claim in CLAIMS}
    told = {claim: ("no_runs",) if lacking[claim] else claim.rule(a) for claim in CLAIMS}
    asked = {
        claim: [figure for figure in claim.figures if a.has(*filter(None, figure[:2]))]
        for claim in CLAIMS
        if not told[claim][0]
    }
    differences = facts.differences(a, [figure for figures in asked.values() for figure in figures])
    found = {(one.a, one.b, one.metric): one for one in differences}
    readings = []
    for claim, (reading, *measured) in told.items():
        figures = [found[figure] for figure in asked.get(claim, ())]
        reading = reading or claim.judge(figures)
        if not claim.control or a.has(*claim.figures[0][:2]):
            readings.append(Reading(claim.key, reading, figures, measured, lacking[claim]))
    return readings


def _switched_off(a) -> tuple:
    states = a.collapse.loc["gradnorm-reported"]["state"]
    return "contradicted" if (states == "collapse").any() else "", "balance", "gradnorm-reported"


def _reached(a) -> tuple:
    counts = a.reached.loc["dual"]
    if np.isnan(counts["both"]):  # runs of an earlier version do not say it
        return ("no_runs",)
    return "by_construction" if counts["both"] == 0 else "contradicted", "reached", counts


def _smooth(a, name: str) -> tuple:
    return _counted("smooth", diagnostics.largest_rises(a.study, name) <= STEADY, limit=STEADY)


def _trained(a, name: str) -> tuple:
    """In how many runs both tasks' training losses fell and no task collapsed."""
    epochs = a.study.epochs[a.study.epochs["solution"] == name]
    fell = epochs.groupby(["fold", "seed"])[[f"train_loss_{task}" for task in TASKS]].agg(["first", "last"])
    good = np.all([fell[f"train_loss_{t}"]["last"] < fell[f"train_loss_{t}"]["first"] for t in TASKS], axis=0)
    states = a.collapse.reset_index()
    off = states[(states["solution"] == name) & (states["state"] == "collapse")]
    return _counted("trained", good & ~fell.index.isin(off.set_index(["fold", "seed"]).index))


def _counted(macro: str, good: np.ndarray, **numbers) -> tuple:
    """A claim that holds in so many runs: supported where the exact interval of the share is above a half."""
    low, high = proportion_interval(int(good.sum()), len(good))
    reading = "supported" if low > 0.5 else "contradicted" if high < 0.5 else "not_shown"
    return reading, macro, {"count": int(good.sum()), "runs": len(good), "low": low, "high": high, **numbers}


def _lean(a) -> tuple:
    times = facts.price(a, "gradnorm", "dual")
    # The numbers of parameters and operations are the networks', the same in every run.
    lean = times["parameters"] > 1 and times["macs"] > 1
    return "supported" if lean else "contradicted", "lean", times


def _not_for_runs(a) -> tuple:
    return ("not_for_runs",)


def _gain(key: str, first: str, second: str, **options) -> Claim:
    return Claim(key, ((first, second, "delta_m"),), **options)


BOTH = ("gradnorm", "dual")
CLAIMS = (
    Claim("gradients_oppose", (("", "baseline", "cosine"),)),
    _gain("sharing_harms", "", "baseline", below=True),
    Claim("fewer_conflicts", (("baseline", "gradnorm", "rate"),)),
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
    Claim("map_rises.gradnorm", (("baseline", "gradnorm", "map50"),)),
    Claim("map_rises.dual", (("baseline", "dual", "map50"),)),
    Claim("gradnorm_map", (("dual", "gradnorm", "map50"),)),
    Claim("gradnorm_precise", (("dual", "gradnorm", "precision"), ("gradnorm", "dual", "recall")), BOTH),
    Claim("gradnorm_f1", (("dual", "gradnorm", "f1"),)),
    Claim("stable.gradnorm", needs=("gradnorm",), rule=partial(_smooth, name="gradnorm")),
    Claim("trained.gradnorm", needs=("gradnorm",), rule=partial(_trained, name="gradnorm")),
    Claim("stable.dual", needs=("dual",), rule=partial(_smooth, name="dual")),
    Claim("trained.dual", needs=("dual",), rule=partial(_trained, name="dual")),
    Claim("gradnorm_lean", needs=BOTH, rule=_lean),
    Claim("dual_precise", tuple((*BOTH, score) for score in SCORES)),
    *(Claim(key, rule=_not_for_runs) for key in ("novel", "practice", "transfer")),
)
