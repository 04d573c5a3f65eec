"""Boxes: formats, overlap and non-maximum suppression, as pure functions on tensors.

N, M boxes; B images; K candidates an image. Formats: `cxcywh` (centre, width, height) and `xyxy` (two
opposite corners), in any unit, the same for both arguments.
"""

import math

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """[..., 4] centre and size -> [..., 4] corners."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat((centre - size / 2, centre + size / 2), -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """[..., 4] corners -> [..., 4] centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), -1)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box of a [..., N, 4] with every box of b [..., M, 4], xyxy.

    Returns [..., N, M] in 0-1; two boxes without area overlap by 0.
    """
    # One axis after the other: a trailing dimension of two takes five times as long.
    (a_left, a_top, a_right, a_bottom), b_edges = a[..., :, None, :].unbind(-1), b[..., None, :, :].unbind(-1)
    b_left, b_top, b_right, b_bottom = b_edges
    width = (torch.minimum(a_right, b_right) - torch.maximum(a_left, b_left)).clamp(min=0)
    height = (torch.minimum(a_bottom, b_bottom) - torch.maximum(a_top, b_top)).clamp(min=0)
    intersection = width * height  # [..., N, M]
    area_a = (a[..., 2:] - a[..., :2]).prod(-1)[..., :, None]
    area_b = (b[..., 2:] - b[..., :2]).prod(-1)[..., None, :]
    return intersection / (area_a + area_b - intersection).clamp(min=1e-9)


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU of boxes a [..., 4] with b [..., 4], one by one, cxcywh -> [...], at most 1.

    Zheng et al. 2020 (Distance-IoU loss, AAAI), eq. 10:  CIoU = IoU - rho^2 / c^2 - a v, with rho the
    distance of the centres, c the diagonal of the smallest box around both, v = 4/pi^2
    (atan(w'/h') - atan(w/h))^2 and a = v / (1 - IoU + v), which passes no gradient.
    """
    tiny = 1e-7
    a_corners, b_corners = cxcywh_to_xyxy(a), cxcywh_to_xyxy(b)
    low = torch.maximum(a_corners[..., :2], b_corners[..., :2])
    high = torch.minimum(a_corners[..., 2:], b_corners[..., 2:])
    # Not `prod`: its derivative makes the host wait for whether a factor is 0.
    width, height = (high - low).clamp(min=0).unbind(-1)
    intersection = width * height
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - intersection + tiny
    iou = intersection / union
    outer_low = torch.minimum(a_corners[..., :2], b_corners[..., :2])
    outer_high = torch.maximum(a_corners[..., 2:], b_corners[..., 2:])
    diagonal = (outer_high - outer_low).square().sum(-1) + tiny
    distance = (a[..., :2] - b[..., :2]).square().sum(-1)
    angle = torch.atan(a[..., 2] / (a[..., 3] + tiny)) - torch.atan(b[..., 2] / (b[..., 3] + tiny))
    v = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        weight = v / (1 - iou + v + tiny)
    return iou - distance / diagonal - weight * v


def non_maximum_suppression(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Greedy non-maximum suppression of a whole batch at once.

    boxes [B, K, 4] xyxy and scores [B, K], both sorted by falling score within each image; a score
    of 0 marks padding. Returns a mask [B, K] of the boxes that stay.

    Greedy suppression is the one fixed point of "a box stays unless a better box that stays overlaps it by
    more than `iou`". The rule is applied until nothing changes, beginning with "all stay". A box no longer
    changes once no better one does, so the result is exactly the greedy one, after as many rounds as the
    longest chain of suppressions (a handful) instead of one round a box.
    """
    overlaps = pairwise_iou(boxes, boxes) > iou  # [B, K, K]
    suppresses = overlaps.triu(1)  # [B, K, K] row i suppresses column j only if i comes first
    suppresses &= (scores > 0)[:, :, None]
    keep = scores > 0
    while True:
        update = (scores > 0) & ~(suppresses & keep[:, :, None]).any(1)
        if torch.equal(update, keep):
            return keep
        keep = update
