"""Figures of the data: counts of frames, boxes and patients."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from gradlib.plots.style import SHADES, axes, legend


def count_map(table: pd.DataFrame, title: str, ax: Axes | None = None) -> Axes:
    """A table of counts, each cell shaded by its share of the row; axes are labelled as the table's."""
    ax = axes(ax, title, "", "", (1.1 * table.shape[1] + 2, 0.6 * table.shape[0] + 1.2), grid=False)
    if table.empty:
        return legend(ax)
    share = table.div(table.sum(axis=1).clip(lower=1), axis=0)
    sns.heatmap(share, vmin=0, vmax=1, cmap="Blues", annot=table, fmt="", cbar=False, ax=ax)
    ax.tick_params(length=0, rotation=0)
    return ax


def patient_bars(frames: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Frames of each patient, most first, by class; `frames` has columns patient and classes."""
    ax = axes(ax, "Frames of each patient", "patient, most frames first", "frames", (7.2, 3.2), grid=False)
    ranks = frames["patient"].value_counts().rank(ascending=False, method="first")
    names = sorted({*frames["classes"]}, key=lambda name: (name == "none", name))
    shades = dict(zip(names, sns.color_palette("Set2", len(names)), strict=True))
    if "none" in shades:
        shades["none"] = (0.8, 0.8, 0.8)
    shown = {"x": frames["patient"].map(ranks), "hue": frames["classes"].rename("jets"), "palette": shades}
    bars = {"multiple": "stack", "discrete": True, "shrink": 0.8, "alpha": 1, "linewidth": 0}
    sns.histplot(**shown, hue_order=names, **bars, ax=ax)
    sns.move_legend(ax, "center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    return ax


def leakage_bars(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How much of each published part (rows) shares its patient or its video with training."""
    labels = ("Frames that training has all but seen", "% of the part's frames", "published part")
    ax = axes(ax, *labels, (6.4, 2.6), grid=False)
    if table.empty:
        return legend(ax)
    shares = 100 * table[["patient_share", "video_share"]]
    shares.columns = [f"the {kind} is also in the training part" for kind in ("patient", "video")]
    shares.plot.barh(ax=ax, color=SHADES, width=0.75, legend=False, xlabel=labels[1], ylabel=labels[2])
    for bars, kind in zip(ax.containers, ("patient", "video"), strict=True):
        counts = table[f"frames_{kind}_in_train"].astype(str) + " of " + table["frames"].astype(str)
        ax.bar_label(bars, counts, padding=4, fontsize="small")
    ax.set(xlim=(0, 118), xticks=range(0, 101, 20))
    ax.invert_yaxis()
    ax.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.25))
    return ax
