"""One training step: the balancer's backward pass, and the rows that it gives."""

import math

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

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
    max_norm: float = math.inf,
) -> dict[str, float]:
    """Forward, and backward into the parameters' `.grad`, clipped to `max_norm`; the balancer learns.

    images [B, 3, S, S] in 0-1, boxes [M, 6], views [B]. probe: gets this batch. measure_at: where the norms
    of the tasks' gradients are measured, see `Solution`. Returns the row of the step, for
    which the host waits once. FloatingPointError for a loss or a gradient that is not finite.
    """
    tasks = model.tasks
    with fabric.autocast():
        # Views, because the maps of later stages are computed from those of earlier ones.
        features = tuple(feature.view_as(feature) for feature in model.forward_shared(images))
        outputs = {task: model.forward_task(task, features) for task in tasks}
    losses, parts = task_losses(outputs, boxes, views, model)
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
    named = dict(zip(tasks, measured.losses, strict=True)) | parts
    found = {f"loss_{name}": loss for name, loss in named.items()}
    if measured.norms is not None:
        found |= {f"norm_{task}": norm for task, norm in zip(tasks, measured.norms, strict=True)}
    found["norm"] = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    values = torch.stack([value.detach().float() for value in found.values()]).tolist()
    row = dict(zip(found, values, strict=True))
    must_be_finite = {f"loss_{task}": f"the {task} loss" for task in tasks} | {"norm": "the gradient's norm"}
    for name, what in must_be_finite.items():
        if not math.isfinite(row[name]):
            raise FloatingPointError(f"{what} is {row[name]}")
    del row["norm"]
    weights = dict(zip(tasks, measured.weights.tolist(), strict=True))
    row |= {f"weight_{task}": weight for task, weight in weights.items()}
    row["loss"] = sum(weight * row[f"loss_{task}"] for task, weight in weights.items())
    if measured.norms is not None:
        weighted = {task: weight * row[f"norm_{task}"] for task, weight in weights.items()}
        row["share_detection"] = weighted["detection"] / (sum(weighted.values()) or math.nan)
    return row


@torch.no_grad()
def losses_of(model: MultiTaskYOLO, images: Tensor, boxes: Tensor, views: Tensor, fabric: Fabric) -> Tensor:
    """The losses [T] of a batch in the network's present state, on the CPU, without gradients."""
    with fabric.autocast():
        outputs = model(images)
    return torch.stack(list(task_losses(outputs, boxes, views, model)[0].values())).cpu()
