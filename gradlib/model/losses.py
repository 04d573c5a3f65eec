"""The loss of each task, as a scalar.

Letters: B images, M boxes of a batch, A anchors a cell, H, W feature map, K classes, V views.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from gradlib.model.boxes import complete_iou
from gradlib.model.yolo import STRIDES, MultiTaskYOLO

MAX_RATIO = 4.0  # an anchor takes a box whose width and height are within this factor of its own
BOX_GAIN = 0.05
OBJECTNESS_GAIN = 1.0  # at 640 px, where the anchors were fitted; proportional to the number of cells
CLASS_GAIN = 0.5  # for 80 classes; proportional to their number
OBJECTNESS_BALANCE = (4.0, 1.0, 0.4)  # P3, P4, P5: the finer level averages over more empty cells
# YOLOv5 multiplies its loss by the batch size. With a constant instead, the balance with another task is the
# same for every batch size; 16 is YOLOv5's default batch.
SCALE = 16.0


def assign(boxes: Tensor, anchors: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """The cells and anchors of one level that learn each box.

    boxes [M, 6]: image, class, cx, cy, w, h (0-1). anchors [A, 2] in cells. shape: (H, W).
    A box goes to every anchor within `MAX_RATIO` of its size, in the cell of its centre and in the two
    nearest neighbour cells, so that a box has up to three cells an anchor. A box without area goes nowhere.
    Returns, for the cell of the centre and its four neighbours: y [M, 5], x [M, 5], and whether an anchor
    there learns the box [M, A, 5]. All are of known size, so that the host need not wait for the device.
    """
    h, w = shape
    x, y = boxes[:, 2] * w, boxes[:, 3] * h  # [M] in cells
    sides = torch.stack((boxes[:, 4] * w, boxes[:, 5] * h), 1)
    ratio = sides[:, None] / anchors[None]  # [M, A, 2]
    fits = torch.maximum(ratio, 1 / ratio).amax(-1) < MAX_RATIO  # [M, A]
    left, up = ((place % 1 < 0.5) & (place > 1) for place in (x, y))
    right, down = ((p % 1 > 0.5) & (p < side - 1) for p, side in ((x, w), (y, h)))
    takes = torch.stack((torch.ones_like(left), left, up, right, down), 1)  # [M, 5]
    still = torch.zeros_like(x)
    x = x.floor()[:, None] + torch.stack((still, still - 1, still, still + 1, still), 1)
    y = y.floor()[:, None] + torch.stack((still, still, still - 1, still, still + 1), 1)
    return y.long().clamp(0, h - 1), x.long().clamp(0, w - 1), fits[:, :, None] & takes[:, None]


def detection_loss(raw: Sequence[Tensor], anchors: Tensor, boxes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """YOLOv5's loss: complete IoU of matched boxes, objectness of every cell, class of matched boxes.

    raw: one [B, A, H, W, 5 + K] a level. anchors [3, A, 2] in pixels. boxes [M, 6] in 0-1.
    Returns the weighted sum and its three weighted parts. Images without boxes teach objectness
    only.
    """
    raw = [level.float() for level in raw]  # IoU and BCE lose too much in half precision
    classes = raw[0].shape[-1] - 5
    image, label = boxes[:, 0].long(), boxes[:, 1].long()
    one_hot = (label[:, None] == torch.arange(classes, device=label.device)).to(raw[0].dtype)  # [M, K]
    box_part, objectness_part, class_part = (raw[0].new_zeros(()) for _ in range(3))
    for level, stride, anchor, balance in zip(raw, STRIDES, anchors, OBJECTNESS_BALANCE, strict=True):
        _, a, h, w, outputs = level.shape
        anchor = anchor.float() / stride  # cells
        y, x, learns = assign(boxes, anchor, (h, w))
        place = (image[:, None, None] * a + torch.arange(a, device=label.device)[:, None]) * h * w
        place = place + (y * w + x)[:, None]  # [M, A, 5] among all cells of the level
        predicted = level.reshape(-1, outputs)[place]  # [M, A, 5, 5 + K]
        centre = predicted[..., :2].sigmoid() * 2 - 0.5 + torch.stack((x, y), -1)[:, None]
        size = (predicted[..., 2:4].sigmoid() * 2).square() * anchor[:, None]
        target = torch.stack([boxes[:, 2 + i] * (w, h)[i % 2] for i in range(4)], 1)  # [M, 4] in cells
        iou = complete_iou(torch.cat((centre, size), -1), target[:, None, None])  # [M, A, 5]
        share = learns.to(level.dtype) / learns.sum().clamp(min=1)  # for a mean over what learns
        box_part = box_part + ((1 - iou) * share).sum()
        # Two boxes may claim one cell: the larger overlap counts.
        overlap = (iou.detach() * learns).clamp(min=0)
        objectness = level.new_zeros(level[..., 4].numel())
        objectness.scatter_reduce_(0, place.flatten(), overlap.flatten(), "amax")
        if classes > 1:
            named = one_hot[:, None, None].expand_as(predicted[..., 5:])
            each = binary_cross_entropy_with_logits(predicted[..., 5:], named, reduction="none").mean(-1)
            class_part = class_part + (each * share).sum()
        objectness_part = objectness_part + balance * binary_cross_entropy_with_logits(
            level[..., 4], objectness.view_as(level[..., 4])
        )
    cells = raw[0].shape[2] * raw[0].shape[3]
    parts = {
        "box": SCALE * BOX_GAIN * box_part,
        "objectness": SCALE * OBJECTNESS_GAIN * cells / 80**2 * objectness_part,  # 80 x 80 at 640 px
        "class": SCALE * CLASS_GAIN * classes / 80 * class_part,
    }
    return sum(parts.values()), parts


def classification_loss(logits: Tensor, views: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of logits [B, V] with view indices [B], over the images that have a view (>= 0): the mean
    weighted by `weights` [V]. 0, with a gradient of 0, if none has a view."""
    total = cross_entropy(logits.float(), views, weights, ignore_index=-1, reduction="sum")
    return total / (weights[views.clamp(min=0)] * (views >= 0)).sum().clamp(min=1e-9)


def view_weights(views: Sequence[int], count: int, balance: float) -> Tensor:
    """The weight [V] of each of `count` views: (frequency in `views` * count) ** -balance; -1 is no view.
    balance 0: all frames weigh the same; 1: all views weigh the same in sum."""
    known = torch.tensor(views)
    frames = torch.bincount(known[known >= 0], minlength=count)
    return (count * frames.clamp(min=1) / frames.sum().clamp(min=1)) ** -balance


def task_losses(
    outputs: Mapping[str, Sequence[Tensor] | Tensor], boxes: Tensor, views: Tensor, model: MultiTaskYOLO
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Raw outputs and targets (boxes [M, 6], views [B]) -> {task: scalar}, {part of detection: scalar}."""
    losses, parts = {}, {}
    for task, output in outputs.items():
        if task == "detection":
            losses[task], parts = detection_loss(output, model.anchors, boxes)
        else:
            losses[task] = classification_loss(output, views, model.view_weights)
    return losses, parts
