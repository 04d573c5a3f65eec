"""Figures of the data: counts of frames, boxes and patients."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from gradlib.plots.style import SHADES, axes


def count_map(table: pd.DataFrame, title: str, ax: Axes | None = None) -> Axes:
    """A table of counts, each cell shaded by its share of the row; axes are labelled as the table's."""
    ax = axes(ax, title, "", "", (1.1 * table.shape[1] + 2, 0.6 * table.shape[0] + 1.2), grid=False)
    share = table.div(table.sum(axis=1).clip(lower=1), axis=0)
    sns.heatmap(share, vmin=0, vmax=1, cmap="Blues", annot=table, fmt="", cbar=False, ax=ax)
    ax.tick_params(length=0, rotation=0)
    return ax


def patient_bars(frames: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Frames of each patient, most first, by class; `frames` has columns patient and classes."""
    ax = axes(ax, "Frames of each patient", "patient, most frames first", "frames", (7.2, 3.2), grid=False)
    table = pd.crosstab(frames["patient"], frames["classes"])
    table = table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    names = table.columns.drop("none", errors="ignore")
    shades = dict(zip(names, sns.color_palette("Set2", len(names)), strict=True))
    shades |= {"none": "0.8"} if "none" in table else {}
    counts = table[[*shades]]
    tops = counts.cumsum(axis=1)
    for name in tops:
        bars = {"bottom": tops[name] - counts[name], "color": shades[name], "label": name}
        ax.bar(range(1, len(counts) + 1), counts[name], **bars)
    ax.legend(title="jets", frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def leakage_bars(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How much of each published part (rows) shares its patient or its video with training."""
    labels = ("Frames that training has all but seen", "% of the part's frames", "published part")
    ax = axes(ax, *labels, (6.4, 2.6), grid=False)
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
