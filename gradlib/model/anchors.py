"""Anchors: whether they fit the boxes of a data set, and others where they do not."""

import numpy as np
import torch
from sklearn.cluster import KMeans

from gradlib.data.images import FrameSet
from gradlib.model.losses import MAX_RATIO
from gradlib.model.yolo import MultiTaskYOLO

__all__ = ["best_possible_recall", "fit"]

WELL = 0.98  # share of boxes below which YOLOv5, too, looks for other anchors


def best_possible_recall(sizes: np.ndarray, anchors: np.ndarray) -> float:
    """The share of boxes that any anchor takes: the recall that no training can pass.

    sizes [M, 2] and anchors [..., 2]: width and height in pixels.
    """
    ratio = sizes[:, None] / anchors.reshape(1, -1, 2)
    return float((np.maximum(ratio, 1 / ratio).max(-1) < MAX_RATIO).any(1).mean())


def fit(model: MultiTaskYOLO, frames: FrameSet) -> tuple[float, float] | None:
    """Give `model` anchors that fit the boxes of `frames`, if its own leave out more than 2 % of them.

    The new ones are k-means centres of the logarithms of width and height, for what decides whether an
    anchor takes a box is their ratio. Returns the best possible recall before and after; None where there
    is nothing to detect.
    """
    if "detection" not in model.tasks:
        return None
    sizes = np.concatenate([frames[i][1].numpy()[:, 3:5] for i in range(len(frames))]) * frames.size
    sizes = sizes[(sizes > 0).all(1)]
    buffer = model.paths["detection"]["head"]["24"].anchors  # [3, A, 2]
    own = buffer.cpu().numpy()
    before = best_possible_recall(sizes, own) if len(sizes) else 1.0
    logs = np.log(sizes)
    wanted = own.shape[0] * own.shape[1]
    if before >= WELL or len(np.unique(logs, axis=0)) < wanted:
        return before, before
    centres = np.exp(KMeans(wanted, n_init=10, random_state=0).fit(logs).cluster_centers_)
    found = centres[centres.prod(1).argsort()].reshape(own.shape)  # small ones to the fine level
    after = best_possible_recall(sizes, found)
    if after <= before:
        return before, before
    buffer.copy_(torch.from_numpy(found))
    return before, after
