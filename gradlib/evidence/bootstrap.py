"""Test metrics of resampled patients, from counts by patient: detections are matched only once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradlib.evidence.tables import PERFORMANCE
from gradlib.train.metrics import box_errors, match_all

__all__ = ["Tally", "bootstrap_weights", "tally"]

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Tally:
    """The predictions of one run, counted by patient; see `tally`.

    P patients, K classes, V views; T_ik true positives of class k at the i-th of `IOUS`.
    """

    patients: tuple[str, ...]  # [P]
    n_images: np.ndarray  # [P]
    n_boxes: np.ndarray  # [P, K] true boxes
    # By IoU and class, at each true positive by falling confidence, both [P, T_ik]: how many true positives,
    # and how many detections, each patient has up to there.
    curves: tuple[tuple[tuple[np.ndarray, np.ndarray], ...], ...]
    n_detections: np.ndarray  # [P, K] of at least the confidence that the run chose
    n_true_positives: np.ndarray  # [P, K] of these, at IoU 0.5
    squared_errors: np.ndarray  # [P] sum over boxes and their four coordinates
    n_viewed: np.ndarray  # [P, V] images of a view
    n_correct: np.ndarray  # [P, V] of these, classified correctly
    detects: bool
    classifies: bool

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Every metric of `tables.PERFORMANCE` for each of R resamples.

        weights [R, P]: how often each patient was drawn. Returns arrays [R]; NaN where the resample holds no
        box or no view, or the run has no such task.
        """
        out = dict.fromkeys(PERFORMANCE, np.full(len(weights), np.nan))
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.detects:
                boxes, detections, right = (
                    weights @ counts for counts in (self.n_boxes, self.n_detections, self.n_true_positives)
                )  # [R, K]
                present = np.where(boxes > 0, 1.0, np.nan)
                ap = np.stack([self._average_precision(i, weights, boxes) for i in range(len(IOUS))])
                out["map50"], out["map50_95"] = _mean(ap[0] * present), _mean(ap.mean(0) * present)
                out["precision"] = _mean(right / np.maximum(detections, 1) * present)
                out["recall"] = _mean(right / boxes * present)
                out["f1"] = _mean(2 * right / (detections + boxes) * present)
                out["detection_mse"] = weights @ self.squared_errors / (4 * boxes.sum(1))
            if self.classifies:
                images, right = weights @ self.n_viewed, weights @ self.n_correct  # [R, V]
                out["accuracy"] = right.sum(1) / images.sum(1)
                out["balanced_accuracy"] = _mean(right / images)
        return out

    def _average_precision(self, i: int, weights: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """COCO's average precision [R, K] at the i-th IoU: the best precision at each of 101 recalls or a
        higher one. Recall rises only at true positives, so only these are visited."""
        columns = []
        for k, (hits, found) in enumerate(self.curves[i]):
            if not hits.shape[1]:
                columns.append(np.zeros(len(weights)))
                continue
            hits, found = weights @ hits, weights @ found  # [R, T], by falling confidence
            precision = hits / (found + np.spacing(1))
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            # How many of the 101 recalls each detection reaches first.
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

    confidence: the one that the run chose on its validation part, for precision, recall, F1 and the detection
    MSE. None where the run does not detect.
    """
    confidence = np.inf if confidence is None else confidence
    names = sorted({entry["patient"] for entry in predictions})
    place = {name: i for i, name in enumerate(names)}
    patient = np.array([place[entry["patient"]] for entry in predictions], dtype=int)  # of each image
    one_hot = np.eye(len(names))
    n_boxes = np.zeros((len(names), classes))
    n_viewed, n_correct = np.zeros((len(names), views)), np.zeros((len(names), views))
    for i, entry in zip(patient, predictions, strict=True):
        for box in entry["boxes"]:
            n_boxes[i, int(box[0])] += 1
        if entry["view"] >= 0 and entry["view_scores"] is not None:
            n_viewed[i, entry["view"]] += 1
            n_correct[i, entry["view"]] += np.argmax(entry["view_scores"]) == entry["view"]
    image, label, score, correct = match_all(predictions, IOUS)
    order = np.argsort(-score, kind="stable")
    owner, label, score, correct = patient[image[order]], label[order], score[order], correct[order]
    n_detections, n_true_positives = np.zeros_like(n_boxes), np.zeros_like(n_boxes)
    chosen = score >= confidence
    np.add.at(n_detections, (owner[chosen], label[chosen]), 1)
    np.add.at(n_true_positives, (owner[chosen], label[chosen]), correct[chosen, 0])
    curves = [[None] * classes for _ in IOUS]
    for k in range(classes):
        of_class = label == k
        found = one_hot[owner[of_class]].cumsum(0)  # [D, P]
        for i in range(len(IOUS)):
            hit = correct[of_class, i]
            hits = one_hot[owner[of_class][hit]].cumsum(0)
            curves[i][k] = hits.T, found[hit].T
    squared_errors = np.zeros(len(names))
    np.add.at(squared_errors, patient, [box_errors(entry, confidence).sum() for entry in predictions])
    return Tally(
        patients=tuple(names),
        n_images=np.bincount(patient, minlength=len(names)),
        n_boxes=n_boxes,
        curves=tuple(map(tuple, curves)),
        n_detections=n_detections,
        n_true_positives=n_true_positives,
        squared_errors=squared_errors,
        n_viewed=n_viewed,
        n_correct=n_correct,
        detects="detection" in tasks,
        classifies="classification" in tasks,
    )


def bootstrap_weights(patients: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """How often each patient is drawn in each resample: [resamples, patients].

    One patient fewer is drawn than there are: the variance over resamples is then that of the mean of as many
    patients; drawing all would make it too small by (n - 1) / n (Rao and Wu 1988).
    """
    return generator.multinomial(patients - 1, np.full(patients, 1 / patients), resamples).astype(float)
