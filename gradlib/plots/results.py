"""Figures of results on the test part: metrics, differences with intervals, precision and recall."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlib.plots.language import translate
from gradlib.plots.style import BLUE, RED, axes, colour, legend

__all__ = ["forest", "leaking", "metric_bars", "precision_recall", "trade_off"]


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
    spread = part.get(f"{metric} sd", part[metric] * 0).fillna(0)
    bars = ax.barh(part.index, part[metric], xerr=spread, color=[colour(name) for name in part.index])
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
        x, y, style = row["balanced_accuracy"], row["map50"], {"color": colour(name), "label": name}
        if np.isnan(x):
            ax.axhline(y, linestyle="--", linewidth=1, **style)
        elif np.isnan(y):
            ax.axvline(x, linestyle="--", linewidth=1, **style)
        else:
            bars = {"xerr": row["balanced_accuracy margin"], "yerr": row["map50 margin"]}
            bars = {axis: margin for axis, margin in bars.items() if np.isfinite(margin)}
            ax.errorbar(x, y, fmt="o", markersize=8, capsize=2, elinewidth=1, alpha=0.9, **bars, **style)
    # Intervals are symmetric and may leave 0-1; no score does.
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    ax.set(xlim=(max(left, -0.02), min(right, 1.02)), ylim=(max(bottom, -0.02), min(top, 1.02)))
    return legend(ax, beside=True)


def forest(estimates: Mapping, label: str, ax: Axes | None = None) -> Axes:
    """Differences (`evidence.intervals.Estimate` by solution) with their 95 % intervals, one row each.

    Right of the line at 0 is better; hollow where there is no verdict.
    """
    ax = axes(ax, label, label, translate("label.solution"), (6.4, 0.42 * len(estimates) + 1.3))
    shown = {name: one for name, one in reversed(estimates.items()) if np.isfinite(one.value)}
    for row, (name, one) in enumerate(shown.items()):
        bars = {"xerr": one.margin_of_error} if np.isfinite(one.margin_of_error) else {}
        face = colour(name) if one.verdict() in ("better", "worse") else "white"
        ax.errorbar(one.value, row, fmt="o", color=colour(name), mfc=face, capsize=3, **bars)
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_yticks(range(len(shown)), list(shown))
    ax.margins(y=0.15)
    return ax


def leaking(rows: pd.DataFrame, label: str, ax: Axes | None = None) -> Axes:
    """Scores on the published split and on unseen patients.

    rows: columns metric (a key), published, unseen, and their 95 % `published margin` and `unseen margin`.
    """
    ax = axes(ax, label, translate("label.metric"), translate("label.score"), (1.8 * len(rows) + 2.4, 3.4))
    at = np.arange(len(rows))
    for place, split, shade in ((-0.2, "published", RED), (0.2, "unseen", BLUE)):
        style = {"capsize": 3, "color": shade, "label": translate(f"label.{split}")}
        bars = ax.bar(at + place, rows[split], 0.38, yerr=rows[f"{split} margin"], **style)
        for bar in bars:  # at the foot, clear of the interval
            words = {"ha": "center", "va": "bottom", "color": "white", "fontsize": "small"}
            ax.text(bar.get_x() + bar.get_width() / 2, 0.02, f"{bar.get_height():.2f}", **words)
    ax.set_xticks(at, [translate(f"metric.{metric}") for metric in rows["metric"]])
    ax.set_ylim(0, 1)
    return legend(ax, beside=True)
