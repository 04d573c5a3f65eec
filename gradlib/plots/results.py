"""Figures of results on the test part: metrics, differences with intervals, precision and recall."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlib.plots.language import translate
from gradlib.plots.style import SHADES, axes, colour, legend


def precision_recall(curves: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Precision over recall at IoU 0.5; `curves`: columns solution, recall, precision."""
    ax = axes(ax, "Precision and recall (IoU 0.5)", "recall", "precision", (6.8, 4.6))
    for name, part in curves.groupby("solution", sort=False):
        ax.plot(part["recall"], part["precision"], color=colour(name), label=name)
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    return legend(ax)


def metric_bars(core: pd.DataFrame, metric: str, label: str, ax: Axes | None = None) -> Axes:
    """One test metric of every solution that has it; several runs: mean and standard deviation."""
    ax = axes(ax, label, label, "solution", (6.4, 0.45 * len(core) + 1.2))
    part = core.dropna(subset=[metric])[::-1]
    shades = [colour(name) for name in part.index]
    bars = ax.barh(part.index, part[metric], xerr=part.get(f"{metric} sd"), color=shades)
    ax.bar_label(bars, fmt="{:.3f}", padding=4, fontsize="small")
    ax.margins(x=0.12)
    return ax


def trade_off(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Both tasks at once, mAP@0.5 over balanced accuracy; `table`: as `evidence.tables.trade_off` has it.

    Points with 95 % intervals, the Pareto front as a line between them; specialists are lines across.
    """
    labels = (translate(key) for key in ("label.trade_off", "label.balanced_accuracy", "metric.map50"))
    ax = axes(ax, *labels, (7.0, 4.4))
    front = table[table["front"]].sort_values("balanced_accuracy")
    style = {"color": "0.6", "linewidth": 1, "zorder": 0, "label": translate("label.front")}
    ax.plot(front["balanced_accuracy"], front["map50"], **style)
    for name, row in table.iterrows():
        (x, dx), (y, dy) = (row[[score, f"{score} margin"]] for score in ("balanced_accuracy", "map50"))
        style = {"color": colour(name), "label": name}
        if np.isnan(x):
            ax.axhline(y, linestyle="--", linewidth=1, **style)
        elif np.isnan(y):
            ax.axvline(x, linestyle="--", linewidth=1, **style)
        else:  # a margin that is not known is not drawn
            ax.errorbar(x, y, dy, dx, fmt="o", markersize=8, capsize=2, elinewidth=1, alpha=0.9, **style)
    # Intervals are symmetric and may leave 0-1; no score does.
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    ax.set(xlim=(max(left, -0.02), min(right, 1.02)), ylim=(max(bottom, -0.02), min(top, 1.02)))
    return legend(ax, beside=True)


def forest(estimates: Mapping, label: str, ax: Axes | None = None) -> Axes:
    """Differences (`evidence.intervals.Estimate` by solution) with their 95 % intervals, one row each.

    Right of the line at 0 is better; within the grey band, the margin, it counts as none. Hollow where there
    is no verdict.
    """
    ax = axes(ax, label, label, translate("label.solution"), (6.4, 0.42 * len(estimates) + 1.3))
    shown = {name: one for name, one in reversed(estimates.items()) if np.isfinite(one.value)}
    for row, (name, one) in enumerate(shown.items()):
        face = colour(name) if one.decided else "white"
        style = {"fmt": "o", "color": colour(name), "mfc": face, "capsize": 3}
        ax.errorbar(one.value, row, xerr=one.margin_of_error, **style)
    for margin in {one.margin for one in shown.values() if one.margin > 0}:
        ax.axvspan(-margin, margin, color="0.9", zorder=0)
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_yticks(range(len(shown)), list(shown))
    ax.margins(y=0.15)
    return ax


def leaking(rows: pd.DataFrame, label: str, ax: Axes | None = None) -> Axes:
    """Scores on the published split and on unseen patients.

    rows: columns metric (a key), published, unseen, and their 95 % `published margin` and `unseen margin`.
    """
    ax = axes(ax, label, translate("label.metric"), translate("label.score"), (1.8 * len(rows) + 2.4, 3.4))
    splits = {split: translate(f"label.{split}") for split in ("published", "unseen")}
    margins = rows[[f"{split} margin" for split in splits]].set_axis(splits.values(), axis=1)
    style = {"color": [SHADES[3], SHADES[0]], "width": 0.78, "capsize": 3, "rot": 0, "legend": False}
    rows[[*splits]].rename(columns=splits).plot.bar(ax=ax, yerr=margins, **style)
    for bar in ax.patches:  # at the foot, clear of the interval
        words = {"ha": "center", "va": "bottom", "color": "white", "fontsize": "small"}
        ax.text(bar.get_x() + bar.get_width() / 2, 0.02, f"{bar.get_height():.2f}", **words)
    ax.set_xticks(range(len(rows)), [translate(f"metric.{metric}") for metric in rows["metric"]])
    ax.set_ylim(0, 1)
    return legend(ax, beside=True)
