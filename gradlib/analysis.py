"""The analysis as Markdown: interference, performance, efficiency, what was found and what is left.

Every sentence is computed from the runs of a study; `wording` says how far a sentence may go.
"""

import pandas as pd

from gradlib import compare, diagnostics
from gradlib.compare import COST, METRICS, PERFORMANCE, SCORES
from gradlib.config import TASKS
from gradlib.report import trained_on
from gradlib.wording import (
    absent,
    bullets,
    collapses,
    compared,
    escape,
    listed,
    missing,
    scope,
    sentence,
    signed,
    table,
    verdict,
)

__all__ = [
    "balance",
    "best",
    "conflict",
    "efficiency",
    "interference",
    "outlook",
    "performance",
    "steadiness",
    "summary",
]


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


def balance(study, name: str) -> str:
    """What a balancer did to weights and gradient share, and whether that is balance or collapse."""
    rows = diagnostics.collapse(study)
    rows = rows[rows.index.get_level_values("solution") == name]
    if rows.empty:
        return f"{escape(name)}: no weighted gradient share was recorded."
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


def interference(study) -> str:
    """Section 1: do the gradients fight, and what did each remedy do about it."""
    found, parts = compare.names(study), []
    reach = diagnostics.reached(study)
    parts.append("#### Without a remedy: baseline")
    if "baseline" not in found:
        parts.append(missing("baseline"))
    else:
        parts.append(conflict(study, "baseline"))
        parts += [stages(study, "baseline")] if "baseline" in diagnostics.conflicts(study).index else []
    balanced = [n for n in found if (study.runs.set_index("solution").loc[[n], "balancer"] != "fixed").any()]
    for name in balanced or ["gradnorm"]:
        parts.append(f"#### Balancing: {escape(name)}")
        if name not in found:
            parts.append(missing(name))
            continue
        rates, against = diagnostics.conflict_against(study, name, "baseline"), ""
        if rates is not None:
            rate, base = rates[name], rates["baseline"]
            word = "lower than" if rate < base else "higher than" if rate > base else "equal to"
            against = f" Over the stages that both share ({escape(rates['stages'])}) its rate, {rate:.1%}, "
            against += f"is {word} the baseline's, {base:.1%}, {scope(_runs(study))}."
        parts.append(
            bullets(
                f"**Weights and shares**: {balance(study, name)}",
                f"**Conflicts**: {conflict(study, name)}{against}",
                f"**Stability**: {steadiness(study, name)}.",
            )
        )
    for name in [n for n in found if n in compare.joint(study) and reach.loc[n, "both"] == 0] or ["dual"]:
        parts.append(f"#### Separation: {escape(name)}")
        if name not in found:
            parts.append(missing(name))
            continue
        own = reach.loc[name]
        cost = compared(study, "baseline", name, COST)
        parts.append(
            bullets(
                f"**Separation**: of {own['total']:,} parameters {own['both']:,} are reached by both tasks' "
                f"gradients (detection alone {own['detection']:,}, classification alone "
                f"{own['classification']:,}). By construction nothing can conflict; that is the "
                "architecture, not something that was measured.",
                *(
                    sentence(row, "baseline", name)
                    for _, row in (cost.iterrows() if cost is not None else ())
                ),
                f"**Stability**: {steadiness(study, name)}.",
            )
        )
    parts += ["#### Against the specialists (delta_m)", _gain_sentence(study), gains(study)]
    return "\n\n".join(parts)


def _gain_sentence(study) -> str:
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


def _best(study, metric: str, among: list[str]) -> str:
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
    each = "; ".join(f"{METRICS[metric].label} {_best(study, metric, joint)}" for metric in metrics)
    return f"Best of the solutions with both tasks, {scope(_runs(study))}: {each}."


def performance(study) -> str:
    """Section 2: mAP, the trade-off of precision and recall, F1."""
    parts = []
    pairs = [
        p
        for p in (("gradnorm", "dual"), ("baseline", "gradnorm"), ("baseline", "dual"))
        if not absent(study, *p)
    ]
    for title, metrics in (
        ("mAP", ["map50", "map50_95"]),
        ("Precision and recall", ["precision", "recall"]),
        ("F1", ["f1"]),
        ("Boxes and views", ["detection_mse", "accuracy", "balanced_accuracy"]),
    ):
        cells, trades = [], []
        for a, b in pairs:
            rows = compared(study, a, b, metrics)
            for metric, row in rows.iterrows() if rows is not None else ():
                values = (f"{escape(n)} {METRICS[metric].text(row[c])}" for n, c in ((a, "a"), (b, "b")))
                cells.append(
                    (f"**{METRICS[metric].label}**", *values, signed(row["difference"]), verdict(row))
                )
            if rows is not None and "recall" in metrics:
                trades.append(_trade(rows, a, b))
        header = ("Metric", "First", "Second", "Difference", "Reading")
        parts += [f"#### {title}", best(study, metrics)]
        parts += [table(cells, header)] * bool(cells) + [bullets(*trades)] * bool(trades)
    lacking = absent(study, "baseline", "gradnorm", "dual")
    return "\n\n".join([*parts, missing(*lacking)] if lacking else parts)


def _trade(rows: pd.DataFrame, a: str, b: str) -> str:
    precision, recall = rows["winner"]
    if "–" in (precision, recall):
        return ""
    if precision == recall or "equal" in (precision, recall):
        return (
            f"Between {escape(a)} and {escape(b)} there is no trade-off: neither is ahead in one and "
            "behind in the other."
        )
    return (
        f"Between {escape(a)} and {escape(b)} there is a trade-off: precision is higher for "
        f"{escape(precision)}, recall for {escape(recall)}."
    )


def _runs(study) -> int:
    return int(compare.core_metrics(study)["runs"].max())


def efficiency(study) -> str:
    """Section 3: compute, memory, and which solution asks least of a small device."""
    joint, cost = compare.joint(study) or compare.names(study), compare.efficiency(study)
    readable = compare.readable(cost.drop(columns="runs"))
    cells = [(escape(name), *row) for name, row in zip(readable.index, readable.to_numpy(), strict=True)]
    small = _best(study, "parameters", joint)
    mb = {name: 4 * cost.loc[name, "parameters"] / 2**20 for name in joint}
    lines = [
        f"**Compute**: least time per epoch {_best(study, 'seconds_per_epoch', joint)}; fewest MACs "
        f"{_best(study, 'macs', joint)}, {scope(_runs(study))}.",
        f"**Memory**: lowest peak while training {_best(study, 'peak_memory_mb', joint)}.",
        f"**A small device**: fewest parameters {small}. As 32-bit numbers the weights take "
        + listed(f"{value:.1f} MiB ({escape(name)})" for name, value in mb.items())
        + ". No run was made on such a device: time there cannot be said from these runs.",
    ]
    return f"{table(cells, ('Solution', *readable.columns))}\n\n{bullets(*lines)}"


def summary(study) -> str:
    """What was found, in a few lines."""
    joint, n = compare.joint(study), _runs(study)
    shared = [name for name in joint if name in set(diagnostics.collapse(study).index.get_level_values(0))]
    fallen = collapses(study, joint)
    limits = (
        "One run of each solution: its spread is unknown, so every difference above is what happened in this "
        "run, and may be chance."
        if n == 1
        else f"Figures are means over up to {n} runs; no interval is given, so a difference may be chance."
    )
    return bullets(
        f"**Interference**: {conflict(study, 'baseline')}"
        if "baseline" in compare.names(study)
        else missing("baseline"),
        f"**Performance** of the joint solutions {scope(n)}: best mAP@0.5 {_best(study, 'map50', joint)}, "
        f"best balanced accuracy {_best(study, 'balanced_accuracy', joint)}."
        if joint
        else "**Performance**: no solution with both tasks.",
        f"**Against the specialists**: {_gain_sentence(study)}",
        *[f"**Collapse**: {line}" for line in fallen],
        "" if fallen or not shared else f"**Collapse**: none in {listed(map(escape, shared))}.",
        f"**Cost**: fewest parameters {_best(study, 'parameters', joint)}, least time per epoch "
        f"{_best(study, 'seconds_per_epoch', joint)}."
        if joint
        else "",
        f"**Limits**: {limits}",
    )


def outlook(study) -> str:
    """The reference report's four outlook items: what the kit offers now, and what is left."""
    data = trained_on(study)
    made = all(text.endswith("(synthetic)") for text in data)
    used = f"these runs used {listed(data)}"
    fusion = [n for n in ("gradnorm", "dual") if compared(study, n, "fusion", SCORES) is not None]
    fused = " ".join(
        sentence(row, name, "fusion")
        for name in fusion
        for _, row in compared(study, name, "fusion", SCORES).iterrows()
    )
    runs = study.runs[["fold", "seed"]].drop_duplicates()
    return bullets(
        f"**Validation on real data**: {used}. Any `data.yaml` in the YOLO convention is read, and split by "
        "patient. Left: "
        + (
            "runs on real frames; nothing above speaks about them."
            if made
            else "more patients and other sources."
        ),
        f"**Tuning**: every setting is a parameter of a study, and fixed weights are a solution; these "
        f"runs cover {len(runs)} combination{'s' * (len(runs) > 1)} of fold and seed. Left: a grid of fixed "
        "weights as a control, and intervals from more folds and seeds.",
        "**Other multi-task problems**: classes, views and the place where the tasks part are free. Left: "
        "tasks other than detection and classification.",
        "**Fusing both remedies**: `fusion` parts after P3 and balances with GradNorm. "
        + (fused or missing("fusion"))
        + " Left: choosing the place to part from the probes.",
    )
