"""The training step, and evaluation.

The step is the balancer's: every task back to the cut, weights from the gradients at the last shared layer,
the shared part back once.
"""

from collections.abc import Mapping, Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from gradlib.balance.gradients import conflict_by_stage, weighted_shares
from gradlib.balance.gradnorm import Balancer
from gradlib.config import Training
from gradlib.data.images import FrameSet, collate, unletterbox_boxes
from gradlib.model.boxes import cxcywh_to_xyxy, non_maximum_suppression
from gradlib.model.losses import classification_loss, detection_loss
from gradlib.model.yolo import MultiTaskYOLO, decode
from gradlib.probe.pairs import conflict_by_pair
from gradlib.train.devices import fabric_for, prepare
from gradlib.train.metrics import classification_metrics, detection_metrics

__all__ = ["evaluate", "losses_of", "predict", "task_losses", "train_step"]

LOWEST_CONFIDENCE = 0.001  # below it a detection adds nothing to average precision
CANDIDATES = 300  # a class and a cell each, before suppression
DETECTIONS = 100  # after suppression: COCO's limit
SUPPRESSION_IOU = 0.6


def task_losses(
    outputs: Mapping[str, list[Tensor] | Tensor], boxes: Tensor, views: Tensor, model: MultiTaskYOLO
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Raw outputs and targets (boxes [M, 6], views [B]) -> {task: scalar}, {part of detection: scalar}."""
    losses, parts = {}, {}
    for task, output in outputs.items():
        if task == "detection":
            anchors = model.paths["detection"]["head"]["24"].anchors
            losses[task], parts = detection_loss(output, anchors, boxes)
        else:
            weights = model.paths["classification"]["head"].loss_weights
            losses[task] = classification_loss(output, views, weights)
    return losses, parts


def train_step(
    model: MultiTaskYOLO,
    images: Tensor,
    boxes: Tensor,
    views: Tensor,
    balancer: Balancer,
    fabric: Fabric,
    probe: bool = False,
    pairs: bool = False,
    layer: str = "",
) -> tuple[dict[str, float], list[dict], list[dict]]:
    """Forward, and backward into the parameters' `.grad`; the balancer's weights move after their use.

    images [B, 3, S, S] in 0-1, boxes [M, 6], views [B]. layer: where the tasks' gradients are measured, as
    `MultiTaskYOLO.shared_weight` knows it. Returns the row of the step, the rows by stage (if `probe`)
    and those by class and view (if `pairs`); both are empty where nothing is shared.
    FloatingPointError, and nothing run back, where a loss is not finite.
    """
    tasks = model.tasks
    with fabric.autocast():
        # Views, for the maps of later stages are computed from those of earlier ones.
        features = tuple(feature.view_as(feature) for feature in model.forward_shared(images))
        outputs = {task: model.forward_task(task, features) for task in tasks}
    losses, parts = task_losses(outputs, boxes, views, model)
    for task, loss in losses.items():
        if not loss.isfinite():
            raise FloatingPointError(f"the {task} loss is {float(loss.detach())}")
    measure_at = [model.shared_weight(layer)] if model.shared else []
    fights = conflict_by_pair(model, outputs, boxes, views, *measure_at) if pairs and model.shared else []
    probed = list(model.shared_parameters()) if probe else []
    measured = balancer.backward(list(losses.values()), features, measure_at, probed)
    values, weights = measured.losses.tolist(), measured.weights.tolist()
    row = {"loss": sum(weight * value for weight, value in zip(weights, values, strict=True))}
    row |= {f"loss_{task}": value for task, value in zip(tasks, values, strict=True)}
    row |= {f"loss_{part}": float(v) for part, v in parts.items()}
    row |= {f"weight_{task}": weight for task, weight in zip(tasks, weights, strict=True)}
    if measured.norms is not None:
        row |= {f"norm_{task}": n for task, n in zip(tasks, measured.norms.tolist(), strict=True)}
        shares = weighted_shares(measured.weights, measured.norms)
        row["share_detection"] = float(shares[tasks.index("detection")])
    rows = conflict_by_stage(model.shared, measured.probed, tasks, weights) if measured.probed else []
    return row, rows, fights


@torch.no_grad()
def losses_of(model: MultiTaskYOLO, images: Tensor, boxes: Tensor, views: Tensor, fabric: Fabric) -> Tensor:
    """The losses [T] of a batch as the network now is, on the CPU, without gradients."""
    with fabric.autocast():
        outputs = model(images)
    return torch.stack([loss for loss in task_losses(outputs, boxes, views, model)[0].values()]).cpu()


@torch.no_grad()
def predict(
    model: MultiTaskYOLO, frames: FrameSet, training: Training
) -> tuple[list[dict], dict[str, float]]:
    """Predictions (as `metrics` describes them, boxes in 0-1 of the original frame) and mean losses."""
    fabric = fabric_for(training)
    training_mode = model.training
    model.eval()
    predictions, losses, batches = [], dict.fromkeys(model.tasks, 0.0), 0
    for batch in DataLoader(frames, training.batch_size, collate_fn=collate):
        images, boxes, views = prepare(batch, fabric)
        with fabric.autocast():
            outputs = model(images)
        for task, loss in task_losses(outputs, boxes, views, model)[0].items():
            losses[task] += float(loss)
        batches += 1
        found = scores = [None] * len(images)
        if "detection" in outputs:
            found = _detections(outputs["detection"], model, images.shape[-1])
        if "classification" in outputs:
            scores = outputs["classification"].float().softmax(-1).cpu()
        for i, detections, score in zip(batch[3].tolist(), found, scores, strict=True):
            predictions.append(_entry(frames, i, detections, score))
    model.train(training_mode)
    return predictions, {task: loss / max(batches, 1) for task, loss in losses.items()}


def evaluate(
    predictions: Sequence[Mapping], tasks: Sequence[str], classes: Sequence[str], confidence: float
) -> dict:
    """All metrics; those of a task that the solution does not have are None."""
    detection = detection_metrics(predictions, classes, confidence)
    if "detection" not in tasks:
        detection = dict.fromkeys(detection)
    if "classification" not in tasks:
        return {**detection, "accuracy": None, "balanced_accuracy": None}
    return {**detection, **classification_metrics(predictions)}


def _detections(raw: Sequence[Tensor], model: MultiTaskYOLO, side: int) -> list[Tensor]:
    """Raw predictions -> for each image [n, 6]: class, confidence, cx, cy, w, h in 0-1, best first."""
    decoded = decode([level.float() for level in raw], model.paths["detection"]["head"]["24"].anchors)
    scores = decoded[..., 4:5] * decoded[..., 5:]  # [B, N, K]
    classes = scores.shape[-1]
    top, index = scores.flatten(1).topk(min(CANDIDATES, scores.shape[1] * classes))  # [B, C], sorted
    label = index % classes
    boxes = decoded[..., :4].gather(1, (index // classes)[..., None].expand(-1, -1, 4))  # [B, C, 4]
    # Classes are suppressed apart: an offset of more than an image moves each to a place of its own.
    apart = cxcywh_to_xyxy(boxes) + (label * side * 4)[..., None]
    kept = non_maximum_suppression(apart, top * (top >= LOWEST_CONFIDENCE), SUPPRESSION_IOU)
    rows = torch.cat((label[..., None].float(), top[..., None], boxes / side), -1)  # [B, C, 6]
    return [image[mask][:DETECTIONS].cpu() for image, mask in zip(rows, kept, strict=True)]


def _entry(frames: FrameSet, i: int, detections: Tensor | None, scores: Tensor | None) -> dict:
    """One entry of `predictions`."""
    frame = frames.frames[i]
    found = []
    if detections is not None:
        original = unletterbox_boxes(detections.numpy(), *frames.sizes[i].tolist(), frames.size)
        found = original.astype(float).round(5).tolist()
    return {
        "image": frame.name,
        "patient": frame.patient,
        "video": frame.video,
        "view": frame.view,
        "view_scores": None if scores is None else scores.double().numpy().round(5).tolist(),
        "boxes": frame.boxes.tolist(),
        "detections": found,
    }
