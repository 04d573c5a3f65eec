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


def assign(boxes: Tensor, anchors: Tensor, shape: tuple[int, int]) -> tuple[Tensor, ...]:
    """The cells and anchors of one level that learn each box.

    boxes [M, 6]: image, class, cx, cy, w, h (0-1). anchors [A, 2] in cells. shape: (H, W).
    A box goes to every anchor within `MAX_RATIO` of its size, in the cell of its centre and in the two
    nearest neighbour cells, so that a box has up to three cells an anchor.
    Returns, for the P assignments: rows of `boxes` [P], anchor [P], cell y [P], cell x [P].
    """
    h, w = shape
    scale = boxes.new_tensor((w, h))
    centre, size = boxes[:, 2:4] * scale, boxes[:, 4:6] * scale  # [M, 2] in cells
    ratio = size[:, None] / anchors[None]  # [M, A, 2]
    fits = torch.maximum(ratio, 1 / ratio).amax(-1) < MAX_RATIO  # [M, A]
    offset = centre - centre.floor()  # [M, 2] within its cell
    toward_low = (offset < 0.5) & (centre > 1)  # left, up
    toward_high = (offset > 0.5) & (centre < scale - 1)  # right, down
    shifts = boxes.new_tensor(((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))).long()  # [5, 2] x, y
    takes = torch.cat((torch.ones_like(toward_low[:, :1]), toward_low, toward_high), 1)  # [M, 5]
    row, anchor, shift = (fits[:, :, None] & takes[:, None]).nonzero(as_tuple=True)  # [P] each
    cell = centre[row].floor().long() + shifts[shift]
    return row, anchor, cell[:, 1].clamp(0, h - 1), cell[:, 0].clamp(0, w - 1)


def detection_loss(raw: Sequence[Tensor], anchors: Tensor, boxes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """YOLOv5's loss: complete IoU of matched boxes, objectness of every cell, class of matched boxes.

    raw: one [B, A, H, W, 5 + K] a level. anchors [3, A, 2] in pixels. boxes [M, 6] in 0-1.
    Returns the weighted sum and its three weighted parts. Images without boxes teach objectness
    only.
    """
    raw = [level.float() for level in raw]  # IoU and BCE lose too much in half precision
    classes = raw[0].shape[-1] - 5
    zero = raw[0].new_zeros(())
    box_part, objectness_part, class_part = zero, zero, zero
    for level, stride, anchor, balance in zip(raw, STRIDES, anchors, OBJECTNESS_BALANCE, strict=True):
        h, w = level.shape[2:4]
        anchor = anchor.float() / stride  # cells
        row, a, y, x = assign(boxes, anchor, (h, w))
        objectness = torch.zeros_like(level[..., 4])
        if len(row):
            image, label = boxes[row, 0].long(), boxes[row, 1].long()
            cell = torch.stack((x, y), 1)
            target = boxes[row, 2:6] * boxes.new_tensor((w, h, w, h))  # [P, 4] in cells
            predicted = level[image, a, y, x]  # [P, 5 + K]
            centre = predicted[:, :2].sigmoid() * 2 - 0.5 + cell
            size = (predicted[:, 2:4].sigmoid() * 2).square() * anchor[a]
            iou = complete_iou(torch.cat((centre, size), 1), target)  # [P]
            box_part = box_part + (1 - iou).mean()
            # Two boxes may claim one cell: the larger overlap counts, in whatever order they come.
            order = iou.detach().argsort()
            objectness[image[order], a[order], y[order], x[order]] = iou.detach()[order].clamp(min=0)
            if classes > 1:
                one_hot = torch.zeros_like(predicted[:, 5:])
                one_hot[torch.arange(len(label), device=label.device), label] = 1
                class_part = class_part + binary_cross_entropy_with_logits(predicted[:, 5:], one_hot)
        objectness_part = objectness_part + balance * binary_cross_entropy_with_logits(
            level[..., 4], objectness
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
    known = views >= 0
    if not known.any():
        return logits.sum() * 0
    return cross_entropy(logits[known].float(), views[known], weights)


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
