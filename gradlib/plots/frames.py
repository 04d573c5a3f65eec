"""Figures of frames with their boxes: images in, matplotlib Axes out."""

from collections.abc import Sequence
from itertools import zip_longest

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection

# On frames of grey, red and blue. Told apart by lightness and line as well as by hue.
TRUE, FOUND, WRONG = "white", "#F0E442", "#FF8C42"
TEXT_BOX = {"facecolor": "black", "alpha": 0.5, "linewidth": 0, "pad": 1.0}
#: Images [H, W, 3]; of an image, rows of class, cx, cy, w, h (of detections: class, confidence, ...) in 0-1.
Images, Boxes, Names = Sequence[np.ndarray], Sequence[Sequence], Sequence[str]


def frame(
    image: np.ndarray,
    truths: Boxes,
    classes: Names,
    title: str,
    ax: Axes,
    predictions: Boxes = (),
    wrong: Sequence[bool] = (),
    missed: Sequence[bool] = (),
) -> Axes:
    """An image with its true boxes (white, solid) and detections (yellow, dashed).

    wrong: the false positives among predictions (orange, dotted). missed: the truths without a detection (a
    thick line).
    """
    height, width = image.shape[:2]
    ax.imshow(image)
    ax.set_title(title, fontsize="small")
    ax.set(xticks=[], yticks=[])

    def draw(label: int, box: Sequence[float], text: str, above: bool, shade: str, style: str, line: float):
        cx, cy, w, h = np.multiply(box, (width, height, width, height))
        left, top = cx - w / 2, cy - h / 2
        ax.add_patch(plt.Rectangle((left, top), w, h, fill=False, ec=shade, ls=style, lw=line))
        # The truth's name above its box, the prediction's below: the boxes overlap.
        at, va = (top, "bottom") if above else (top + h, "top")
        words = {"va": va, "fontsize": "small", "clip_on": True, "bbox": TEXT_BOX}
        ax.text(left, at, classes[int(label)] + text, color=shade, **words)

    for (label, *box), is_missed in zip_longest(truths, missed):
        draw(label, box, "", True, TRUE, "-", 3.2 if is_missed else 1.6)
    for (label, confidence, *box), is_wrong in zip_longest(predictions, wrong):
        look = (WRONG, ":") if is_wrong else (FOUND, "--")
        draw(label, box, f" {confidence:.2f}", False, *look, 2.0)
    return ax


def detections(
    images: Images, truths, classes: Names, titles: Names, predictions=None, columns: int = 3
) -> np.ndarray:
    """A grid of images as `frame` draws them, without `predictions` the true boxes alone; its axes [rows,
    columns]. truths, predictions: `Boxes` of each image."""
    rows = -(-len(images) // columns)
    size = (2.9 * columns, 2.4 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat[len(images) :]:
        ax.set_axis_off()
    for i, (ax, image) in enumerate(zip(axes.flat, images, strict=False)):
        frame(image, truths[i], classes, titles[i], ax, predictions[i] if predictions else ())
    what = "True boxes (white, solid)" + (" and detections (yellow, dashed)" if predictions else "")
    figure.suptitle(what, fontsize="medium")
    return axes


def batch(images: Images, truths, classes: Names, titles: Names, ax: Axes, columns: int = 8) -> Axes:
    """Small square images [S, S, 3], uint8, side by side, each with its true boxes and, in its corner, their
    classes and its title."""
    side, gap = images[0].shape[0], 2
    rows = -(-len(images) // columns)
    # One picture and one collection; separate axes and patches take ten times as long.
    sheet = np.full((rows * (side + gap) - gap, columns * (side + gap) - gap, 3), 255, np.uint8)
    boxes = []
    for i, image in enumerate(images):
        top, left = i // columns * (side + gap), i % columns * (side + gap)
        sheet[top : top + side, left : left + side] = image
        for _, cx, cy, w, h in truths[i]:
            corner = (left + (cx - w / 2) * side, top + (cy - h / 2) * side)
            boxes.append(plt.Rectangle(corner, w * side, h * side))
        names = dict.fromkeys(classes[int(box[0])] for box in truths[i])
        text = " ".join([*names, titles[i]])
        ax.text(left + 2, top + side - 2, text, color=FOUND, va="bottom", fontsize=6, clip_on=True)
    ax.imshow(sheet)
    ax.add_collection(PatchCollection(boxes, facecolor="none", edgecolor=TRUE, linewidth=1))
    ax.set_axis_off()
    return ax
