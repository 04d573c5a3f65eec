"""The analysis as Markdown: interference, performance, efficiency, what was found and what is left.

Every sentence is computed from the runs of a study; `wording` says how far a sentence may go.
"""

import pandas as pd

from gradlib import compare, diagnostics
from gradlib.compare import COST, METRICS, SCORES
from gradlib.findings import balance, best, conflict, gain, gains, holder, most_runs, stages, steadiness
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

__all__ = ["efficiency", "interference", "outlook", "performance", "summary"]


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
            against += f"is {word} the baseline's, {base:.1%}, {scope(most_runs(study))}."
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
    parts += ["#### Against the specialists (delta_m)", gain(study), gains(study)]
    return "\n\n".join(parts)


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


def efficiency(study) -> str:
    """Section 3: compute, memory, and which solution asks least of a small device."""
    joint, cost = compare.joint(study) or compare.names(study), compare.efficiency(study)
    readable = compare.readable(cost.drop(columns="runs"))
    cells = [(escape(name), *row) for name, row in zip(readable.index, readable.to_numpy(), strict=True)]
    small = holder(study, "parameters", joint)
    mb = {name: 4 * cost.loc[name, "parameters"] / 2**20 for name in joint}
    lines = [
        f"**Compute**: least time per epoch {holder(study, 'seconds_per_epoch', joint)}; fewest MACs "
        f"{holder(study, 'macs', joint)}, {scope(most_runs(study))}.",
        f"**Memory**: lowest peak while training {holder(study, 'peak_memory_mb', joint)}.",
        f"**A small device**: fewest parameters {small}. As 32-bit numbers the weights take "
        + listed(f"{value:.1f} MiB ({escape(name)})" for name, value in mb.items())
        + ". No run was made on such a device: time there cannot be said from these runs.",
    ]
    return f"{table(cells, ('Solution', *readable.columns))}\n\n{bullets(*lines)}"


def summary(study) -> str:
    """What was found, in a few lines."""
    joint, n = compare.joint(study), most_runs(study)
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
        f"**Performance** of the joint solutions {scope(n)}: best mAP@0.5 {holder(study, 'map50', joint)}, "
        f"best balanced accuracy {holder(study, 'balanced_accuracy', joint)}."
        if joint
        else "**Performance**: no solution with both tasks.",
        f"**Against the specialists**: {gain(study)}",
        *[f"**Collapse**: {line}" for line in fallen],
        "" if fallen or not shared else f"**Collapse**: none in {listed(map(escape, shared))}.",
        f"**Cost**: fewest parameters {holder(study, 'parameters', joint)}, least time per epoch "
        f"{holder(study, 'seconds_per_epoch', joint)}."
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
        "**Other multi-task problems**: classes, views and the place where the tasks part are free; "
        "`11_two_digits` balances another network with other tasks. Left: data sets of other modalities.",
        "**Fusing both remedies**: `fusion` parts after P3 and balances with GradNorm. "
        + (fused or missing("fusion"))
        + " `conflict-branch` chooses the place from the probes, and `random-branch` is its control"
        + ("." if "conflict-branch" in compare.names(study) else "; neither is among these runs."),
    )
