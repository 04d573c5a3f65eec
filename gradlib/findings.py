"""Single findings as Markdown: what the gradients, the weights and the losses did, who is best.

Every sentence is computed from the runs of a study; `wording` says how far a sentence may go.
"""

from collections.abc import Iterable, Sequence

from gradlib import compare, diagnostics
from gradlib.compare import METRICS, PERFORMANCE
from gradlib.config import TASKS
from gradlib.wording import collapses, escape, listed, scope, signed, table

__all__ = [
    "balance",
    "best",
    "conflict",
    "drift",
    "gain",
    "gains",
    "holder",
    "most_runs",
    "pairs",
    "schedules",
    "stages",
    "steadiness",
]


def most_runs(study) -> int:
    """How many runs the solution with the most of them has."""
    return int(compare.core_metrics(study)["runs"].max())


def stages(study, name: str) -> str:
    """Table of the cosine, conflict rate and magnitude similarity of a solution, by shared stage."""
    rows = diagnostics.conflict_by_stage(study).loc[name]
    cells = [
        (
            stage,
            kind,
            f"{r['cosine']:+.3f}",
            f"{r['conflict']:.0%}",
            f"{r['magnitude_similarity']:.3f}",
            int(r["probes"]),
        )
        for (kind, stage), r in rows.iterrows()
    ]
    header = ("Stage", "Parameters", "Mean cosine", "Conflicts", "Magnitude similarity", "Probes")
    return table(cells, header)


def conflict(study, name: str) -> str:
    """How often and where a solution's gradients conflict, in one sentence."""
    rates = diagnostics.conflicts(study)
    if name not in rates.index:
        return f"{escape(name)} has no probe of a shared stage: no conflict was measured."
    row, norm = rates.loc[name], diagnostics.conflicts(study, "norm")
    apart = f"; in normalisation parameters {norm.loc[name, 'conflict']:.0%}" if name in norm.index else ""
    where = (
        f"most often in {escape(row['worst'])} ({row['worst_conflict']:.0%})"
        if row["worst_conflict"] > 0
        else "in no stage"
    )
    return (
        f"In {escape(name)} the tasks' gradients conflict in {row['conflict']:.0%} of "
        f"{int(row['probes'])} probes of convolutions, {where}{apart}; the mean cosine is "
        f"{row['cosine']:+.3f}."
    )


def pairs(study, name: str, classes: Sequence[str], views: Sequence[str]) -> str:
    """The jet and the view whose gradients point farthest apart, in one sentence."""
    rows = study.pairs[study.pairs["solution"] == name].dropna(subset=["cosine"])
    if rows.empty:
        return f"{escape(name)}: no pair of a jet and a view was compared."
    by_pair = rows.groupby(["class", "view"])["cosine"].agg(["mean", "size"])
    (label, view), worst = by_pair["mean"].idxmin(), by_pair["mean"].min()
    size = int(by_pair.loc[(label, view), "size"])
    return (
        f"{escape(name)}: of {len(by_pair)} pairs, {escape(classes[label])} and {escape(views[view])} point "
        f"farthest apart (mean cosine {worst:+.3f} in {size} probes); {(by_pair['mean'] < 0).sum()} have a "
        "mean below 0."
    )


def balance(study, name: str) -> str:
    """What a balancer did to weights and gradient share, and whether that is balance or collapse."""
    rows = diagnostics.collapse(study)
    rows = rows[rows.index.get_level_values("solution") == name]
    if rows.empty:
        return "No weighted gradient share was recorded."
    moves = []
    for task in TASKS:
        m = rows.xs(task, level="task").mean(numeric_only=True)
        moves.append(
            f"{task}: weight {m['weight_start']:.3f} to {m['weight_end']:.3f}, weighted gradient share "
            f"{m['share_start']:.1%} to {m['share_end']:.1%}"
        )
        start, end = abs(m["share_start"] - 0.5), abs(m["share_end"] - 0.5)
    runs = len(rows) // len(TASKS)
    text = f"{'; '.join(moves)} {scope(runs)}. "
    fallen = collapses(study, [name])
    if fallen:
        return text + " ".join(fallen)
    word = "nearer to" if end < start - 0.01 else "farther from" if end > start + 0.01 else "as far from"
    low = rows[rows["state"] == "still learning"].index.get_level_values("task").unique()
    learning = f" The share of {listed(low)} is under 1%, but its loss still falls." if len(low) else ""
    than = "as" if word == "as far from" else "than"
    return f"{text}No task collapsed; the shares end {word} one half {than} at the start.{learning}"


def drift(study, name: str, kind: str = "conv") -> str:
    """The mean cosine of the first and the last tenth of the probes, in one sentence."""
    probes = study.probes[(study.probes["solution"] == name) & (study.probes["kind"] == kind)]
    by_step = probes.groupby("step")["cosine"].mean().dropna()
    if by_step.empty:
        return "No probe of a shared stage."
    n = compare.window(by_step)
    start, end = by_step.iloc[:n].mean(), by_step.iloc[-n:].mean()
    return f"The mean cosine goes from {start:+.3f} (first tenth of the probes) to {end:+.3f} (last tenth)."


def schedules(study) -> str:
    """Which weights move, and from where to where the learning rates go."""
    rows = compare.dynamics(study)
    quantity = rows.index.get_level_values("quantity")
    rates, weights = rows[quantity.str.startswith("lr_")], rows[quantity.str.startswith("weight_")]
    moving = weights[weights["trend"] != "unchanged"].index.get_level_values("solution").unique()

    def span(column: str) -> str:
        return " to ".join(dict.fromkeys(f"{rates[column].agg(end):.2g}" for end in ("min", "max")))

    return (
        f"Loss weights end elsewhere than they start in: {listed(map(escape, moving))}. Learning rates start "
        f"at {span('start')}, reach {span('highest')} and end at {span('end')}."
    )


def steadiness(study, name: str) -> str:
    """How often and by how much the unweighted training losses rose."""
    rows = diagnostics.stability(study).loc[name]
    return "; ".join(
        f"the training loss of {task} rose in {int(r['rises'])} of {int(r['epochs'])} epochs"
        + (f", by {r['largest_rise']:.1f}% at most" if r["rises"] else "")
        for task, r in rows.iterrows()
    )


def gains(study) -> str:
    """Table of delta_m, every joint solution against the single-task specialists."""
    rows = compare.delta_m(study)
    cells = [
        (escape(name), *(signed(r[c]) for c in (*TASKS, "delta_m")), int(r["runs"]), r["why"] or "computed")
        for name, r in rows.iterrows()
    ]
    return table(cells, ("Solution", "Detection", "Classification", "delta_m", "Runs", "State"))


def gain(study) -> str:
    """delta_m in one sentence: who is above the specialists, and who is not."""
    rows = compare.delta_m(study)
    known = rows.dropna(subset=["delta_m"])
    if known.empty:
        return "delta_m cannot be computed: " + listed(dict.fromkeys(rows["why"]), "no joint solution") + "."
    up = [f"{escape(n)} ({v:+.1f}%)" for n, v in known["delta_m"].items() if v > 0]
    down = [f"{escape(n)} ({v:+.1f}%)" for n, v in known["delta_m"].items() if v <= 0]
    where = scope(int(known["runs"].max()))
    return (
        f"By delta_m (relative change against the single-task specialists, positive is better) {where} above "
        f"them: {listed(up)}; not above them: {listed(down)}."
    )


def holder(study, metric: str, among: list[str]) -> str:
    """The solution with the best value of a metric, by name and figure."""
    table = (compare.core_metrics(study) if metric in PERFORMANCE else compare.efficiency(study)).loc[among]
    values = table[metric].dropna()
    if values.empty:
        return "–"
    best = values.max() if METRICS[metric].higher else values.min()
    names = listed(escape(name) for name in values.index[values == best])
    return (
        f"{names} ({METRICS[metric].text(best)}{' ' + METRICS[metric].unit if METRICS[metric].unit else ''})"
    )


def best(study, metrics: Iterable[str]) -> str:
    """Who has the best value of each metric among the solutions with both tasks, in one sentence."""
    joint = compare.joint(study)
    if not joint:
        return "No solution with both tasks has a complete run."
    each = "; ".join(f"{METRICS[metric].label} {holder(study, metric, joint)}" for metric in metrics)
    return f"Best of the solutions with both tasks, {scope(most_runs(study))}: {each}."
