"""A network judged on frames: its predictions, in the frames' own coordinates, and all metrics of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gradlib.config import Training
from gradlib.data.images import FrameSet, collate, unletterbox_boxes
from gradlib.model.boxes import cxcywh_to_xyxy, non_maximum_suppression
from gradlib.model.losses import task_losses
from gradlib.model.yolo import MultiTaskYOLO, decode
from gradlib.train.devices import fabric_for, prepare
from gradlib.train.metrics import classification_metrics, detection_metrics

MIN_CONFIDENCE = 0.001  # a detection below it adds nothing to average precision
# Before suppression, of an image and each class; a candidate is one anchor and one class. With 4 classes ten
# times as many changed no score; all of 80 classes are more than suppression can pair.
CANDIDATES_A_CLASS, MAX_CANDIDATES = 75, 3000
DETECTIONS_A_CLASS, MAX_DETECTIONS = 25, 300  # after suppression; YOLOv5's limit
SUPPRESSION_IOU = 0.6


@torch.no_grad()
def predict(
    model: MultiTaskYOLO, frames: FrameSet, training: Training
) -> tuple[list[dict], dict[str, float]]:
    """Predictions (see `metrics`; boxes in 0-1 of the frame), one a frame, and mean losses; in float32."""
    fabric, was_training = fabric_for(training), model.training
    model.eval()
    predictions, losses, batches = [], dict.fromkeys(model.tasks, 0.0), 0
    for batch in DataLoader(frames, training.batch_size, collate_fn=collate):
        images, boxes, views = prepare(batch, fabric)
        outputs = model(images)
        for task, loss in task_losses(outputs, boxes, views, model)[0].items():
            losses[task] += float(loss)
        batches += 1
        detections = scores = [None] * len(images)
        if "detection" in outputs:
            detections = _detections(outputs["detection"], model, images.shape[-1])
        if "classification" in outputs:
            scores = outputs["classification"].float().softmax(-1).cpu()  # [B, V]
        for i, rows, score in zip(batch[3].tolist(), detections, scores, strict=True):
            predictions.append(_entry(frames, i, rows, score))
    model.train(was_training)
    return predictions, {task: loss / max(batches, 1) for task, loss in losses.items()}


def evaluate(
    predictions: Sequence[Mapping], tasks: Sequence[str], classes: Sequence[str], confidence: float
) -> dict:
    """All metrics, at this confidence; None for those of a task that is not in `tasks`."""
    metrics = detection_metrics(predictions, classes, confidence)
    if "detection" not in tasks:
        metrics = dict.fromkeys(metrics)
    if "classification" not in tasks:
        return metrics | {"accuracy": None, "balanced_accuracy": None}
    return metrics | classification_metrics(predictions)


def _detections(raw: Sequence[Tensor], model: MultiTaskYOLO, side: int) -> list[Tensor]:
    """Raw predictions -> for each image [n, 6]: class, confidence, cx, cy, w, h in 0-1, best first."""
    decoded = decode([level.float() for level in raw], model.anchors)  # [B, N, 5 + K]
    scores = decoded[..., 4:5] * decoded[..., 5:]  # [B, N, K]
    classes = scores.shape[-1]
    count = min(CANDIDATES_A_CLASS * classes, MAX_CANDIDATES, scores[0].numel())
    top, index = scores.flatten(1).topk(count)  # [B, C], sorted
    label = index % classes
    boxes = decoded[..., :4].gather(1, (index // classes)[..., None].expand(-1, -1, 4))  # [B, C, 4]
    # Suppression is by class: an offset of more than an image keeps boxes of different classes apart.
    corners = cxcywh_to_xyxy(boxes) + (label * side * 4)[..., None]
    rows = torch.cat((label[..., None].float(), top[..., None], boxes / side), -1)  # [B, C, 6]
    # One image after the other: C x C overlaps of all would take gigabytes where classes are many.
    each = zip(corners.split(1), (top * (top >= MIN_CONFIDENCE)).split(1), strict=True)
    keep = (non_maximum_suppression(*one, SUPPRESSION_IOU)[0] for one in each)  # [C] of an image
    limit = min(DETECTIONS_A_CLASS * classes, MAX_DETECTIONS)
    return [image[mask][:limit].cpu() for image, mask in zip(rows, keep, strict=True)]


def _entry(frames: FrameSet, i: int, detections: Tensor | None, scores: Tensor | None) -> dict:
    """The entry of frame `i` in the predictions; detections [n, 6], scores [V]."""
    frame, rows = frames.frames[i], []
    if detections is not None:
        rows = unletterbox_boxes(detections.numpy(), *frames.sizes[i].tolist(), frames.size)
        rows = rows.astype(float).round(5).tolist()
    return {
        "image": frame.name,
        "patient": frame.patient,
        "video": frame.video,
        "view": frame.view,
        "view_scores": None if scores is None else scores.double().numpy().round(5).tolist(),
        "boxes": frame.boxes.tolist(),
        "detections": rows,
    }
