"""Test metrics of resampled patients, from counts by patient: detections are matched only once."""

from collections.abc import Mapping, Sequence

import numpy as np

from gradlib.evidence.tables import PERFORMANCE
from gradlib.train.metrics import box_errors, match_all

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


class Tally:
    """The predictions of one run (as `metrics` describes them, with `patient`), counted by patient.

    P patients, K classes, V views. confidence: the one that the run chose on its validation part, for
    precision, recall, F1 and the detection MSE; None where the run does not detect.
    """

    def __init__(
        self,
        predictions: Sequence[Mapping],
        classes: int,
        views: int,
        confidence: float | None,
        tasks: Sequence[str],
    ):
        self.tasks = tasks
        names, patient, self.n_images = np.unique(
            [entry["patient"] for entry in predictions], return_inverse=True, return_counts=True
        )
        self.patients = tuple(names.tolist())  # [P]
        confidence = np.inf if confidence is None else confidence
        self.n_boxes = np.zeros((len(names), classes))  # [P, K] true boxes
        self.n_viewed = np.zeros((len(names), views))  # [P, V] images of a view
        self.n_correct = np.zeros((len(names), views))  # [P, V] of these, classified correctly
        self.squared_errors = np.zeros(len(names))  # [P] sum over boxes and their four coordinates
        for i, entry in zip(patient, predictions, strict=True):
            np.add.at(self.n_boxes[i], [int(box[0]) for box in entry["boxes"]], 1)
            self.squared_errors[i] += box_errors(entry, confidence).sum()
            if entry["view"] >= 0 and entry["view_scores"] is not None:
                self.n_viewed[i, entry["view"]] += 1
                self.n_correct[i, entry["view"]] += np.argmax(entry["view_scores"]) == entry["view"]
        image, label, score, correct = match_all(predictions, IOUS)
        order = np.argsort(-score, kind="stable")
        owner = np.eye(len(names))[patient[image[order]]]  # [D, P] one-hot, by falling confidence
        label, chosen, correct = label[order], score[order] >= confidence, correct[order]
        of_class = [label == k for k in range(classes)]
        kinds, right = np.eye(classes)[label], chosen & correct[:, 0]  # [D, K] one-hot
        self.n_detections = owner[chosen].T @ kinds[chosen]  # [P, K] of at least that confidence
        self.n_true_positives = owner[right].T @ kinds[right]  # [P, K] of these, correct at IoU 0.5
        # By IoU and class, at each of the T true positives by falling confidence, both [P, T]: how many true
        # positives, and how many detections, each patient has up to there.
        found = [owner[own].cumsum(0) for own in of_class]
        self.curves = [
            [(owner[own & hit].cumsum(0).T, found[k][hit[own]].T) for k, own in enumerate(of_class)]
            for hit in correct.T
        ]

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Every metric of `tables.PERFORMANCE` for each of R resamples.

        weights [R, P]: how often each patient was drawn. Returns arrays [R]; NaN where the resample holds no
        box or no view, or the run has no such task.
        """
        out = dict.fromkeys(PERFORMANCE, np.full(len(weights), np.nan))
        with np.errstate(invalid="ignore", divide="ignore"):
            if "detection" in self.tasks:
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
            if "classification" in self.tasks:
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


def bootstrap_weights(patients: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """How often each patient is drawn in each resample: [resamples, patients].

    One patient fewer is drawn than there are: the variance over resamples is then that of the mean of as many
    patients; drawing all would make it too small by (n - 1) / n (Rao and Wu 1988).
    """
    return generator.multinomial(patients - 1, np.full(patients, 1 / patients), resamples).astype(float)
