"""What the sections of the analysis state: numbers, names and verdicts, no words. `a` is the `Analysis`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from gradlib.config import TASKS
from gradlib.evidence import diagnostics
from gradlib.evidence.controls import GUESSED
from gradlib.evidence.diagnostics import common_stages
from gradlib.evidence.intervals import Estimate, Evidence, across_runs, holm
from gradlib.evidence.tables import COST, METRICS, PERFORMANCE, SCORES, window

SPECIALISTS = ("detection-only", "classification-only")
PAIRS = (("gradnorm", "dual"), ("baseline", "gradnorm"), ("baseline", "dual"))
PARTS = {
    "map": ("map50", "map50_95"),
    "precision_recall": ("precision", "recall"),
    "f1": ("f1",),
    "boxes_views": ("detection_mse", "accuracy", "balanced_accuracy"),
}
GAINS = (*SCORES, "delta_m")
COSTS = [metric for metric in METRICS if metric not in PERFORMANCE]
#: What a solution costs, relative to another.
PRICE = ("parameters", "macs", "peak_memory_mb", "seconds_per_epoch")


@dataclass(frozen=True)
class Difference:
    """How much more of `metric` a solution `b` has than `a`; for delta_m `a` may be "", the specialists."""

    a: str
    b: str
    metric: str
    estimate: Estimate
    levels: tuple[float, float]  # of a and b

    @property
    def higher(self) -> bool:
        """Whether more is better."""
        return METRICS[self.metric].higher if self.metric in METRICS else self.metric == "delta_m"

    @property
    def verdict(self) -> str:
        """On b: `better`, `worse` (of a cost: `less`, `more`), `none`, or why there is none."""
        if self.estimate.insufficient_reason:
            return self.estimate.insufficient_reason
        found = self.estimate.verdict(self.higher)
        if found == "no difference shown":
            return "none"
        return {"better": "less", "worse": "more"}[found] if self.metric in COST else found


def differences(a, wanted: Iterable[tuple[str, str, str]], correct: bool = True) -> list[Difference]:
    """For each (solution, solution, metric) the second against the first, p Holm-corrected over them all."""
    found = {one: estimate(a, *one) for one in wanted}
    found = holm(found) if correct else found
    return [
        Difference(*key, one, tuple(a.evidence.level(name, key[2]).value for name in key[:2]))
        for key, one in found.items()
    ]


def each(pairs: Iterable[tuple[str, str]], metrics: Iterable[str]) -> list[tuple[str, str, str]]:
    """Every pair of solutions with every metric."""
    return [(*pair, metric) for pair in pairs for metric in metrics]


def estimate(a, first: str, second: str, metric: str) -> Estimate:
    """How much more `second` has than `first` of a metric, delta_m, conflict `rate` (0-1) of shared stages
    or the `imbalance` of shares; and the mean `cosine` of `second` alone."""
    if metric == "delta_m":
        return a.evidence.delta_m(second, first)
    if metric in ("cosine", "rate"):
        stages = common_stages(a.study, *filter(None, (second, first)))
        measure = {"cosine": "cosine", "rate": "conflict"}[metric]
        rates = [diagnostics.by_run(a.study, n, measure, stages) for n in (second, first) if n and stages]
        return across_runs((rates[0] - rates[1]).dropna() if rates[1:] else rates[0] if rates else [])
    if metric == "imbalance":
        ends = [diagnostics.imbalance(a.study, name) for name in (second, first)]
        return across_runs((ends[0] - ends[1]).dropna())
    return a.evidence.difference(first, second, metric)


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
    ends = sorted((a.study.folder / path / "metrics.json").stat().st_mtime for path in a.study.runs["path"])
    days = (datetime.fromtimestamp(end, UTC) for end in (ends[0], ends[-1]))
    return [*dict.fromkeys(f"{day:%Y-%m-%d %H:%M}" for day in days)]


def starts(a) -> list[str]:
    """The checkpoints that the runs started from; "" for none."""
    return [*dict.fromkeys(Path(config.get("pretrained") or "").name for config in a.configs)]


def data(a) -> list[tuple[str, bool]]:
    """What the runs were trained on (no path of a machine), and whether it is synthetic."""
    paths = (str(config.get("data", "phantom")) for config in a.configs)
    return [*dict.fromkeys(("/".join(Path(path).parts[-2:]), "phantom" in path) for path in paths)]


def skipped(a) -> list[dict]:
    """What of the data the runs left out, each once; empty where runs of an earlier version do not say it."""
    known = all("skipped" in config for config in a.configs)
    return [*{str(config["skipped"]): config["skipped"] for config in a.configs}.values()] if known else []


def leaders(a, metrics: Iterable[str], names: Sequence[str]) -> list[tuple[str, list[str], float]]:
    """Of each metric the best mean among solutions, and whose it is."""
    found = []
    for metric in metrics:
        values = (a.core if metric in a.core else a.efficiency).loc[[*names], metric].dropna()
        best = values.max() if METRICS[metric].higher else values.min()
        found.append((metric, [*values.index[np.isclose(values, best)]], best))
    return found


def comparable(a) -> list[str]:
    """The joint solutions with a network; where there are none, all with a network."""
    trained = a.efficiency.index[a.efficiency["parameters"].notna()]
    return [name for name in a.joint if name in trained] or [*trained]


def price(a, reference: str, name: str) -> dict[str, float]:
    """How many times as much a solution costs as another."""
    levels = {metric: [a.evidence.level(n, metric).value for n in (reference, name)] for metric in PRICE}
    return {metric: other / one if one else np.nan for metric, (one, other) in levels.items()}


# --- differences ---


def comparison(a, first: str, second: str) -> tuple[list[Difference], list[Difference], Counter]:
    """Differences in performance and in cost, and how often a verdict is better, worse, no, too (few)."""
    scores = differences(a, each([(first, second)], PERFORMANCE))
    scores = [one for one in scores if one.estimate.insufficient_reason != "values"]
    counts = Counter(one.estimate.verdict(METRICS[one.metric].higher).split()[0] for one in scores)
    return scores, differences(a, each([(first, second)], COST), correct=False), counts


def gains(a) -> list[Difference]:
    """delta_m of every joint solution, Holm-corrected; none where a specialist is missing."""
    return differences(a, [("", name, "delta_m") for name in a.joint]) if a.has(*SPECIALISTS) else []


def against(a, reference: str, others: Iterable[str]) -> dict[str, list[Difference]]:
    """Both scores and delta_m of solutions against a reference, by solution."""
    found = differences(a, each([(reference, name) for name in others], GAINS))
    return {name: [one for one in found if one.b == name] for name in others}


def fused(a) -> list[Difference]:
    """Both remedies at once against each alone."""
    pairs = [(name, "fusion") for name in ("gradnorm", "dual") if a.has(name, "fusion")]
    return differences(a, each(pairs, SCORES))


def performance(a) -> dict[str, list[Difference]]:
    """The differences between the reference report's solutions, by part of the section."""
    pairs = [pair for pair in PAIRS if a.has(*pair)]
    found = differences(a, each(pairs, [metric for metrics in PARTS.values() for metric in metrics]))
    return {part: [one for one in found if one.metric in metrics] for part, metrics in PARTS.items()}


def trades(found: Iterable[Difference]) -> list[tuple[str, str, bool]]:
    """Whether precision is paid for with recall: who has more precision, who more recall, if it is shown."""
    verdicts = {(one.a, one.b, one.metric): one.verdict for one in found}
    out = []
    for first, second in dict.fromkeys((one.a, one.b) for one in found):
        precision, recall = (verdicts[first, second, metric] for metric in ("precision", "recall"))
        shown = {precision, recall} == {"better", "worse"}
        out.append((second, first, True) if shown and precision == "better" else (first, second, shown))
    return out


def entangled(a) -> list[Difference]:
    """What solutions know of the views beyond what follows from the jets."""
    names = [name for name in ("classification-only", "baseline", "gradnorm", "dual") if a.has(name)]
    return differences(a, [(GUESSED, name, "balanced_accuracy") for name in names])


def undecided(a) -> list[Difference]:
    """The differences without a verdict."""
    pairs = [("gradnorm", "dual"), *(("baseline", name) for name in a.joint if name != "baseline")]
    found = differences(a, each([pair for pair in pairs if a.has(*pair)], SCORES))
    return [one for one in found if one.verdict not in ("better", "worse")]


def required(one: Estimate) -> list[tuple[str, float, int]]:
    """How many patients, and how many runs, would show a difference of this size: (what, needed, had)."""
    ways = zip(("patients", "runs"), one.required_n(), (one.patients, one.runs), strict=True)
    return [(what, needed, had) for what, needed, had in ways if had < needed < np.inf]


def leaks(a) -> dict[str, pd.DataFrame]:
    """By solution that runs on both splits: its scores on each with their 95 % margins of error.

    Columns metric, published, unseen, `<split> margin`; difference, low and high (its interval, of two
    samples: Zou and Donner 2008), verdict (the published figure is `above`, `below` or `inside`).
    """
    out, published = {}, Evidence(replace(a.study, runs=a.study.published))
    for name, rows in a.study.published.groupby("of"):
        if not a.has(name):
            continue
        table = pd.DataFrame({"metric": SCORES})
        runs = {"published": (published, rows["solution"].iloc[0]), "unseen": (a.evidence, name)}
        for split, (evidence, run) in runs.items():
            levels = [evidence.level(run, metric) for metric in SCORES]
            table[split] = [one.value for one in levels]
            table[f"{split} margin"] = [one.margin_of_error for one in levels]
        difference = table["published"] - table["unseen"]
        margin = np.hypot(table["published margin"], table["unseen margin"])
        side = np.where(difference > 0, "above", "below")
        table["verdict"] = np.where(difference.abs() > margin, side, "inside")
        table = table.assign(difference=difference, low=difference - margin, high=difference + margin)
        out[name] = table
    return out


# --- the summary ---


def counts(a) -> tuple[Counter, int]:
    """How many claims have each reading, and how many another than supported, contradicted, not shown."""
    found = Counter(one.reading for one in a.claims)
    return found, found.total() - sum(found[key] for key in ("supported", "contradicted", "not_shown"))


def by_verdict(found: Iterable[Difference]) -> dict[str, list[str]]:
    """The solutions by the verdict on them: better, worse, no, too (few)."""
    out = {"better": [], "worse": [], "no": [], "too": []}
    for one in found:
        out[one.estimate.verdict().split()[0]].append(one.b)
    return out


# --- gradients, weights, losses ---


def balancing(a) -> list[str]:
    """The solutions with a balancer, at least the reference report's."""
    balancers = a.study.runs.drop_duplicates("solution").set_index("solution")["balancer"]
    return [n for n in a.names if isinstance(balancers[n], str) and balancers[n] != "fixed"] or ["gradnorm"]


def separating(a) -> list[str]:
    """The joint solutions that share nothing, at least the reference report's."""
    shares = a.reached["both"]
    return [name for name in a.joint if name in shares.index and shares[name] == 0] or ["dual"]


def conflict(a, name: str) -> dict | None:
    """How often and where a solution's gradients conflict, and their mean cosine; None without probes."""
    if name not in a.conflicts.index:
        return None
    row = a.conflicts.loc[name]
    return {
        "rate": row["conflict"],
        "probes": int(row["probes"]),
        "worst": row["worst"],
        "worst_rate": row["worst_conflict"],
        "norm": a.norms.loc[name, "conflict"] if name in a.norms.index else None,
        "cosine": estimate(a, "", name, "cosine"),
        "runs": a.runs_of(name),
    }


def drift(a, name: str) -> tuple[float, float] | None:
    """The mean cosine of convolutions in the first and the last tenth of the probes."""
    probes = a.study.probes[(a.study.probes["solution"] == name) & (a.study.probes["kind"] == "conv")]
    by_step = probes.groupby("step")["cosine"].mean().dropna()
    n = window(by_step)
    return (by_step.iloc[:n].mean(), by_step.iloc[-n:].mean()) if len(by_step) else None


def pairs(a, name: str, classes: Sequence[str], views: Sequence[str]) -> dict | None:
    """The jet and the view whose gradients point farthest apart."""
    rows = a.study.pairs[a.study.pairs["solution"] == name].dropna(subset=["cosine"])
    if rows.empty:
        return None
    table = rows.groupby(["class", "view"])["cosine"].agg(["mean", "size"])
    jet, view = table["mean"].idxmin()
    return {
        **{"count": len(table), "jet": classes[jet], "view": views[view], "cosine": table["mean"].min()},
        **{"probes": table.loc[(jet, view), "size"], "below": (table["mean"] < 0).sum()},
    }


def balance(a, name: str) -> tuple[list[tuple[str, pd.Series]], int, list[str]]:
    """Means of each task's weight and share at start and end, over how many runs, and which tasks have nearly
    no share and still learn."""
    rows = a.collapse[a.collapse.index.get_level_values("solution") == name]
    moves = (
        [(task, rows.xs(task, level="task").mean(numeric_only=True)) for task in TASKS] if len(rows) else []
    )
    low = rows[rows["state"] == "still learning"].index.get_level_values("task").unique()
    return moves, len(rows) // len(TASKS), [*low]


def collapses(a, names: Iterable[str]) -> list[dict]:
    """Every task of these solutions that training switched off, or (`late`) may have."""
    states, found = a.collapse.reset_index(), []
    chosen = states[states["solution"].isin([*names])]
    for (name, task), rows in chosen.groupby(["solution", "task"], sort=False):
        for state in ("collapse", "too late to tell"):
            hit = rows[rows["state"] == state]
            if len(hit):
                counts = {"late": state != "collapse", "count": len(hit), "runs": len(rows)}
                found.append({"name": name, "task": task, "mean": hit.mean(numeric_only=True), **counts})
    return found


def schedules(a) -> tuple[list[str], dict[str, list[float]]]:
    """Solutions with weights that move; lowest and highest start, peak and end of learning rates."""
    quantity = a.dynamics.index.get_level_values("quantity")
    rates, weights = (a.dynamics[quantity.str.startswith(kind)] for kind in ("lr_", "weight_"))
    moving = weights[weights["trend"] != "unchanged"].index.get_level_values("solution").unique()
    return [*moving], {key: [rates[key].min(), rates[key].max()] for key in ("start", "highest", "end")}
