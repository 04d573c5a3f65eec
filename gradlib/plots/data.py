"""Figures of the data: counts of frames, boxes and patients."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlib.plots.style import BLUE, ORANGE, axes, cell_texts

__all__ = ["count_map", "leakage_bars", "patient_bars"]


def count_map(table: pd.DataFrame, title: str, ax: Axes | None = None) -> Axes:
    """A table of counts, each cell shaded by its share of the row; axes are labelled as the table's."""
    labels = table.columns.name or "", table.index.name or ""
    ax = axes(ax, title, *labels, (1.1 * table.shape[1] + 2, 0.6 * table.shape[0] + 1.2), grid=False)
    share = table.div(table.sum(axis=1).clip(lower=1), axis=0).to_numpy(float)
    ax.imshow(share, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    cell_texts(ax, table.to_numpy(), share >= 0.48)
    ax.set_xticks(range(table.shape[1]), table.columns)
    ax.set_yticks(range(table.shape[0]), table.index)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def patient_bars(frames: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Frames of each patient, most first, by class; `frames` has columns patient and classes."""
    table = pd.crosstab(frames["patient"], frames["classes"])
    table = table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    ax = axes(ax, "Frames of each patient", "patient, most frames first", "frames", (7.2, 3.2), grid=False)
    below, shades = np.zeros(len(table)), plt.get_cmap("Set2")
    for i, name in enumerate(table.columns.drop("none", errors="ignore")):
        ax.bar(range(1, len(table) + 1), table[name], bottom=below, color=shades(i % shades.N), label=name)
        below += table[name].to_numpy()
    if "none" in table:
        ax.bar(range(1, len(table) + 1), table["none"], bottom=below, color="0.8", label="none")
    ax.legend(title="jets", frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def leakage_bars(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How much of each published part (rows) shares its patient or its video with training."""
    labels = ("Frames that training has all but seen", "% of the part's frames", "published part")
    ax = axes(ax, *labels, (6.4, 2.6), grid=False)
    for offset, kind, shade in ((-0.2, "patient", BLUE), (0.2, "video", ORANGE)):
        label = f"the {kind} is also in the training part"
        places, shares = np.arange(len(table)) + offset, 100 * table[f"{kind}_share"]
        bars = ax.barh(places, shares, 0.36, color=shade, label=label)
        counts = zip(table[f"frames_{kind}_in_train"], table["frames"], strict=True)
        ax.bar_label(bars, [f"{count} of {frames}" for count, frames in counts], padding=4, fontsize="small")
    ax.set_yticks(range(len(table)), table.index)
    ax.set(xlim=(0, 118), xticks=range(0, 101, 20))
    ax.invert_yaxis()
    ax.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.25))
    return ax
