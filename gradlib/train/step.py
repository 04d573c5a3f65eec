"""One training step: the balancer's backward pass, and the rows that it gives."""

import torch
from lightning_fabric import Fabric
from torch import Tensor

from gradlib.balance.balancer import Balancer
from gradlib.config import MEASURE_AT
from gradlib.model.losses import task_losses
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.probe.frames import half_losses
from gradlib.probe.probe import Probe


def train_step(
    model: MultiTaskYOLO,
    images: Tensor,
    boxes: Tensor,
    views: Tensor,
    balancer: Balancer,
    fabric: Fabric,
    probe: Probe | None = None,
    measure_at: str = MEASURE_AT,
) -> dict[str, float]:
    """Forward, and backward into the parameters' `.grad`; then the balancer's weights learn.

    images [B, 3, S, S] in 0-1, boxes [M, 6], views [B]. probe: gets this batch. measure_at: where the norms
    of the tasks' gradients are measured, see `Solution`. Returns the row of the step.
    FloatingPointError, before any backward pass, for a loss that is not finite.
    """
    tasks = model.tasks
    with fabric.autocast():
        # Views, because the maps of later stages are computed from those of earlier ones.
        features = tuple(feature.view_as(feature) for feature in model.forward_shared(images))
        outputs = {task: model.forward_task(task, features) for task in tasks}
    losses, parts = task_losses(outputs, boxes, views, model)
    for task, loss in losses.items():
        if not loss.isfinite():
            raise FloatingPointError(f"the {task} loss is {float(loss.detach())}")
    shared, layer = features, []
    if model.shared and measure_at == "shared":
        shared = list(model.shared_parameters())
    elif model.shared and measure_at != "cut":
        layer = [model.shared_weight(measure_at)]
    halves = probe.add(outputs, boxes, views) if probe else []
    if balancer.needs_halves:
        halves = halves or half_losses(outputs, boxes, views, model)
    options = {"halves": [list(own.values()) for own, _ in halves]} if balancer.needs_halves else {}
    measured = balancer.backward(list(losses.values()), shared, layer, **options)
    values, weights = measured.losses.tolist(), measured.weights.tolist()
    row = {"loss": sum(weight * value for weight, value in zip(weights, values, strict=True))}
    row |= {f"loss_{task}": value for task, value in zip(tasks, values, strict=True)}
    row |= {f"loss_{part}": float(value.detach()) for part, value in parts.items()}
    row |= {f"weight_{task}": weight for task, weight in zip(tasks, weights, strict=True)}
    if measured.norms is not None:
        row |= {f"norm_{task}": norm for task, norm in zip(tasks, measured.norms.tolist(), strict=True)}
        weighted = measured.weights * measured.norms  # [T]
        row["share_detection"] = float((weighted / weighted.sum())[tasks.index("detection")])
    return row


@torch.no_grad()
def losses_of(model: MultiTaskYOLO, images: Tensor, boxes: Tensor, views: Tensor, fabric: Fabric) -> Tensor:
    """The losses [T] of a batch in the network's present state, on the CPU, without gradients."""
    with fabric.autocast():
        outputs = model(images)
    return torch.stack(list(task_losses(outputs, boxes, views, model)[0].values())).cpu()
