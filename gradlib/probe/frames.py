"""The losses of some of a batch's frames, from the outputs of all."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradlib.model.losses import task_losses
from gradlib.model.yolo import MultiTaskYOLO


def frames_of(
    outputs: Mapping[str, Sequence[Tensor] | Tensor], boxes: Tensor, views: Tensor, chosen: Tensor
) -> tuple[dict, Tensor, Tensor]:
    """Raw outputs, boxes [M, 6] and views [B] of the frames with the indices `chosen` [C] alone, which
    count from 0."""
    row, place = (boxes[:, None, 0] == chosen).nonzero().T  # a box, and its frame's place in `chosen`
    own = {
        task: output[chosen] if isinstance(output, Tensor) else [level[chosen] for level in output]
        for task, output in outputs.items()
    }
    return own, torch.cat((place[:, None].to(boxes.dtype), boxes[row, 1:]), 1), views[chosen]


def half_losses(
    outputs: Mapping[str, Sequence[Tensor] | Tensor], boxes: Tensor, views: Tensor, model: MultiTaskYOLO
) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """`task_losses` of the first and of the second half of a batch's frames, which come in random order; an
    odd one is left out."""
    size = len(views) // 2
    chosen = torch.arange(2 * size, device=views.device).split(size)
    return [task_losses(*frames_of(outputs, boxes, views, half), model) for half in chosen]
