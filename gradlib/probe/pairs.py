"""Which classes of jets conflict with which views: gradients by class and by view of one batch."""

import torch
from torch import Tensor

from gradlib.model.losses import classification_loss, detection_loss
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.probe.stages import cosine


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
    raw, logits = outputs["detection"], outputs["classification"]
    anchors, view_weights = model.anchors, model.view_weights
    by_class, by_view = {}, {}  # (frames, gradient) of each
    for label in boxes[:, 1].long().unique().tolist():
        images = boxes[boxes[:, 1] == label, 0].long().unique()
        row, place = (boxes[:, None, 0] == images).nonzero().T  # a box, and its image's place in `images`
        chosen = torch.cat((place[:, None].to(boxes.dtype), boxes[row, 1:]), 1)  # [M', 6]
        loss, _ = detection_loss([level[images] for level in raw], anchors, chosen)
        by_class[label] = images, torch.autograd.grad(loss, [layer], retain_graph=True)
    for view in views[views >= 0].unique().tolist():
        images = (views == view).nonzero()[:, 0]
        loss = classification_loss(logits[images], views[images], view_weights)
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
