"""Anchors: whether they fit the boxes of a data set, and better ones where they do not."""

from collections.abc import Sequence

import numpy as np
import torch

from gradlib.model.losses import MAX_RATIO
from gradlib.model.yolo import MultiTaskYOLO

MIN_RECALL = 0.98  # below it YOLOv5, too, looks for other anchors


def best_possible_recall(sizes: np.ndarray, anchors: np.ndarray) -> float:
    """The share of boxes that an anchor can be assigned to: an upper bound of recall.

    sizes [M, 2] and anchors [..., 2]: width and height in pixels.
    """
    ratio = sizes[:, None] / anchors.reshape(1, -1, 2)  # [M, anchors, 2]
    return float((np.maximum(ratio, 1 / ratio).max(-1) < MAX_RATIO).any(1).mean())


def fit_anchors(model: MultiTaskYOLO, frames: Sequence) -> tuple[float, float] | None:
    """Give `model` anchors that fit the boxes of `frames`, if its own leave out more than 2 % of them.

    frames: a `FrameSet`, or as much of one as its items' boxes [n, 5] (class, cx, cy, w, h in 0-1) and
    `size`, the side of the square in pixels. The new anchors are k-means centres of the logarithms of width
    and height, because anchors are assigned by ratios. Returns the best possible recall before and after;
    None for a network that does not detect.
    """
    if "detection" not in model.tasks:
        return None
    from sklearn.cluster import KMeans

    sizes = np.concatenate([frames[i][1].numpy()[:, 3:5] for i in range(len(frames))]) * frames.size
    sizes = sizes[(sizes > 0).all(1)]  # [M, 2] px
    own = model.anchors.cpu().numpy()  # [3, A, 2] px
    before = best_possible_recall(sizes, own) if len(sizes) else 1.0
    logs, count = np.log(sizes), own.shape[0] * own.shape[1]
    if before >= MIN_RECALL or len(np.unique(logs, axis=0)) < count:
        return before, before
    centres = np.exp(KMeans(count, n_init=10, random_state=0).fit(logs).cluster_centers_)
    fitted = centres[centres.prod(1).argsort()].reshape(own.shape)  # small ones for the fine level
    after = best_possible_recall(sizes, fitted)
    if after <= before:
        return before, before
    model.anchors.copy_(torch.from_numpy(fitted))
    return before, after
