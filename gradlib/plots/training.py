"""Figures of a training: losses, weights and learning rates by step or epoch."""

import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradlib.config import SOLUTIONS, TASKS
from gradlib.evidence.tables import PERFORMANCE, SCORES
from gradlib.plots.style import SHADES, axes, colour, legend, log_scale

__all__ = ["curves", "draw_runs", "learning_rates", "live", "losses", "pivot_runs", "weights"]

SPREAD = 5  # highest loss to the median, above which a linear axis would flatten the rest


def pivot_runs(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Column `y` of a study's table by step or epoch (rows, `x`) and run (columns: solution, fold, seed).

    Runs without it are left out. Epochs count from 1.
    """
    if y not in table:
        table = table.assign(**{y: np.nan})
    values = table.dropna(subset=[y]).astype({y: float})
    runs = values.pivot_table(index=x, columns=["solution", "fold", "seed"], values=y)
    return runs.set_axis(runs.index + 1) if x == "epoch" else runs


def _bands(runs: pd.DataFrame, smooth: float = 0.0) -> Iterator[tuple]:
    """By solution of a `pivot_runs` table: its name, its rows, and mean, lowest and highest over its runs.

    smooth: each run's running mean over this part (0-1) of its rows.
    """
    found = set(runs.columns.get_level_values("solution"))
    for name in [*SOLUTIONS, *sorted(found - set(SOLUTIONS))]:
        if name not in found:
            continue
        own = runs[name].dropna()  # folds differ in length: as far as all runs go
        if smooth:
            own = own.rolling(max(1, round(len(own) * smooth)), min_periods=1).mean()
        yield name, own.index.to_numpy(), *(getattr(own, f)(axis=1) for f in ("mean", "min", "max"))


def draw_runs(ax: Axes, runs: pd.DataFrame, smooth: float = 0.0, label: str = "{}", **style) -> None:
    """Draw a `pivot_runs` table: each solution's mean, in a band from the lowest to the highest run.

    smooth: each run's running mean over this part (0-1) of its rows. label: "_{}" keeps it out of the legend.
    """
    for name, at, mean, low, high in _bands(runs, smooth):
        marker = "o" if len(at) == 1 else None  # one point makes no line
        ax.plot(at, mean, color=colour(name), label=label.format(name), marker=marker, **style)
        if (high > low).any():
            ax.fill_between(at, low, high, color=colour(name), alpha=0.15, linewidth=0)


def curves(
    runs: pd.DataFrame, label: str, smooth: float = 0.0, log: bool = False, ax: Axes | None = None
) -> Axes:
    """A `pivot_runs` table as `draw_runs` draws it, on a logarithmic axis if `log`.

    Without a legend: `style.one_legend` makes one for several such axes.
    """
    ax = axes(ax, label, runs.index.name, "")
    draw_runs(ax, runs, smooth)
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
    draw_runs(ax, pivot_runs(epochs, "epoch", f"train_loss{end}"))
    draw_runs(ax, pivot_runs(epochs, "epoch", f"valid_loss{end}"), label="_{}", linestyle="--")
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
    draw_runs(ax, pivot_runs(steps, "step", "weight_detection"))
    draw_runs(ax, pivot_runs(steps, "step", "weight_classification"), label="_{}", linestyle=":")
    return legend(ax)


def learning_rates(steps: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Learning rates by step; solutions and parts with the same schedule share one line."""
    ax = axes(ax, "Learning rates", "step", "learning rate")
    same: dict[tuple, list[str]] = {}
    for part in ("shared", "detection", "classification"):
        for name, at, mean, _, _ in _bands(pivot_runs(steps, "step", f"lr_{part}")):
            same.setdefault((*at, *mean.round(9)), []).append((name, part))
    for i, (values, users) in enumerate(same.items()):
        solutions, parts = (list(dict.fromkeys(column)) for column in zip(*users, strict=True))
        half = len(values) // 2
        everyone = len(solutions) > 1 and len(solutions) == steps["solution"].nunique()
        who = "all solutions" if everyone else textwrap.fill(", ".join(solutions), 40)
        style = {"linestyle": ("-", "--", ":", "-.")[i % 4], "color": colour(solutions[0])}
        ax.plot(values[:half], values[half:], label=f"{who} ({', '.join(parts)})", **style)
    return legend(ax)


def live(steps: pd.DataFrame, epochs: pd.DataFrame, tasks: Sequence[str], figure: Figure) -> None:
    """A training so far, on an empty figure: losses, weights, validation metrics."""
    left, middle, right = figure.subplots(1, 3)
    axes(left, "Training loss", "step", "loss (running mean)")
    axes(middle, "Loss weights", "step", "weight")
    axes(right, "Validation", "epoch", "score")
    shades = dict(zip(TASKS, SHADES, strict=False))
    for task in tasks:
        loss = steps[f"loss_{task}"].rolling(max(1, len(steps) // 20), min_periods=1).mean()
        left.plot(steps["step"], loss, color=shades[task], label=task)
        middle.plot(steps["step"], steps[f"weight_{task}"], color=shades[task], label=task)
        if len(epochs):
            metric = dict(zip(TASKS, SCORES, strict=True))[task]
            style = {"markersize": 3, "color": shades[task], "label": PERFORMANCE[metric].label}
            right.plot(epochs["epoch"] + 1, epochs[metric].astype(float), "o-", **style)
    right.set(xlim=(0.5, max(len(epochs), 2) + 0.5), ylim=(0, 1))
    right.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    for ax in (left, middle, right):
        legend(ax)
