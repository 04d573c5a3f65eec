"""Figures: a DataFrame in, matplotlib Axes out. No training code, no torch."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["count_map", "frame_grid", "leakage_bars", "patient_bars"]

# --- data ---


def frame_grid(
    images: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    titles: Sequence[str],
    classes: Sequence[str],
    columns: int = 5,
) -> Figure:
    """Images [H, W, 3] with their boxes (rows of class, cx, cy, w, h in 0-1) and class names."""
    rows = -(-len(images) // columns)
    size = (2.3 * columns, 2.55 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, own, title in zip(axes.flat, images, boxes, titles, strict=False):
        height, width = image.shape[:2]
        ax.imshow(image)
        ax.set_title(title, fontsize="small")
        for index, cx, cy, w, h in np.asarray(own, float):
            left, top = (cx - w / 2) * width, (cy - h / 2) * height
            corner, box = (left, top), (w * width, h * height)
            ax.add_patch(plt.Rectangle(corner, *box, fill=False, ec="white", lw=1.4))
            ax.text(
                left, top - 2, classes[int(index)], color="white", fontsize="small", va="bottom"
            )
    return figure


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
    for name, shade in zip(table, sns.color_palette("Set2", table.shape[1]), strict=True):
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
        places = np.arange(len(table)) + offset
        label = f"the {kind} is also in the training part"
        ax.barh(places, 100 * table[f"{kind}_share"], 0.36, color=shade, label=label)
        for place, count, of in zip(
            places, table[f"frames_{kind}_in_train"], table["frames"], strict=True
        ):
            ax.annotate(f"{count} of {of}", (0, place), (4, 0), textcoords="offset points",
                        va="center", color="white", fontsize="small")  # fmt: skip
    ax.set_yticks(range(len(table)), table.index)
    ax.set(title="Frames that training has all but seen", xlabel="% of the part's frames")
    ax.set(xlim=(0, 100), ylabel="published part")
    ax.invert_yaxis()
    ax.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.25))
    sns.despine(ax=ax)
    return ax
