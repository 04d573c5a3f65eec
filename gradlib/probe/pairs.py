"""Which jets fight with which views: the tasks' gradients class by class, in one batch."""

import torch
from torch import Tensor

from gradlib.balance.gradients import cosine
from gradlib.model.losses import classification_loss, detection_loss
from gradlib.model.yolo import MultiTaskYOLO

__all__ = ["conflict_by_pair"]


def conflict_by_pair(
    model: MultiTaskYOLO,
    outputs: dict[str, list[Tensor] | Tensor],
    boxes: Tensor,
    views: Tensor,
    layer: Tensor,
) -> list[dict]:
    """The cosine, at the shared parameter `layer`, between detection's gradient on the batch's frames that
    hold a class and classification's on its frames of a view.

    outputs: of the whole batch, their graph is kept. boxes [M, 6], views [B]. One row a pair of what the
    batch has: class and view (indices), cosine, and how many frames either gradient is of, and both.
    Costs a way back through one head for each class and view.
    """
    raw, logits = outputs["detection"], outputs["classification"]
    anchors = model.paths["detection"]["head"]["24"].anchors
    weights = model.paths["classification"]["head"].loss_weights
    of_class, of_view = {}, {}  # frames and gradient of each
    for label in boxes[:, 1].long().unique().tolist():
        images = boxes[boxes[:, 1] == label, 0].long().unique()
        own = (boxes[:, None, 0] == images).nonzero()  # [M', 2] box, place of its image among these
        part = torch.cat((own[:, 1:].to(boxes.dtype), boxes[own[:, 0], 1:]), 1)
        loss, _ = detection_loss([level[images] for level in raw], anchors, part)
        of_class[label] = images, _gradient(loss, layer)
    for view in views[views >= 0].unique().tolist():
        images = (views == view).nonzero()[:, 0]
        loss = classification_loss(logits[images], views[images], weights)
        of_view[view] = images, _gradient(loss, layer)
    return [
        {
            "class": label,
            "view": view,
            "cosine": cosine(gradient, other),
            "frames_class": len(holding),
            "frames_view": len(showing),
            "frames_both": int(torch.isin(holding, showing).sum()),
        }
        for label, (holding, gradient) in of_class.items()
        for view, (showing, other) in of_view.items()
    ]


def _gradient(loss: Tensor, layer: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [layer], retain_graph=True))
