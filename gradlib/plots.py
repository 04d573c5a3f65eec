"""Figures: a DataFrame in, matplotlib Axes out. No training code, no torch."""

import io
import textwrap
import zlib
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradlib.config import BRANCHES, SOLUTIONS, TASKS

__all__ = [
    "colour",
    "cosine_heatmap",
    "cosine_trend",
    "count_map",
    "curves",
    "forest",
    "gradient_share",
    "leakage_bars",
    "leaking",
    "learning_rates",
    "live",
    "losses",
    "metric_bars",
    "pair_map",
    "patient_bars",
    "png",
    "precision_recall",
    "replayed",
    "stage_bars",
    "trade_off",
    "weights",
]


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


# --- data ---


def count_map(table: pd.DataFrame, title: str, ax: Axes | None = None) -> Axes:
    """A table of counts, each cell shaded by its share of the row; axes named as the table's."""
    size = (1.1 * table.shape[1] + 2, 0.6 * table.shape[0] + 1.2)
    ax = ax if ax is not None else plt.subplots(figsize=size, layout="constrained")[1]
    share = table.div(table.sum(axis=1).clip(lower=1), axis=0)
    sns.heatmap(share, annot=table, fmt="d", vmin=0, vmax=1, cmap="Blues", cbar=False, ax=ax)
    ax.set(title=title, xlabel=table.columns.name or "", ylabel=table.index.name or "")
    ax.tick_params(length=0, labelrotation=0)
    return ax


def patient_bars(frames: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Frames of each patient, most first, by class; `frames` has columns patient and classes."""
    table = pd.crosstab(frames["patient"], frames["classes"])
    table = table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    ax = ax if ax is not None else plt.subplots(figsize=(7.2, 3.2), layout="constrained")[1]
    below = np.zeros(len(table))
    shades = iter(sns.color_palette("Set2", table.shape[1]))
    for name in table:
        shade = "0.8" if name == "none" else next(shades)
        ax.bar(range(1, len(table) + 1), table[name], bottom=below, color=shade, label=name)
        below += table[name].to_numpy()
    ax.set(title="Frames of each patient", xlabel="patient, most frames first", ylabel="frames")
    ax.legend(title="jets", frameon=False, fontsize="small")
    sns.despine(ax=ax)
    return ax


def leakage_bars(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How much of each published part (rows) shares its patient or its video with training."""
    ax = ax if ax is not None else plt.subplots(figsize=(6.4, 2.6), layout="constrained")[1]
    shades = sns.color_palette("colorblind")
    for offset, kind, shade in ((-0.2, "patient", shades[0]), (0.2, "video", shades[1])):
        label = f"the {kind} is also in the training part"
        places, shares = np.arange(len(table)) + offset, 100 * table[f"{kind}_share"]
        bars = ax.barh(places, shares, 0.36, color=shade, label=label)
        counts = zip(table[f"frames_{kind}_in_train"], table["frames"], strict=True)
        texts = [f"{count} of {frames}" for count, frames in counts]
        ax.bar_label(bars, texts, padding=4, fontsize="small")
    ax.set_yticks(range(len(table)), table.index)
    ax.set(title="Frames that training has all but seen", xlabel="% of the part's frames")
    ax.set(xlim=(0, 118), xticks=range(0, 101, 20), ylabel="published part")
    ax.invert_yaxis()
    ax.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.25))
    sns.despine(ax=ax)
    return ax


# --- training ---


# With any kind of colour vision, lines in the first ten are told apart, and larger marks in all twenty; each
# stands out from white. The tests measure it.
PALETTE = (
    *("#1e4696", "#be461e", "#148c64", "#8c0afa", "#461414", "#0096fa", "#d28200", "#0a1e50", "#8c9696"),
    *("#8c140a", "#e454cc", "#0c009c", "#f04878", "#00483c", "#78546c", "#6c3060", "#9c789c", "#60609c"),
    *("#0c6c54", "#3c5430"),
)


def colour(name: str) -> tuple[float, float, float]:
    """The colour of a solution, the same in every figure: by its place in the registry.

    Other solutions get one of the second ten by a checksum of their name (`hash` differs from process to
    process), so none looks like one of the first.
    """
    known = list(SOLUTIONS)
    place = known.index(name) if name in known else 10 + zlib.crc32(name.encode()) % 10
    return to_rgb(PALETTE[place % len(PALETTE)])


def _axes(ax: Axes | None, title: str, x: str, y: str, size=(6.4, 4.0)) -> Axes:
    """`ax`, or axes of a new figure, with its title and labels."""
    ax = ax if ax is not None else plt.subplots(figsize=size, layout="constrained")[1]
    ax.set(title=title, xlabel=x, ylabel=y)
    sns.despine(ax=ax)
    ax.grid(alpha=0.25, linewidth=0.6)
    return ax


def _curves(frame: pd.DataFrame, x: str, y: str, smooth: float = 0.0):
    """For each solution: its name, `x`, and mean, lowest and highest `y` over its runs.

    `smooth`: each run's running mean over this part of its rows. Solutions without `y` are left out.
    """
    if y not in frame:
        return
    values = frame.dropna(subset=[y]).astype({y: float})
    wide = values.pivot_table(index=x, columns=["solution", "fold", "seed"], values=y)
    found = set(wide.columns.get_level_values("solution"))
    for name in [*SOLUTIONS, *sorted(found - set(SOLUTIONS))]:
        if name not in found:
            continue
        runs = wide[name].dropna(axis=1, how="all").dropna()  # folds differ in length: as far as all runs go
        if smooth:
            runs = runs.rolling(max(1, round(len(runs) * smooth)), min_periods=1).mean()
        yield name, runs.index.to_numpy(), *(getattr(runs, f)(axis=1) for f in ("mean", "min", "max"))


def _draw(ax: Axes, frame: pd.DataFrame, x: str, y: str, smooth=0.0, label="{}", **style) -> None:
    for name, at, mean, low, high in _curves(frame, x, y, smooth):
        ax.plot(at, mean, color=colour(name), label=label.format(name), **style)
        if (high > low).any():
            ax.fill_between(at, low, high, color=colour(name), alpha=0.15, linewidth=0)


def _legend(ax: Axes, **options) -> Axes:
    if ax.get_legend_handles_labels()[1]:
        ax.legend(**{"frameon": False, "fontsize": "small", **options})
    else:
        ax.text(0.5, 0.5, "nothing to show", transform=ax.transAxes, ha="center", color="0.4")
    return ax


def curves(
    table: pd.DataFrame,
    x: str,
    y: str,
    label: str,
    smooth: float = 0.0,
    log: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """A column of a study's table over its step or epoch (`x`): each solution's mean over its runs, in a band
    from the lowest to the highest.

    smooth: each run's running mean over this part (0-1) of its rows. log: a logarithmic axis.
    """
    ax = _axes(ax, label, x, label)
    _draw(ax, table, x, y, smooth)
    if log:
        ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _legend(ax)


def losses(epochs: pd.DataFrame, task: str | None = None, ax: Axes | None = None) -> Axes:
    """Loss by epoch, of a task or (None) the weighted sum: training solid, validation dashed.

    Several runs: their mean, and a band from the lowest to the highest.
    """
    end = f"_{task}" if task else ""
    title = f"Loss of {task}" if task else "Loss: the weighted sum"
    ax = _axes(ax, title, "epoch", "loss (solid: training, dashed: validation)")
    _draw(ax, epochs, "epoch", f"train_loss{end}")
    _draw(ax, epochs, "epoch", f"valid_loss{end}", label="_{}", linestyle="--")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _legend(ax)


def weights(steps: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Loss weights by step: detection solid, classification dotted."""
    ax = _axes(ax, "Loss weights", "step", "weight (solid: detection, dotted: classification)")
    _draw(ax, steps, "step", "weight_detection")
    _draw(ax, steps, "step", "weight_classification", label="_{}", linestyle=":")
    return _legend(ax)


def learning_rates(steps: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Learning rates by step; solutions and parts with the same schedule share one line."""
    ax = _axes(ax, "Learning rates", "step", "learning rate")
    same: dict[tuple, list[str]] = {}
    for part in ("shared", "detection", "classification"):
        for name, at, mean, _, _ in _curves(steps, "step", f"lr_{part}"):
            same.setdefault((*at, *mean.round(9)), []).append((name, part))
    for i, (values, users) in enumerate(same.items()):
        solutions, parts = (list(dict.fromkeys(column)) for column in zip(*users, strict=True))
        half = len(values) // 2
        everyone = len(solutions) > 1 and len(solutions) == steps["solution"].nunique()
        who = "all solutions" if everyone else textwrap.fill(", ".join(solutions), 40)
        label = f"{who} ({', '.join(parts)})"
        style = ("-", "--", ":", "-.")[i % 4]
        ax.plot(values[:half], values[half:], style, color=colour(solutions[0]), label=label)
    return _legend(ax)


# --- gradients ---


def cosine_heatmap(probes: pd.DataFrame, solution: str, kind: str = "conv", ax: Axes | None = None) -> Axes:
    """Cosine of the two tasks' gradients, stage by step (mean over runs); below 0 is a conflict.

    The colours span the cosines of all solutions in `probes`, so that maps of one study compare.
    """
    of_kind = probes[probes["kind"] == kind]
    part = of_kind[of_kind["solution"] == solution]
    table = part.pivot_table(index="stage", columns="step", values="cosine")
    table = table.reindex([stage for stage in BRANCHES if stage in table.index]).astype(float)
    ax = _axes(ax, f"Gradient cosine by stage: {solution}, {kind}", "step", "shared stage")
    ax.grid(False)
    if table.empty:
        return _legend(ax)
    limit = max(0.1, float(of_kind["cosine"].astype(float).abs().quantile(0.99)))
    image = ax.imshow(table, aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit)
    at = np.unique(np.linspace(0, table.shape[1] - 1, 7).round().astype(int))
    ax.set_xticks(at, table.columns[at])
    ax.set_yticks(range(len(table)), table.index)
    ax.figure.colorbar(image, ax=ax, label="cosine (below 0: conflict)")
    return ax


def cosine_trend(probes: pd.DataFrame, kind: str = "conv", ax: Axes | None = None) -> Axes:
    """Cosine by step, mean over a solution's shared stages, running mean over a tenth of training."""
    ax = _axes(ax, f"Gradient cosine over training ({kind})", "step", "cosine, mean over stages")
    _draw(ax, probes[probes["kind"] == kind], "step", "cosine", smooth=0.1)
    ax.axhline(0, color="0.4", linewidth=0.8)
    ax.text(0.99, 0, "below: conflict", transform=ax.get_yaxis_transform(), ha="right", va="top",
            fontsize="small", color="0.4")  # fmt: skip
    return _legend(ax)


def stage_bars(probe: pd.DataFrame, title: str, ax: Axes | None = None) -> Axes:
    """The cosine by stage of one probe and one kind of parameter, rows of a study's probes: conflicts red."""
    ax = _axes(ax, title, "cosine (below 0: conflict)", "shared stage")
    cosines = probe.set_index("stage")["cosine"].astype(float)
    cosines = cosines.reindex([stage for stage in BRANCHES if stage in cosines.index])
    low, high = (plt.get_cmap("RdBu")(share) for share in (0.15, 0.85))
    ax.barh(cosines.index, cosines, color=[low if cosine < 0 else high for cosine in cosines])
    ax.axvline(0, color="0.4", linewidth=0.8)
    limit = max(0.1, 1.1 * float(cosines.abs().max())) if len(cosines) else 1
    ax.set_xlim(-limit, limit)
    ax.invert_yaxis()
    return ax


def pair_map(
    pairs: pd.DataFrame, solution: str, classes: Sequence[str], views: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Mean cosine between detection's gradient on frames with a class and classification's on frames of a
    view, at the last shared layer, with the share of probes below 0; rows classes, columns views."""
    part = pairs[pairs["solution"] == solution].dropna(subset=["cosine"])
    ax = _axes(ax, f"Which jets fight with which views: {solution}", "view", "jet", size=(5.2, 3.6))
    ax.grid(False)
    if part.empty:
        return _legend(ax)
    mean, conflict = (
        part.assign(conflict=part["cosine"] < 0)
        .pivot_table(index="class", columns="view", values=value, aggfunc="mean")
        .reindex(index=range(len(classes)), columns=range(len(views)))
        .astype(float)
        for value in ("cosine", "conflict")
    )
    limit = max(0.1, float(mean.abs().max(axis=None)))
    image = ax.imshow(mean, aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit)
    for (row, column), value in np.ndenumerate(mean):
        if np.isfinite(value):
            text = f"{value:+.2f}\n{conflict.iloc[row, column]:.0%} below 0"
            shade = "white" if abs(value) > 0.6 * limit else "0.15"
            ax.text(column, row, text, ha="center", va="center", fontsize="small", color=shade)
    ax.set_xticks(range(len(views)), views)
    ax.set_yticks(range(len(classes)), classes)
    ax.figure.colorbar(image, ax=ax, label="mean cosine (below 0: conflict)")
    return ax


def gradient_share(steps: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Detection's part of the weighted gradient at the last shared layer, running mean, by step."""
    ax = _axes(ax, "Weighted gradient share of detection", "step", "share (the rest: classification)")
    _draw(ax, steps, "step", "share_detection", smooth=0.1)
    ax.axhline(0.5, color="0.4", linewidth=0.8)
    ax.set_ylim(-0.02, 1.02)
    return _legend(ax)


def replayed(steps: pd.DataFrame, replay: pd.DataFrame, left: Axes, right: Axes) -> None:
    """A run's own weights and gradient share (grey) beside those of a `diagnostics.replay` of it."""
    _axes(left, "Loss weights", "step", "weight (solid: detection, dotted: classification)")
    _axes(right, "Weighted gradient share of detection", "step", "share (the rest: classification)")
    for table, shade, label in ((steps, "0.6", "the run"), (replay, colour("gradnorm"), "GradNorm as set")):
        left.plot(table["step"], table["weight_detection"], color=shade, label=label)
        left.plot(table["step"], table["weight_classification"], ":", color=shade)
        share = table["share_detection"].rolling(max(1, len(table) // 10), min_periods=1).mean()
        right.plot(table["step"], share, color=shade, label=label)
    left.set_ylim(0, 2.05)
    right.axhline(0.5, color="0.4", linewidth=0.8)
    right.set_ylim(-0.02, 1.02)
    _legend(left)
    _legend(right)


def live(steps: pd.DataFrame, epochs: pd.DataFrame, tasks: Sequence[str], figure: Figure) -> None:
    """A training as far as it has come, on an empty figure: losses, weights, validation metrics."""
    left, middle, right = figure.subplots(1, 3)
    _axes(left, "Training loss", "step", "loss (running mean)")
    _axes(middle, "Loss weights", "step", "weight")
    _axes(right, "Validation", "epoch", "score")
    shades = dict(zip(TASKS, sns.color_palette("colorblind"), strict=False))
    for task in tasks:
        loss = steps[f"loss_{task}"].rolling(max(1, len(steps) // 20), min_periods=1).mean()
        left.plot(steps["step"], loss, color=shades[task], label=task)
        middle.plot(steps["step"], steps[f"weight_{task}"], color=shades[task], label=task)
        if len(epochs):
            metric = {"detection": "map50", "classification": "balanced_accuracy"}[task]
            label = {"detection": "mAP@0.5", "classification": "balanced accuracy"}[task]
            scores = epochs[metric].astype(float)
            right.plot(epochs["epoch"] + 1, scores, "o-", markersize=3, color=shades[task], label=label)
    right.set_ylim(0, 1)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in (left, middle, right):
        _legend(ax)


# --- results ---


def precision_recall(curves: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Precision over recall at IoU 0.5; `curves`: columns solution, recall, precision."""
    ax = _axes(ax, "Precision and recall (IoU 0.5)", "recall", "precision", (5.2, 4.6))
    for name, part in curves.groupby("solution", sort=False):
        ax.plot(part["recall"], part["precision"], color=colour(name), label=name)
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    return _legend(ax)


def metric_bars(core: pd.DataFrame, metric: str, label: str, ax: Axes | None = None) -> Axes:
    """One test metric of every solution that has it; several runs: mean and standard deviation."""
    ax = _axes(ax, label, label, "", (6.4, 0.45 * len(core) + 1.2))
    part = core.dropna(subset=[metric])[::-1]
    spread = part.get(f"{metric} sd")
    ax.barh(part.index, part[metric], xerr=spread, color=[colour(name) for name in part.index])
    ends = part[metric] + (0 if spread is None else spread.fillna(0))
    for row, (value, end) in enumerate(zip(part[metric], ends, strict=True)):
        ax.annotate(
            f"{value:.3f}", (end, row), (4, 0), textcoords="offset points", va="center", fontsize="small"
        )
    ax.margins(x=0.12)
    ax.set_ylabel("solution")
    return ax


def trade_off(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Both tasks at once, mAP@0.5 over balanced accuracy, as `intervals.trade_off` has them: points with 95 %
    intervals, the Pareto front as a line between them; specialists are lines across."""
    ax = _axes(ax, "Both tasks at once", "balanced accuracy of the view", "mAP@0.5", (7.0, 4.4))
    front = table[table["front"]].sort_values("balanced_accuracy")
    ax.plot(
        front["balanced_accuracy"], front["map50"], color="0.6", linewidth=1, zorder=0, label="Pareto front"
    )
    for name, row in table.iterrows():
        x, y, style = row["balanced_accuracy"], row["map50"], {"color": colour(name), "label": name}
        if np.isnan(x):
            ax.axhline(y, linestyle="--", linewidth=1, **style)
        elif np.isnan(y):
            ax.axvline(x, linestyle="--", linewidth=1, **style)
        else:
            bars = {"xerr": row["balanced_accuracy half"], "yerr": row["map50 half"]}
            bars = {axis: half for axis, half in bars.items() if np.isfinite(half)}
            ax.errorbar(x, y, fmt="o", markersize=8, capsize=2, elinewidth=1, alpha=0.9, **bars, **style)
    return _legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5))


def forest(estimates: Mapping, label: str, ax: Axes | None = None) -> Axes:
    """Differences with their 95 % intervals, one row a solution: `estimates` by name, as `intervals` gives
    them. Right of the line at 0 is better; hollow where there is no verdict."""
    ax = _axes(ax, label, label, "solution", (6.4, 0.42 * len(estimates) + 1.3))
    shown = {name: one for name, one in reversed(estimates.items()) if np.isfinite(one.value)}
    for row, (name, one) in enumerate(shown.items()):
        told = one.verdict() in ("better", "worse")
        bars = {"xerr": one.half} if np.isfinite(one.half) else {}
        face = colour(name) if told else "white"
        ax.errorbar(one.value, row, fmt="o", color=colour(name), mfc=face, capsize=3, **bars)
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_yticks(range(len(shown)), list(shown))
    ax.margins(y=0.15)
    return ax


def leaking(rows: pd.DataFrame, label: str, ax: Axes | None = None) -> Axes:
    """The same recipe on the published split and on unseen patients; `rows`: columns metric, published
    and unseen, and half of their 95 % intervals, as `analysis.leaks` has them."""
    ax = _axes(ax, label, "test metric", "score", (1.8 * len(rows) + 2.4, 3.4))
    at, shades = np.arange(len(rows)), sns.color_palette("colorblind")
    published, unseen = (
        ax.bar(at + place, rows[split], 0.38, yerr=rows[f"{split} half"], capsize=3, color=shade, label=label)
        for place, split, shade, label in (
            (-0.2, "published", shades[3], "published split (leaks)"),
            (0.2, "unseen", shades[0], "unseen patients"),
        )
    )
    for bars in (published, unseen):
        for bar in bars:  # at the foot, clear of the interval
            text = f"{bar.get_height():.2f}"
            at_foot = (bar.get_x() + bar.get_width() / 2, 0.02)
            ax.text(*at_foot, text, ha="center", va="bottom", color="white", fontsize="small")
    ax.set_xticks(at, rows["metric"])
    ax.set_ylim(0, 1)
    return _legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5))
