"""Figures of results on the test part: a DataFrame in, matplotlib Axes out. No torch."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from gradlib.plots.language import translate
from gradlib.plots.style import axes, colour, legend

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
    ax = axes(ax, label, label, "", (6.4, 0.45 * len(core) + 1.2))
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
    """Both tasks at once, mAP@0.5 over balanced accuracy, as `tables.trade_off` has them: points with 95 %
    intervals, the Pareto front as a line between them; specialists are lines across."""
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
            bars = {axis: half for axis, half in bars.items() if np.isfinite(half)}
            ax.errorbar(x, y, fmt="o", markersize=8, capsize=2, elinewidth=1, alpha=0.9, **bars, **style)
    # Intervals are symmetric and may leave 0-1; no score does.
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    ax.set(xlim=(max(left, -0.02), min(right, 1.02)), ylim=(max(bottom, -0.02), min(top, 1.02)))
    return legend(ax, beside=True)


def forest(estimates: Mapping, label: str, ax: Axes | None = None) -> Axes:
    """Differences with their 95 % intervals, one row a solution: `estimates` by name, as `intervals` gives
    them. Right of the line at 0 is better; hollow where there is no verdict."""
    ax = axes(ax, label, label, translate("label.solution"), (6.4, 0.42 * len(estimates) + 1.3))
    shown = {name: one for name, one in reversed(estimates.items()) if np.isfinite(one.value)}
    for row, (name, one) in enumerate(shown.items()):
        told = one.verdict() in ("better", "worse")
        bars = {"xerr": one.margin_of_error} if np.isfinite(one.margin_of_error) else {}
        face = colour(name) if told else "white"
        ax.errorbar(one.value, row, fmt="o", color=colour(name), mfc=face, capsize=3, **bars)
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_yticks(range(len(shown)), list(shown))
    ax.margins(y=0.15)
    return ax


def leaking(rows: pd.DataFrame, label: str, ax: Axes | None = None) -> Axes:
    """The same recipe on the published split and on unseen patients; `rows`: columns metric (a
    key), published and unseen, and half of their 95 % intervals, as `analysis.leaks` has them."""
    ax = axes(ax, label, translate("label.metric"), translate("label.score"), (1.8 * len(rows) + 2.4, 3.4))
    at, shades = np.arange(len(rows)), sns.color_palette("colorblind")
    published, unseen = (
        ax.bar(
            at + place, rows[split], 0.38, yerr=rows[f"{split} margin"], capsize=3, color=shade, label=label
        )
        for place, split, shade, label in (
            (-0.2, "published", shades[3], translate("label.published")),
            (0.2, "unseen", shades[0], translate("label.unseen")),
        )
    )
    for bars in (published, unseen):
        for bar in bars:  # at the foot, clear of the interval
            text = f"{bar.get_height():.2f}"
            at_foot = (bar.get_x() + bar.get_width() / 2, 0.02)
            ax.text(*at_foot, text, ha="center", va="bottom", color="white", fontsize="small")
    ax.set_xticks(at, [translate(f"metric.{metric}") for metric in rows["metric"]])
    ax.set_ylim(0, 1)
    return legend(ax, beside=True)
