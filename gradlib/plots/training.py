"""Figures of a training: losses, weights and learning rates by step or epoch."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradlib.config import TASKS, in_registry_order
from gradlib.evidence.tables import RUN, SCORES
from gradlib.plots.language import translate
from gradlib.plots.style import SHADES, axes, colour, legend, log_scale

SPREAD = 5  # highest loss to the median, above which a linear axis would flatten the rest


def pivot_runs(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Column `y` of a study's table by step or epoch (rows, `x`) and run (columns: solution, fold, seed).

    Runs without it are left out. Epochs count from 1.
    """
    values = table.reindex(columns=[*RUN, x, y]).dropna(subset=[y]).astype({y: float})
    runs = values.pivot_table(y, x, RUN)
    return runs.set_axis(runs.index + 1) if x == "epoch" else runs


def _draw(ax: Axes, runs: pd.DataFrame, smooth: float, line: str = "-", label: str = "{}") -> None:
    for name in in_registry_order(runs.columns.unique("solution")):
        own = runs[name].dropna()  # folds differ in length: as far as all runs go
        if smooth:
            own = own.rolling(max(1, round(len(own) * smooth)), min_periods=1).mean()
        marker = "o" if len(own) == 1 else None  # one point makes no line
        style = {"color": colour(name), "label": label.format(name), "marker": marker}
        ax.plot(own.index, own.mean(axis=1), line, **style)
        low, high = own.min(axis=1), own.max(axis=1)
        if (high > low).any():
            ax.fill_between(own.index, low, high, color=colour(name), alpha=0.15, linewidth=0)


def draw_runs(ax: Axes, table: pd.DataFrame, x: str, lines: Mapping[str, str], smooth: float = 0.0) -> Axes:
    """Draw columns of a study's table by `x`, each in its style of line, with a legend of the solutions.

    A line is the mean over a solution's runs, in a band from the lowest to the highest. smooth: each run's
    running mean over this part (0-1) of its rows.
    """
    for label, (y, line) in zip(("{}", "_{}"), lines.items(), strict=False):  # "_": not in the legend
        _draw(ax, pivot_runs(table, x, y), smooth, line, label)
    return legend(ax)


def curves(
    runs: pd.DataFrame, label: str, smooth: float = 0.0, log: bool = False, ax: Axes | None = None
) -> Axes:
    """A `pivot_runs` table, drawn as by `draw_runs`, on a logarithmic axis if `log`.

    Without a legend: `style.one_legend` makes one for several such axes.
    """
    ax = axes(ax, label, runs.index.name, "")
    _draw(ax, runs, smooth)
    if log:
        log_scale(ax)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return ax


def losses(epochs: pd.DataFrame, task: str | None = None, ax: Axes | None = None) -> Axes:
    """Loss by epoch, of a task or (None) the weighted sum: training solid, validation dashed.

    The axis is logarithmic where a loss is far above the others, as a validation loss of the first epoch may
    be.
    """
    end = f"_{task}" if task else ""
    title = f"Loss of {task}" if task else "Loss: the weighted sum"
    ax = axes(ax, title, "epoch", "loss (solid: training, dashed: validation)")
    draw_runs(ax, epochs, "epoch", {f"train_loss{end}": "-", f"valid_loss{end}": "--"})
    drawn = np.concatenate([line.get_ydata() for line in ax.get_lines()] or [[0.0]])
    if drawn.min() > 0 and drawn.max() > SPREAD * np.median(drawn):
        log_scale(ax)
    else:
        ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return ax


def weights(steps: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Loss weights by step: detection solid, classification dotted."""
    ax = axes(ax, "Loss weights", "step", "weight (solid: detection, dotted: classification)")
    return draw_runs(ax, steps, "step", {"weight_detection": "-", "weight_classification": ":"})


def learning_rates(steps: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Learning rates by step; solutions and parts with the same schedule share one line."""
    ax, same = axes(ax, "Learning rates", "step", "learning rate"), {}
    for part in ("shared", "detection", "classification"):
        runs = pivot_runs(steps, "step", f"lr_{part}")
        for name in in_registry_order(runs.columns.unique("solution")):
            rates = runs[name].dropna().mean(axis=1).round(9)
            same.setdefault((*rates.items(),), []).append((name, part))
    for i, (rates, users) in enumerate(same.items()):
        solutions, parts = (list(dict.fromkeys(column)) for column in zip(*users, strict=True))
        everyone = len(solutions) > 1 and len(solutions) == steps["solution"].nunique()
        who = "all solutions" if everyone else textwrap.fill(", ".join(solutions), 40)
        style = {"linestyle": ("-", "--", ":", "-.")[i % 4], "color": colour(solutions[0])}
        ax.plot(*zip(*rates, strict=True), label=f"{who} ({', '.join(parts)})", **style)
    return legend(ax)


def live(steps: pd.DataFrame, epochs: pd.DataFrame, tasks: Sequence[str], figure: Figure) -> None:
    """A training so far, on an empty figure: losses, weights, validation metrics."""
    left, middle, right = figure.subplots(1, 3)
    axes(left, "Training loss", "step", "loss (running mean)")
    axes(middle, "Loss weights", "step", "weight")
    axes(right, "Validation", "epoch", "score")
    for task, metric, shade in zip(TASKS, SCORES, SHADES, strict=False):
        if task in tasks:
            loss = steps[f"loss_{task}"].rolling(max(1, len(steps) // 20), min_periods=1).mean()
            left.plot(steps["step"], loss, color=shade, label=task)
            middle.plot(steps["step"], steps[f"weight_{task}"], color=shade, label=task)
            if len(epochs):
                style = {"markersize": 3, "color": shade, "label": translate(f"metric.{metric}", "en")}
                right.plot(epochs["epoch"] + 1, epochs[metric].astype(float), "o-", **style)
    right.set(xlim=(0.5, max(len(epochs), 2) + 0.5), ylim=(0, 1))
    right.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    for ax in (left, middle, right):
        legend(ax)
