"""Test metrics of resampled patients, without going through the predictions again.

Detections are matched to true boxes once. What is left of a run then is counts by patient, and a metric of a
resample (so many times this patient, so many times that one) is arithmetic on arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradlib.train.metrics import box_errors, match_all

__all__ = ["Tally", "draw", "tally"]

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Tally:
    """What the predictions of one run come to, by patient; see `tally`.

    P patients, K classes, V views; T_ik right detections of class k at the i-th of `IOUS`.
    """

    patients: tuple[str, ...]  # [P]
    images: np.ndarray  # [P]
    boxes: np.ndarray  # [P, K] true ones
    curves: tuple[tuple[tuple[np.ndarray, np.ndarray], ...], ...]  # by IoU and class: two of [P, T_ik]
    kept: np.ndarray  # [P, K] detections of at least the confidence that the run chose
    right: np.ndarray  # [P, K] those that are right at IoU 0.5
    errors: np.ndarray  # [P] sum of squared box errors
    seen: np.ndarray  # [P, V] images of a view
    named: np.ndarray  # [P, V] those named right
    detects: bool
    classifies: bool

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Every metric of `compare.PERFORMANCE` for each of R resamples.

        weights [R, P]: how often each patient was drawn. Returns arrays [R]; NaN where the resample holds no
        box, no view, or the run has no such task.
        """
        nothing = np.full(len(weights), np.nan)
        out = dict.fromkeys(
            (
                "map50",
                "map50_95",
                "precision",
                "recall",
                "f1",
                "detection_mse",
                "accuracy",
                "balanced_accuracy",
            ),
            nothing,
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.detects:
                boxes, kept, right = (weights @ counts for counts in (self.boxes, self.kept, self.right))
                present = np.where(boxes > 0, 1.0, np.nan)  # [R, K]
                ap = np.stack([self._average_precision(i, weights, boxes) for i in range(len(IOUS))])
                out["map50"], out["map50_95"] = _mean(ap[0] * present), _mean(ap.mean(0) * present)
                out["precision"] = _mean(right / np.maximum(kept, 1) * present)
                out["recall"] = _mean(right / boxes * present)
                out["f1"] = _mean(2 * right / (kept + boxes) * present)
                out["detection_mse"] = weights @ self.errors / (4 * boxes.sum(1))
            if self.classifies:
                seen, named = weights @ self.seen, weights @ self.named
                out["accuracy"] = named.sum(1) / seen.sum(1)
                out["balanced_accuracy"] = _mean(named / seen)
        return out

    def _average_precision(self, i: int, weights: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """COCO's average precision [R, K] at the i-th IoU: the best precision at each of 101 recalls or a
        higher one. Recall rises only at right detections, so only these are looked at."""
        columns = []
        for k, (hits, found) in enumerate(self.curves[i]):
            if not hits.shape[1]:
                columns.append(np.zeros(len(weights)))
                continue
            hits, found = weights @ hits, weights @ found  # [R, T], by falling confidence
            precision = hits / (found + np.spacing(1))
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            # So many of the 101 recalls are reached by each detection, and were not by the one before.
            reached = np.searchsorted(RECALLS, hits / boxes[:, k : k + 1], side="right")
            columns.append((best * np.diff(reached, axis=1, prepend=0)).sum(1) / len(RECALLS))
        return np.stack(columns, axis=1)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    return np.nansum(values, -1) / np.isfinite(values).sum(-1)


def tally(
    predictions: Sequence[Mapping], classes: int, views: int, confidence: float | None, tasks: Sequence[str]
) -> Tally:
    """Count the predictions of one run (as `metrics` describes them, with `patient`), by patient.

    confidence: the one that the run chose on its validation part; precision, recall, F1 and the detection MSE
    hold at it. None where the run does not detect.
    """
    confidence = np.inf if confidence is None else confidence
    names = sorted({entry["patient"] for entry in predictions})
    place = {name: i for i, name in enumerate(names)}
    patient = np.array([place[entry["patient"]] for entry in predictions], dtype=int)  # of each image
    table = np.eye(len(names))
    boxes = np.zeros((len(names), classes))
    seen, named = np.zeros((len(names), views)), np.zeros((len(names), views))
    for i, entry in zip(patient, predictions, strict=True):
        for box in entry["boxes"]:
            boxes[i, int(box[0])] += 1
        if entry["view"] >= 0 and entry["view_scores"] is not None:
            seen[i, entry["view"]] += 1
            named[i, entry["view"]] += np.argmax(entry["view_scores"]) == entry["view"]
    image, label, score, correct = match_all(predictions, IOUS)
    order = np.argsort(-score, kind="stable")
    owner, label, score, correct = patient[image[order]], label[order], score[order], correct[order]
    kept, right = np.zeros_like(boxes), np.zeros_like(boxes)
    chosen = score >= confidence
    np.add.at(kept, (owner[chosen], label[chosen]), 1)
    np.add.at(right, (owner[chosen], label[chosen]), correct[chosen, 0])
    curves = [[None] * classes for _ in IOUS]
    for k in range(classes):
        of_class = label == k
        found = table[owner[of_class]].cumsum(0)  # [D, P]
        for i in range(len(IOUS)):
            hit = correct[of_class, i]
            hits = table[owner[of_class][hit]].cumsum(0)
            curves[i][k] = hits.T, found[hit].T
    errors = np.zeros(len(names))
    np.add.at(errors, patient, [box_errors(entry, confidence).sum() for entry in predictions])
    return Tally(
        patients=tuple(names),
        images=np.bincount(patient, minlength=len(names)),
        boxes=boxes,
        curves=tuple(map(tuple, curves)),
        kept=kept,
        right=right,
        errors=errors,
        seen=seen,
        named=named,
        detects="detection" in tasks,
        classifies="classification" in tasks,
    )


def draw(patients: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """How often each patient is drawn in each resample: [resamples, patients].

    One patient fewer is drawn than there are: the variance over resamples is then that of the mean of as many
    patients, where drawing all would come out too small by a factor (n - 1) / n (Rao and Wu 1988).
    """
    return generator.multinomial(patients - 1, np.full(patients, 1 / patients), resamples).astype(float)
