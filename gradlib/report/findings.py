"""Single findings as Markdown: what the gradients, the weights and the losses did, who is best.

Every sentence is computed from the runs of a study (`wording.Analysis`), in its language.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from gradlib.config import TASKS
from gradlib.evidence import diagnostics, tables
from gradlib.evidence.intervals import Estimate, across_runs
from gradlib.evidence.tables import METRICS
from gradlib.report.rendering import Analysis, escape, interval, number, percent, table

__all__ = [
    "balance",
    "best",
    "collapses",
    "conflict",
    "cosine_of",
    "drift",
    "pairs",
    "rates",
    "schedules",
    "stages",
    "steadiness",
]


def stages(a: Analysis, name: str) -> str:
    """Table of the cosine, conflict rate and magnitude similarity of a solution, by shared stage."""
    rows = diagnostics.conflict_by_stage(a.study).loc[name]
    cells = [
        (
            stage,
            a.say(f"kind.{kind}"),
            f"{r['cosine']:+.3f}",
            percent(r["conflict"]),
            f"{r['magnitude_similarity']:.3f}",
            int(r["probes"]),
        )
        for (kind, stage), r in rows.iterrows()
    ]
    columns = ("stage", "parameters_of", "mean_cosine", "conflicts", "magnitude_similarity", "probes")
    return table(cells, [a.say(f"column.{column}") for column in columns])


def conflict(a: Analysis, name: str) -> str:
    """How often and where a solution's gradients conflict, and the mean cosine with its interval."""
    rates, norm = diagnostics.conflicts(a.study), diagnostics.conflicts(a.study, "norm")
    if name not in rates.index:
        return a.say("conflict.unmeasured", name=escape(name))
    row = rates.loc[name]
    often = row["worst_conflict"] > 0
    where = a.say("conflict.worst", stage=row["worst"], rate=percent(row["worst_conflict"])) if often else ""
    apart = a.say("conflict.norm", rate=percent(norm.loc[name, "conflict"])) if name in norm.index else ""
    return a.say(
        "conflict",
        name=escape(name),
        rate=percent(row["conflict"]),
        probes=f"{int(row['probes']):,}",
        where=where + apart,
        cosine=interval("cosine", cosine_of(a, name), sign=True),
        scope=a.scope(a.runs_of(name)),
    )


def cosine_of(a: Analysis, name: str) -> Estimate:
    """The mean cosine over a solution's shared stages."""
    shared = diagnostics.common_stages(a.study, name)
    return across_runs(diagnostics.by_run(a.study, name, "cosine", shared) if shared else [])


def rates(a: Analysis, name: str, reference: str) -> tuple[str, Estimate]:
    """The stages that two solutions share, and how much higher (0-1) the conflict rate of `name` is there."""
    common = diagnostics.common_stages(a.study, name, reference)
    one, other = (
        diagnostics.by_run(a.study, n, "conflict", common) if common else None for n in (name, reference)
    )
    return ", ".join(common), across_runs((one - other).dropna() if common else [])


def pairs(a: Analysis, name: str, classes: Sequence[str], views: Sequence[str]) -> str:
    """The jet and the view whose gradients point farthest apart, in one sentence."""
    rows = a.study.pairs[a.study.pairs["solution"] == name].dropna(subset=["cosine"])
    if rows.empty:
        return a.say("pairs.none", name=escape(name))
    by_pair = rows.groupby(["class", "view"])["cosine"].agg(["mean", "size"])
    (label, view), worst = by_pair["mean"].idxmin(), by_pair["mean"].min()
    return a.say(
        "pairs",
        name=escape(name),
        count=len(by_pair),
        jet=escape(classes[label]),
        view=escape(views[view]),
        cosine=f"{worst:+.3f}",
        probes=int(by_pair.loc[(label, view), "size"]),
        below=int((by_pair["mean"] < 0).sum()),
    )


def balance(a: Analysis, name: str) -> str:
    """What a balancer did to weights and gradient share, and whether a task was switched off."""
    rows = diagnostics.collapse(a.study)
    rows = rows[rows.index.get_level_values("solution") == name]
    if rows.empty:
        return a.say("balance.unmeasured")
    moves = []
    for task in TASKS:
        m = rows.xs(task, level="task").mean(numeric_only=True)
        moves.append(
            a.say(
                "balance.task",
                task=a.say(f"task.{task}"),
                **{key: f"{m[f'weight_{key}']:.3f}" for key in ("start", "end")},
                share_start=percent(m["share_start"], 1),
                share_end=percent(m["share_end"], 1),
            )
        )
    text = a.say("sentence", text=a.say("semicolon").join(moves), scope=a.scope(len(rows) // len(TASKS)))
    fallen = collapses(a, [name])
    if fallen:
        return text + " ".join(fallen)
    low = rows[rows["state"] == "still learning"].index.get_level_values("task").unique()
    learning = (
        a.say("balance.learning", tasks=a.say.listed(a.say(f"task.{t}") for t in low)) if len(low) else ""
    )
    return text + a.say("balance.none") + learning


def collapses(a: Analysis, names: Iterable[str]) -> list[str]:
    """A sentence for every task of these solutions that training switched off, or may have."""
    lines = []
    states = diagnostics.collapse(a.study).reset_index()
    chosen = states[states["solution"].isin([*names])]
    for (name, task), rows in chosen.groupby(["solution", "task"], sort=False):
        for state in ("collapse", "too late to tell"):
            hit = rows[rows["state"] == state]
            if len(hit):
                mean = hit.mean(numeric_only=True)
                lines.append(
                    a.say(
                        "collapse" if state == "collapse" else "collapse.late",
                        name=escape(name),
                        task=a.say(f"task.{task}"),
                        share=percent(mean["share_end"], 2),
                        start=f"{mean['weight_start']:.3f}",
                        end=f"{mean['weight_end']:.3f}",
                        step=f"{mean['fell_at']:.0f}",
                        change=f"{mean['loss_change']:+.1f}%",
                        before=f"{mean['loss_at_fall']:.3f}",
                        after=f"{mean['loss_end']:.3f}",
                        count=len(hit),
                        runs=len(rows),
                    )
                )
    return lines


def drift(a: Analysis, name: str, kind: str = "conv") -> str:
    """The mean cosine of the first and the last tenth of the probes, in one sentence."""
    probes = a.study.probes[(a.study.probes["solution"] == name) & (a.study.probes["kind"] == kind)]
    by_step = probes.groupby("step")["cosine"].mean().dropna()
    if by_step.empty:
        return a.say("conflict.unmeasured", name=escape(name))
    n = tables.window(by_step)
    start, end = by_step.iloc[:n].mean(), by_step.iloc[-n:].mean()
    return a.say("drift", name=escape(name), start=f"{start:+.3f}", end=f"{end:+.3f}")


def schedules(a: Analysis) -> str:
    """Which weights move, and from where to where the learning rates go."""
    rows = tables.dynamics(a.study)
    quantity = rows.index.get_level_values("quantity")
    rates, weights = rows[quantity.str.startswith("lr_")], rows[quantity.str.startswith("weight_")]
    moving = weights[weights["trend"] != "unchanged"].index.get_level_values("solution").unique()

    def span(column: str) -> str:
        return a.say("to").join(dict.fromkeys(f"{rates[column].agg(end):.2g}" for end in ("min", "max")))

    return a.say(
        "schedules",
        moving=a.say.listed(map(escape, moving)),
        **{column: span(column) for column in ("start", "highest", "end")},
    )


def steadiness(a: Analysis, name: str) -> str:
    """How often and by how much the unweighted training losses rose, in the worst run."""
    rows = diagnostics.stability(a.study).loc[name]
    return a.say("semicolon").join(
        a.say(
            "steadiness" if r["rises"] else "steadiness.never",
            task=a.say(f"task.{task}"),
            rises=int(r["rises"]),
            epochs=int(r["epochs"]),
            largest=f"{r['largest_rise']:.1f}",
        )
        for task, r in rows.iterrows()
    )


def best(a: Analysis, metrics: Iterable[str]) -> str:
    """Who has the best mean of each metric among the solutions with both tasks, in one sentence.

    A mean, not a verdict, and the sentence says so.
    """
    if not a.joint:
        return a.say("best.nobody")
    core, cost = tables.core_metrics(a.study), tables.efficiency(a.study)
    parts = []
    for metric in metrics:
        values = (core if metric in core else cost).loc[a.joint, metric].dropna()
        if len(values):
            first = values.max() if METRICS[metric].higher else values.min()
            who = a.say.listed(escape(name) for name in values.index[np.isclose(values, first)])
            parts.append(a.say("best.one", metric=a.metric(metric), names=who, value=number(metric, first)))
    return a.say("best", each=a.say("semicolon").join(parts))
