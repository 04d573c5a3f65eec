"""What the sections of the analysis state: numbers, names and verdicts, no words. `a` is the `Analysis`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from gradlib.config import TASKS
from gradlib.evidence import diagnostics, interference, tables
from gradlib.evidence.intervals import Estimate, Evidence, across_runs, holm, with_p
from gradlib.evidence.tables import COST, METRICS, PER_PARAMETER, PERFORMANCE, SCORES

SPECIALISTS = ("detection-only", "classification-only")
# What a remedy gains over the baseline, on the mean and in detection. mAP@0.5:0.95 varies less with seeds:
# differences in it are 1.25 times as many margins of error as in mAP@0.5 (default study, 15 seeds).
GAINED_IN = ("delta_m", "map50_95")
# What sharing costs, on the mean and in each task.
SHARING = (
    ("", "baseline", "delta_m"),
    ("detection-only", "baseline", "map50_95"),
    ("classification-only", "baseline", "balanced_accuracy"),
)
PAIRS = (("gradnorm", "dual"), ("baseline", "gradnorm"), ("baseline", "dual"))
COSTS = (*COST, *PER_PARAMETER)


@dataclass(frozen=True)
class Difference:
    """How much more of `metric` a solution `b` has than `a`; where `a` is "", how much it has."""

    a: str
    b: str
    metric: str
    estimate: Estimate
    levels: tuple[float, float]  # of a and b

    @property
    def verdict(self) -> str:
        """On b, as `Estimate.verdict` has it."""
        return self.estimate.verdict(METRICS[self.metric].higher)


def family(a) -> dict[tuple[str, str, str], Estimate]:
    """The differences that the study tests, by (solution, solution, metric), p Holm-corrected over them all:
    delta_m of every joint solution, `GAINED_IN` against the baseline, `SHARING`, the claims' figures, and
    every metric of the analysis' `pairs`."""
    asked = [("", name, "delta_m") for name in a.joint if a.has(*SPECIALISTS)]
    asked += [("baseline", name, metric) for name in a.joint if name != "baseline" for metric in GAINED_IN]
    asked += SHARING if a.has(*SPECIALISTS) else ()
    asked += [(*pair, metric) for pair in a.pairs for metric in PERFORMANCE]
    asked += [figure for claim in a.asked for figure in claim.figures]
    found = {}
    for first, second, metric in asked:
        if (second, first, metric) not in found and a.has(*filter(None, (first, second))):
            found[first, second, metric] = estimate(a, first, second, metric)
    return holm(found)


def differences(a, wanted: Iterable[tuple[str, str, str]]) -> list[Difference]:
    """For each (solution, solution, metric) the second against the first. Those that are not of the `family`
    are not tested; what a solution costs needs no correction."""
    found = []
    for first, second, metric in wanted:
        if one := a.family.get((first, second, metric)):
            pass
        elif other := a.family.get((second, first, metric)):
            one = -other
        else:
            one = estimate(a, first, second, metric)
            untested = "" if metric in COST else "untested"
            one = replace(one, insufficient_reason=one.insufficient_reason or untested)
        levels = tuple(a.evidence.level(name, metric).value for name in (first, second))
        found.append(Difference(first, second, metric, one, levels))
    return found


def undecided(a) -> list[Difference]:
    """Those of the family that have no verdict."""
    found = differences(a, a.family)
    return [one for one in found if not one.estimate.decided and one.verdict != "values"]


def compared(a, pairs: Iterable[Sequence[str]], metrics: Iterable[str]) -> list[Difference]:
    """The differences of every pair of solutions with complete runs, in every metric."""
    there = [pair for pair in pairs if a.has(*filter(None, pair))]
    return differences(a, [(*pair, metric) for pair in there for metric in metrics])


def estimate(a, first: str, second: str, metric: str) -> Estimate:
    """How much more `second` has than `first` of a metric, of `rho` or of `imbalance`; where `first` is "",
    how much it has."""
    if metric == "rho":
        return with_p(interference.compare(a.study, second, first), a.evidence.margins["rho"])
    if metric == "imbalance":
        one = across_runs(diagnostics.imbalance(a.study, second, first))
        return with_p(one, a.evidence.margins["imbalance"])
    return a.evidence.difference(first, second, metric) if first else a.evidence.level(second, metric)


def gains(a) -> list[Difference]:
    """delta_m of every joint solution; none where a specialist is missing."""
    return compared(a, [("", name) for name in a.joint], ["delta_m"]) if a.has(*SPECIALISTS) else []


def required(one: Estimate) -> list[tuple[str, float, int]]:
    """How many patients, or how many runs, would show a difference as large as the margin: (what, needed,
    had)."""
    ways = [(what, one.required_n(what), getattr(one, what)) for what in ("patients", "runs")]
    return [(what, needed, had) for what, needed, had in ways if had < needed < np.inf]


def leaks(a) -> dict[str, pd.DataFrame]:
    """By solution that runs on both splits: its scores on each with their 95 % margins of error.

    Columns metric, published, unseen, `<split> margin`; difference and its margin (of two samples: Zou and
    Donner 2008), verdict (the published figure is `above`, `below` or `inside`).
    """
    out, published = {}, Evidence(replace(a.study, runs=a.study.published))
    for name, rows in a.study.published.groupby("of"):
        table = pd.DataFrame({"metric": SCORES})
        runs = {"published": (published, rows["solution"].iloc[0]), "unseen": (a.evidence, name)}
        for split, (evidence, run) in runs.items():
            levels = [evidence.level(run, metric) for metric in SCORES]
            table[split] = [one.value for one in levels]
            table[f"{split} margin"] = [one.margin_of_error for one in levels]
        difference = table["published"] - table["unseen"]
        margin = np.hypot(table["published margin"], table["unseen margin"])
        verdict = np.select([difference > margin, difference < -margin], ["above", "below"], "inside")
        out[name] = table.assign(difference=difference, margin=margin, verdict=verdict)
    return {name: table for name, table in out.items() if a.has(name)}


# --- the answers ---


def remedies(a) -> list[Difference]:
    """How much more every other joint solution has than the baseline, of each metric of `GAINED_IN`."""
    return differences(a, [key for key in a.family if key[0] == "baseline" and key[2] in GAINED_IN])


def choices(a) -> tuple[str, str, Difference | None]:
    """The joint solution with the best delta_m (on the mean; without the specialists, by both scores), the
    one with the fewest parameters among those that are not shown to be worse than it, and by how much they
    differ, where they are two."""
    values = a.evidence.points("delta_m").mean() if a.has(*SPECIALISTS) else a.core[SCORES].mean(axis=1)
    best = values[a.joint].idxmax()
    worse = {
        one.b
        for one in compared(a, [(best, n) for n in a.joint if n != best], ["delta_m"])
        if one.verdict == "worse"
    }
    fewest = a.efficiency.loc[[n for n in a.joint if n not in worse], "parameters"].idxmin()
    apart = compared(a, [(fewest, best)], ["delta_m"]) if fewest != best else [None]
    return best, fewest, apart[0]


# --- what was run ---


def distinct(a, *path: str) -> list:
    """What the runs' configurations have at `path`, each value once; None where there is none."""
    found = {}
    for value in a.configs:
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        found[str(value)] = value
    return [*found.values()]


def dates(a) -> list[str]:
    """When the first and the last run ended (UTC)."""
    ends = [(a.study.folder / path / "metrics.json").stat().st_mtime for path in a.study.runs["path"]]
    days = (datetime.fromtimestamp(end, UTC) for end in (min(ends), max(ends)))
    return [*dict.fromkeys(f"{day:%Y-%m-%d %H:%M}" for day in days)]


def data(a) -> list[tuple[str, bool]]:
    """What the runs were trained on (no path of a machine), and whether it is synthetic."""
    return [("/".join(Path(path).parts[-2:]), "phantom" in path) for path in distinct(a, "data")]


def leaders(a, metrics: Iterable[str], names: Sequence[str]) -> list[tuple[str, list[str], float]]:
    """Of each metric the best mean among solutions, and whose it is."""
    found = []
    for metric in metrics:
        values = (a.core if metric in a.core else a.efficiency).loc[[*names], metric].dropna()
        if len(values):
            best = values.max() if METRICS[metric].higher else values.min()
            found.append((metric, [*values.index[np.isclose(values, best)]], best))
    return found


def balancing(a) -> list[str]:
    """The solutions with a balancer, at least the reference report's."""
    weighed = set(a.trained.query("balancer != 'fixed'")["solution"])
    return [name for name in a.names if name in weighed] or ["gradnorm"]


def separating(a) -> list[str]:
    """The joint solutions that share nothing, at least the reference report's."""
    return [name for name in a.joint if a.reached["both"].get(name) == 0] or ["dual"]


# --- gradients, weights ---


def stages(a, name: str) -> pd.DataFrame:
    """The rows of `interference.by_stage` of a solution, with columns `kind` and `stage`."""
    return a.interference.reset_index().query("solution == @name")


def interfering(a, name: str) -> tuple[pd.Series, pd.Series | None] | None:
    """The row of `stages` of all shared convolutions of a solution, and that of the stage whose rho is known
    best, where there are several; None where nothing was measured."""
    rows = stages(a, name).query("kind == 'conv'").set_index("stage", drop=False)
    if rows.empty:
        return None
    width = (rows["rho_high"] - rows["rho_low"]).drop("all").dropna()
    return rows.loc["all"], rows.loc[width.idxmin()] if len(width) > 1 else None


def labelled(a) -> float:
    """The share of all test frames that have a box and a view, and so teach or test both tasks."""
    runs = a.trained[tables.RUN].itertuples(index=False, name=None)
    frames = {entry["image"]: entry for run in runs for entry in a.study.predictions(*run)}
    return float(np.mean([bool(e["boxes"]) and e["view"] >= 0 for e in frames.values()] or [np.nan]))


def affinity(a, name: str) -> pd.DataFrame:
    """The rows of `interference.affinities` of a solution, by (source, target)."""
    return a.affinity.query("solution == @name").droplevel("solution")


def harm(a) -> tuple[int, float, float, float]:
    """In how many runs rho and delta_m are known, and their rank correlation with its interval."""
    return len(a.harm), *interference.rank_correlation(a.harm["rho"], a.harm["delta_m"])


def noise(a, name: str) -> tuple[list[float], Estimate] | None:
    """`interference.noise_in_norms` of a solution that weighs the tasks by their gradients' norms."""
    gradnorm = "gradnorm" in set(a.trained.query("solution == @name")["balancer"])
    return interference.noise_in_norms(a.study, name) if gradnorm else None


def pairs(a, name: str) -> pd.DataFrame:
    """`mean` cosine and number of probes (`size`) by (class, view); the pair farthest apart comes first."""
    rows = a.study.pairs.query("solution == @name").dropna(subset="cosine")
    return rows.groupby(["class", "view"])["cosine"].agg(["mean", "size"]).sort_values("mean", kind="stable")


def balance(a, name: str) -> tuple[dict[str, pd.Series], int, Sequence[str]]:
    """Means of each task's weight and share at start and end, over how many runs, and which tasks have nearly
    no share and still learn."""
    rows = a.collapse.query("solution == @name")
    learning = rows.query("state == 'still learning'").index.unique("task")
    moves = {task: own.mean(numeric_only=True) for task, own in rows.groupby("task", sort=False)}
    return moves, len(rows) // len(TASKS), learning


def collapses(a, names: Sequence[str]) -> list[dict]:
    """Every task of these solutions that training switched off, or may have: the columns of
    `diagnostics.collapse`, mean over the `count` of `runs` with that `state`."""
    rows = a.collapse.query("solution in @names and state in ['collapse', 'too late to tell']")
    groups = rows.groupby(["solution", "task", "state"], sort=False)
    table = groups.mean(numeric_only=True).assign(count=groups.size()).reset_index()
    return table.assign(runs=table["solution"].map(a.runs_of)).to_dict("records")


def schedules(a) -> tuple[Sequence[str], pd.DataFrame]:
    """Solutions with weights that move; lowest and highest start and end of learning rates."""
    quantity = a.dynamics.index.get_level_values("quantity")
    rates, weights = (a.dynamics[quantity.str.startswith(kind)] for kind in ("lr_", "weight_"))
    moving = weights.query("trend != 'unchanged'").index.unique("solution")
    return moving, rates[["start", "end"]].agg(["min", "max"])
