"""Which classes of jets conflict with which views: gradients by class and by view of one batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradlib.balance.gradients import norm
from gradlib.model.losses import classification_loss, detection_loss
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.probe.frames import frames_of


def cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Cosine of the angle between two gradients, each a list of tensors; nan if one of them is zero."""
    dot = sum(torch.sum(x * y) for x, y in zip(a, b, strict=True))
    return float(dot / (norm(a) * norm(b)))


def conflict_by_pair(
    model: MultiTaskYOLO,
    outputs: dict[str, list[Tensor] | Tensor],
    boxes: Tensor,
    views: Tensor,
    layer: Tensor,
) -> list[dict]:
    """The cosine, at the shared parameter `layer`, between detection's gradient on the batch's frames with a
    class and classification's on its frames of a view.

    outputs: of the whole batch; their graph is kept. boxes [M, 6], views [B]. One row a pair in the batch:
    class and view (indices), cosine, the number of frames with the class, of the view, and of both. Costs a
    backward pass through one head for each class and view.
    """
    by_class, by_view = {}, {}  # (frames, gradient) of each
    boxes = boxes[boxes[:, 4] > 0]  # those that augmentation left in the image
    for label in boxes[:, 1].long().unique().tolist():
        images = boxes[boxes[:, 1] == label, 0].long().unique()
        own, chosen, _ = frames_of(outputs, boxes, views, images)
        loss, _ = detection_loss(own["detection"], model.anchors, chosen)
        by_class[label] = images, torch.autograd.grad(loss, [layer], retain_graph=True)
    for view in views[views >= 0].unique().tolist():
        images = (views == view).nonzero()[:, 0]
        loss = classification_loss(outputs["classification"][images], views[images], model.view_weights)
        by_view[view] = images, torch.autograd.grad(loss, [layer], retain_graph=True)
    return [
        {
            "class": label,
            "view": view,
            "cosine": cosine(gradient, other),
            "frames_class": len(with_class),
            "frames_view": len(of_view),
            "frames_both": int(torch.isin(with_class, of_view).sum()),
        }
        for label, (with_class, gradient) in by_class.items()
        for view, (of_view, other) in by_view.items()
    ]
