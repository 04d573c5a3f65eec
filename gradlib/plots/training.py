"""Figures of training and of gradients: a DataFrame in, matplotlib Axes out. No training code, no torch."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradlib.config import BRANCHES, SOLUTIONS, TASKS
from gradlib.evidence.tables import PERFORMANCE, SCORES
from gradlib.plots.language import translate
from gradlib.plots.style import axes, colour, legend, log_scale

__all__ = [
    "by_run",
    "cosine_heatmap",
    "cosine_trend",
    "curves",
    "gradient_share",
    "learning_rates",
    "live",
    "losses",
    "pair_map",
    "replayed",
    "stage_bars",
    "weights",
]


# --- training ---

SPREAD = 5  # of losses: the highest to the median, above which a linear axis would flatten the rest


def by_run(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """A column of a study's table by its step or epoch (rows, `x`) and run (columns: solution, fold, seed);
    runs that lack it are left out. People count epochs from 1."""
    if y not in table:
        table = table.assign(**{y: np.nan})
    values = table.dropna(subset=[y]).astype({y: float})
    runs = values.pivot_table(index=x, columns=["solution", "fold", "seed"], values=y)
    return runs.set_axis(runs.index + 1) if x == "epoch" else runs


def _bands(runs: pd.DataFrame, smooth: float = 0.0):
    """For each solution of a `by_run` table: its name, where it has values, and their mean, lowest and
    highest over its runs.

    `smooth`: each run's running mean over this part of its rows.
    """
    found = set(runs.columns.get_level_values("solution"))
    for name in [*SOLUTIONS, *sorted(found - set(SOLUTIONS))]:
        if name not in found:
            continue
        own = runs[name].dropna()  # folds differ in length: as far as all runs go
        if smooth:
            own = own.rolling(max(1, round(len(own) * smooth)), min_periods=1).mean()
        yield name, own.index.to_numpy(), *(getattr(own, f)(axis=1) for f in ("mean", "min", "max"))


def _draw(ax: Axes, runs: pd.DataFrame, smooth=0.0, label="{}", **style) -> None:
    for name, at, mean, low, high in _bands(runs, smooth):
        marker = "o" if len(at) == 1 else None  # of one point there is no line
        ax.plot(at, mean, color=colour(name), label=label.format(name), marker=marker, **style)
        if (high > low).any():
            ax.fill_between(at, low, high, color=colour(name), alpha=0.15, linewidth=0)


def curves(
    runs: pd.DataFrame, label: str, smooth: float = 0.0, log: bool = False, ax: Axes | None = None
) -> Axes:
    """A column `by_run`: each solution's mean over its runs, in a band from the lowest to the highest.

    smooth: each run's running mean over this part (0-1) of its rows. log: a logarithmic axis. The legend is
    left to `figures.one_legend`, for there may be several such axes side by side.
    """
    ax = axes(ax, label, runs.index.name, "")
    _draw(ax, runs, smooth)
    if log:
        log_scale(ax)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return ax


def losses(epochs: pd.DataFrame, task: str | None = None, ax: Axes | None = None) -> Axes:
    """Loss by epoch, of a task or (None) the weighted sum: training solid, validation dashed.

    Several runs: their mean, and a band from the lowest to the highest. The axis is logarithmic where a loss
    is far above the others, as a validation loss of the first epoch may be.
    """
    end = f"_{task}" if task else ""
    title = f"Loss of {task}" if task else "Loss: the weighted sum"
    ax = axes(ax, title, "epoch", "loss (solid: training, dashed: validation)")
    _draw(ax, by_run(epochs, "epoch", f"train_loss{end}"))
    _draw(ax, by_run(epochs, "epoch", f"valid_loss{end}"), label="_{}", linestyle="--")
    drawn = np.concatenate([line.get_ydata() for line in ax.get_lines()] or [[0.0]])
    if drawn.min() > 0 and drawn.max() > SPREAD * np.median(drawn):
        log_scale(ax)
    else:
        ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return legend(ax)


def weights(steps: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Loss weights by step: detection solid, classification dotted."""
    ax = axes(ax, "Loss weights", "step", "weight (solid: detection, dotted: classification)")
    _draw(ax, by_run(steps, "step", "weight_detection"))
    _draw(ax, by_run(steps, "step", "weight_classification"), label="_{}", linestyle=":")
    return legend(ax)


def learning_rates(steps: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Learning rates by step; solutions and parts with the same schedule share one line."""
    ax = axes(ax, "Learning rates", "step", "learning rate")
    same: dict[tuple, list[str]] = {}
    for part in ("shared", "detection", "classification"):
        for name, at, mean, _, _ in _bands(by_run(steps, "step", f"lr_{part}")):
            same.setdefault((*at, *mean.round(9)), []).append((name, part))
    for i, (values, users) in enumerate(same.items()):
        solutions, parts = (list(dict.fromkeys(column)) for column in zip(*users, strict=True))
        half = len(values) // 2
        everyone = len(solutions) > 1 and len(solutions) == steps["solution"].nunique()
        who = "all solutions" if everyone else textwrap.fill(", ".join(solutions), 40)
        label = f"{who} ({', '.join(parts)})"
        style = ("-", "--", ":", "-.")[i % 4]
        ax.plot(values[:half], values[half:], style, color=colour(solutions[0]), label=label)
    return legend(ax)


def live(steps: pd.DataFrame, epochs: pd.DataFrame, tasks: Sequence[str], figure: Figure) -> None:
    """A training as far as it has come, on an empty figure: losses, weights, validation metrics."""
    left, middle, right = figure.subplots(1, 3)
    axes(left, "Training loss", "step", "loss (running mean)")
    axes(middle, "Loss weights", "step", "weight")
    axes(right, "Validation", "epoch", "score")
    shades = dict(zip(TASKS, sns.color_palette("colorblind"), strict=False))
    for task in tasks:
        loss = steps[f"loss_{task}"].rolling(max(1, len(steps) // 20), min_periods=1).mean()
        left.plot(steps["step"], loss, color=shades[task], label=task)
        middle.plot(steps["step"], steps[f"weight_{task}"], color=shades[task], label=task)
        if len(epochs):
            metric = dict(zip(TASKS, SCORES, strict=True))[task]
            scores, label = epochs[metric].astype(float), PERFORMANCE[metric].label
            right.plot(epochs["epoch"] + 1, scores, "o-", markersize=3, color=shades[task], label=label)
    right.set(xlim=(0.5, max(len(epochs), 2) + 0.5), ylim=(0, 1))
    right.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    for ax in (left, middle, right):
        legend(ax)


# --- gradients ---


def cosine_heatmap(probes: pd.DataFrame, solution: str, kind: str = "conv", ax: Axes | None = None) -> Axes:
    """Cosine of the two tasks' gradients, stage by step (mean over runs); below 0 is a conflict.

    The colours span the cosines of all solutions in `probes`, so that maps of one study compare.
    """
    of_kind = probes[probes["kind"] == kind]
    part = of_kind[of_kind["solution"] == solution]
    table = part.pivot_table(index="stage", columns="step", values="cosine")
    table = table.reindex([stage for stage in BRANCHES if stage in table.index]).astype(float)
    title = translate("label.cosine_map", solution=solution, kind=translate(f"label.{kind}"))
    ax = axes(ax, title, translate("label.step"), translate("label.stage"))
    ax.grid(False)
    if table.empty:
        return legend(ax)
    limit = max(0.1, float(of_kind["cosine"].astype(float).abs().quantile(0.99)))
    image = ax.imshow(table, aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit)
    at = np.arange(0, table.shape[1], max(1, -(-table.shape[1] // 7)))
    ax.set_xticks(at, table.columns[at])
    ax.set_yticks(range(len(table)), table.index)
    bar = ax.figure.colorbar(image, ax=ax, label=translate("label.cosine"))
    bar.ax.locator_params(nbins=5)
    return ax


def cosine_trend(probes: pd.DataFrame, kind: str = "conv", ax: Axes | None = None) -> Axes:
    """Cosine by step, mean over a solution's shared stages, running mean over a tenth of training."""
    label = "cosine, mean over stages (below 0: conflict)"
    ax = axes(ax, f"Gradient cosine over training ({kind})", "step", label)
    _draw(ax, by_run(probes[probes["kind"] == kind], "step", "cosine"), smooth=0.1)
    ax.axhline(0, color="0.4", linewidth=0.8)
    return legend(ax)


def stage_bars(probe: pd.DataFrame, title: str, widest: float = 1.0, ax: Axes | None = None) -> Axes:
    """The cosine by stage of one probe and one kind of parameter, rows of a study's probes: conflicts red, on
    an axis from -widest to widest."""
    ax = axes(ax, title, "cosine (below 0: conflict)", "shared stage")
    cosines = probe.set_index("stage")["cosine"].astype(float)
    cosines = cosines.reindex([stage for stage in BRANCHES if stage in cosines.index])
    low, high = (plt.get_cmap("RdBu")(share) for share in (0.15, 0.85))
    ax.barh(cosines.index, cosines, color=[low if cosine < 0 else high for cosine in cosines])
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_xlim(-widest, widest)
    ax.invert_yaxis()
    return ax


def pair_map(
    pairs: pd.DataFrame, solution: str, classes: Sequence[str], views: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Mean cosine between detection's gradient on frames with a class and classification's on frames of a
    view, at the last shared layer, with the share of probes below 0; rows classes, columns views."""
    part = pairs[pairs["solution"] == solution].dropna(subset=["cosine"])
    ax = axes(ax, f"Which jets fight with which views: {solution}", "view", "jet", size=(5.2, 3.6))
    ax.grid(False)
    if part.empty:
        return legend(ax)
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
    ax = axes(ax, translate("quantity.share_detection"), translate("label.step"), translate("label.share"))
    _draw(ax, by_run(steps, "step", "share_detection"), smooth=0.1)
    ax.axhline(0.5, color="0.4", linewidth=0.8)
    ax.set_ylim(-0.02, 1.02)
    return legend(ax)


def replayed(steps: pd.DataFrame, replay: pd.DataFrame, left: Axes, right: Axes) -> None:
    """A run's own weights and gradient share (grey) beside those of a `diagnostics.replay` of it."""
    axes(left, "Loss weights", "step", "weight (dotted: classification)")
    axes(right, "Weighted gradient share of detection", "step", "share (the rest: classification)")
    for table, shade, label in ((steps, "0.6", "the run"), (replay, colour("gradnorm"), "GradNorm as set")):
        left.plot(table["step"], table["weight_detection"], color=shade, label=label)
        left.plot(table["step"], table["weight_classification"], ":", color=shade)
        share = table["share_detection"].rolling(max(1, len(table) // 10), min_periods=1).mean()
        right.plot(table["step"], share, color=shade, label=label)
    left.set_ylim(0, 2.05)
    right.axhline(0.5, color="0.4", linewidth=0.8)
    right.set_ylim(-0.02, 1.02)
    legend(left)
    legend(right)
