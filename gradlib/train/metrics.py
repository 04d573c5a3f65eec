"""All metrics: COCO's mAP, precision, recall, F1, detection MSE, accuracy.

They are computed from `predictions`, the list in a run's `predictions.json`: one mapping an image, with
`boxes` [[class, cx, cy, w, h], ...] (truth), `detections` [[class, confidence, cx, cy, w, h], ...], `view`
(index of the truth, -1 if unknown) and `view_scores` ([V], or None); boxes in 0-1 of the image. A metric
without truth or without predictions of its task is None.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from faster_coco_eval import COCO, COCOeval_faster

CONFIDENCES = np.linspace(0, 1, 1001)
COUNTED_A_CLASS = 100  # of a class in an image, as COCO counts; what is less confident is left out


def average_precision(predictions: Sequence[Mapping], classes: Sequence[str]) -> dict:
    """COCO's average precision (101-point interpolation, at most 100 detections of a class an image).

    Returns `map50`, `map50_95` (mean over the classes that occur) and `ap50`, by class name, None for a
    class without a box.
    """
    images, truths, detections = [], [], []
    for i, entry in enumerate(predictions):
        images.append({"id": i, "width": 1, "height": 1})
        for label, *box in entry["boxes"]:
            truths.append({"id": len(truths) + 1, "image_id": i, "iscrowd": 0, **_coco_box(label, box)})
        for label, confidence, *box in entry["detections"]:
            detections.append({"image_id": i, "score": confidence, **_coco_box(label, box)})
    if not truths:
        return {"map50": None, "map50_95": None, "ap50": dict.fromkeys(classes)}
    if not detections:
        present = {int(t["category_id"]) for t in truths}
        ap50 = {name: 0.0 if k in present else None for k, name in enumerate(classes)}
        return {"map50": 0.0, "map50_95": 0.0, "ap50": ap50}
    categories = [{"id": k, "name": name} for k, name in enumerate(classes)]
    truth = COCO({"images": images, "annotations": truths, "categories": categories})
    evaluation = COCOeval_faster(truth, truth.loadRes(detections), "bbox", print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    # [10 IoU thresholds, 101 recalls, K classes, areas, detections]: all areas, 100 detections.
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    by_class = np.where(precision[0, 0] < 0, np.nan, precision.mean(1))  # [10, K]; -1 marks no truth
    ap50 = {name: None if np.isnan(ap) else float(ap) for name, ap in zip(classes, by_class[0], strict=True)}
    return {"map50": float(np.nanmean(by_class[0])), "map50_95": float(np.nanmean(by_class)), "ap50": ap50}


def _coco_box(label: float, box: Sequence[float]) -> dict:
    cx, cy, w, h = box
    return {"category_id": int(label), "bbox": [cx - w / 2, cy - h / 2, w, h], "area": w * h}


def match(entry: Mapping, ious: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The detections of an image [D, 6] by falling confidence, and the true box that each matches at each IoU
    [D, len(ious)], -1 for none.

    As in COCO: by falling confidence, a detection matches the unmatched box of its class that it overlaps
    most, if by the IoU or more. So a detection never changes the match of a more confident one.
    """
    detections = np.asarray(entry["detections"], dtype=float).reshape(-1, 6)
    detections = detections[np.argsort(-detections[:, 1], kind="stable")]
    if len(detections) > COUNTED_A_CLASS:
        classes = pd.Series(detections[:, 0])
        detections = detections[classes.groupby(classes).cumcount() < COUNTED_A_CLASS]
    truths = np.asarray(entry["boxes"], dtype=float).reshape(-1, 5)
    matched = np.full((len(detections), len(ious)), -1)
    if len(detections) and len(truths):
        overlaps = _overlaps(detections[:, 2:], truths[:, 1:])  # [detections, truths]
        overlaps[detections[:, :1] != truths[None, :, 0]] = 0
        free = np.ones((len(ious), len(truths)), dtype=bool)
        for d in np.flatnonzero(overlaps.max(1) >= ious.min()):
            overlap = overlaps[d] * free  # [ious, truths]
            best = overlap.argmax(1)
            correct = overlap[np.arange(len(ious)), best] >= ious
            matched[d, correct] = best[correct]
            free[correct, best[correct]] = False
    return detections, matched


def match_all(
    predictions: Sequence[Mapping], ious: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every detection, and whether it is correct at each IoU: image [D], class [D], confidence [D] and
    correct [D, len(ious)]; by image, then by falling confidence."""
    columns, correct = [np.zeros((0, 3))], [np.zeros((0, len(ious)), bool)]
    for i, entry in enumerate(predictions):
        detections, matched = match(entry, ious)
        columns.append(np.column_stack((np.full(len(detections), i), detections[:, :2])))
        correct.append(matched >= 0)
    image, label, confidence = np.concatenate(columns).T
    return image.astype(int), label.astype(int), confidence, np.concatenate(correct)


def matches(predictions: Sequence[Mapping], iou: float = 0.5) -> pd.DataFrame:
    """`match_all` at one IoU as a table: columns image, class, confidence, correct."""
    image, label, confidence, correct = match_all(predictions, np.array([iou]))
    return pd.DataFrame({"image": image, "class": label, "confidence": confidence, "correct": correct[:, 0]})


def pr_curve(predictions: Sequence[Mapping], classes: Sequence[str], iou: float = 0.5) -> pd.DataFrame:
    """Precision and recall of each class as the confidence falls: class (name), confidence, precision,
    recall; one row a detection. Classes without a box are left out."""
    detections, truths = matches(predictions, iou), _truth_counts(predictions, len(classes))
    curves = []
    for k, name in enumerate(classes):
        if not truths[k]:
            continue
        own = detections[detections["class"] == k].sort_values("confidence", ascending=False, kind="stable")
        n_correct = own["correct"].cumsum()
        precision, recall = n_correct / np.arange(1, len(own) + 1), n_correct / truths[k]
        curves.append(own[["confidence"]].assign(precision=precision, recall=recall))
        curves[-1].insert(0, "class", name)
    columns = ["class", "confidence", "precision", "recall"]
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=columns)


def _precision_recall_f1(predictions: Sequence[Mapping], classes: int) -> np.ndarray:
    """Mean precision, recall and F1 over the classes that occur, at each of `CONFIDENCES`: [3, 1001]."""
    detections, truths = matches(predictions), _truth_counts(predictions, classes)
    present = np.flatnonzero(truths)
    curves = np.zeros((3, len(CONFIDENCES)))
    for k in present:
        own = detections[detections["class"] == k].sort_values("confidence")
        below = np.searchsorted(own["confidence"].to_numpy(), CONFIDENCES, side="left")
        correct_below = np.concatenate(([0], own["correct"].to_numpy().cumsum()))[below]
        # The number of detections, and of correct ones, with at least each confidence: [1001].
        n, n_correct = len(own) - below, own["correct"].sum() - correct_below
        curves += (n_correct / np.maximum(n, 1), n_correct / truths[k], 2 * n_correct / (n + truths[k]))
    return curves / max(len(present), 1)


def best_confidence(predictions: Sequence[Mapping], classes: int) -> float:
    """The confidence with the highest mean F1 over classes, smoothed over 0.05, for single frames make peaks;
    YOLOv5's 0.25 where there is no true box. Choose it on the validation part."""
    if not any(len(entry["boxes"]) for entry in predictions):
        return 0.25
    f1 = np.pad(_precision_recall_f1(predictions, classes)[2], 25, "edge")
    return float(CONFIDENCES[np.convolve(f1, np.ones(51), "valid").argmax()])


def box_errors(entry: Mapping, confidence: float) -> np.ndarray:
    """Squared error [N, 4] of each true box of an image (cx, cy, w, h in 0-1) to the detection of highest
    IoU, of any class, with at least `confidence`; to the zero box if none overlaps it."""
    detections = np.asarray(entry["detections"], dtype=float).reshape(-1, 6)
    detections = detections[detections[:, 1] >= confidence, 2:]
    truths = np.asarray(entry["boxes"], dtype=float).reshape(-1, 5)[:, 1:]
    if not len(detections) or not len(truths):
        return np.square(truths)
    overlaps = _overlaps(truths, detections)  # [truths, detections]
    nearest = detections[overlaps.argmax(1)] * (overlaps.max(1, keepdims=True) > 0)
    return np.square(truths - nearest)


def detection_mse(predictions: Sequence[Mapping], confidence: float) -> float | None:
    """Mean of `box_errors` over all true boxes and their four numbers; None without a true box."""
    errors = [box_errors(entry, confidence) for entry in predictions]
    return float(np.concatenate(errors).mean()) if any(map(len, errors)) else None


def detection_metrics(predictions: Sequence[Mapping], classes: Sequence[str], confidence: float) -> dict:
    """All detection metrics; precision, recall, F1 (IoU 0.5, mean over the classes that occur) and the
    detection MSE at the given confidence, chosen elsewhere."""
    at = round(confidence * (len(CONFIDENCES) - 1))
    precision, recall, f1 = _precision_recall_f1(predictions, len(classes))[:, at]
    if not any(len(entry["boxes"]) for entry in predictions):
        precision = recall = f1 = np.nan
    scores = {"precision": precision, "recall": recall, "f1": f1}
    return {
        **average_precision(predictions, classes),
        **{name: None if np.isnan(value) else float(value) for name, value in scores.items()},
        "confidence": confidence,
        "detection_mse": detection_mse(predictions, confidence),
    }


def classification_metrics(predictions: Sequence[Mapping]) -> dict:
    """Top-1 accuracy over the images that have a view, and its mean over views (balanced)."""
    known = [entry for entry in predictions if entry["view"] >= 0]
    if not known:
        return {"accuracy": None, "balanced_accuracy": None}
    truth = np.array([entry["view"] for entry in known])
    guess = np.array([int(np.argmax(entry["view_scores"])) for entry in known])
    recalls = [(guess[truth == view] == view).mean() for view in np.unique(truth)]
    return {"accuracy": float((truth == guess).mean()), "balanced_accuracy": float(np.mean(recalls))}


def _truth_counts(predictions: Sequence[Mapping], classes: int) -> np.ndarray:
    labels = [int(box[0]) for entry in predictions for box in entry["boxes"]]
    return np.bincount(np.array(labels, int), minlength=classes)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU [N, M] of cxcywh boxes a [N, 4], b [M, 4]: `pairwise_iou` in NumPy, faster for so few boxes."""
    (low_a, high_a), (low_b, high_b) = ((x[..., :2] - x[..., 2:] / 2, x[..., :2] + x[..., 2:] / 2)
                                        for x in (a[:, None], b[None]))  # fmt: skip
    shared = (np.minimum(high_a, high_b) - np.maximum(low_a, low_b)).clip(0)  # [N, M, 2] width, height
    intersection, area_a, area_b = (x[..., 0] * x[..., 1] for x in (shared, high_a - low_a, high_b - low_b))
    return intersection / (area_a + area_b - intersection).clip(1e-9)
