import numpy as np
import pytest
import torch

from gradlib.model.boxes import cxcywh_to_xyxy, pairwise_iou
from gradlib.train.metrics import (
    _overlaps,
    average_precision,
    best_confidence,
    classification_metrics,
    detection_metrics,
    detection_mse,
    matches,
    pr_curve,
)

A, B = [0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]  # two boxes far apart


def entry(boxes, detections, view=-1, view_scores=None):
    return {"boxes": boxes, "detections": detections, "view": view, "view_scores": view_scores}


# Two boxes; found right at 0.9, wrong at 0.8, right at 0.7.
WORKED = [entry([[0, *A], [0, *B]], [[0, 0.9, *A], [0, 0.8, 0.5, 0.2, 0.1, 0.1], [0, 0.7, *B]])]


def test_average_precision_by_hand():
    # Recall 1/2 at precision 1, recall 1 at precision 2/3: of the 101 recall points, 51 (0 to 0.5)
    # read 1 and 50 read 2/3. Both hits are exact, so every IoU threshold gives the same.
    expected = (51 + 50 * 2 / 3) / 101
    result = average_precision(WORKED, ["AR", "PR"])
    assert result["map50"] == pytest.approx(expected)
    assert result["map50_95"] == pytest.approx(expected)
    assert result["ap50"] == {"AR": pytest.approx(expected), "PR": None}


def test_average_precision_over_iou_by_hand():
    # Nine tenths of the height: IoU 0.9, right at 0.5, 0.55, ..., 0.9 and wrong at 0.95.
    found = [0.2, 0.2, 0.2, 0.18]
    result = average_precision([entry([[0, *A]], [[0, 0.5, *found]])], ["AR"])
    assert (result["map50"], result["map50_95"]) == (pytest.approx(1), pytest.approx(0.9))


def test_average_precision_of_nothing():
    assert average_precision([entry([], [[0, 0.9, *A]])], ["AR"])["map50"] is None
    result = average_precision([entry([[0, *A]], [])], ["AR", "MR"])
    assert (result["map50"], result["ap50"]) == (0, {"AR": 0, "MR": None})


def test_a_box_is_found_once_and_by_its_own_class():
    twice = [entry([[0, *A]], [[0, 0.9, *A], [0, 0.8, *A], [1, 0.95, *A]])]
    found = matches(twice)
    assert found["confidence"].tolist() == [0.95, 0.9, 0.8]
    assert found["correct"].tolist() == [False, True, False]


def test_precision_and_recall_along_the_curve():
    curve = pr_curve(WORKED, ["AR", "PR"])
    assert curve["class"].unique().tolist() == ["AR"]
    assert curve["precision"].tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve["recall"].tolist() == pytest.approx([1 / 2, 1 / 2, 1])


def test_the_confidence_of_the_best_f1():
    # All three kept: F1 = 2 * 2 / (3 + 2) = 0.8; only the first: 2 / (1 + 2); so at most 0.7.
    confidence = best_confidence(WORKED, 1)
    assert confidence <= 0.7
    result = detection_metrics(WORKED, ["AR"], confidence)
    assert (result["precision"], result["recall"], result["f1"]) == pytest.approx((2 / 3, 1, 0.8))
    strict = detection_metrics(WORKED, ["AR"], 0.85)
    assert (strict["precision"], strict["recall"]) == pytest.approx((1, 0.5))
    assert best_confidence([{**entry, "boxes": []} for entry in WORKED], 1) == 0.25  # nothing to choose it by


def test_precision_is_no_average_precision():
    result = detection_metrics(WORKED, ["AR"], 0.0)
    assert result["precision"] != pytest.approx(result["map50"])


def test_detection_mse_by_hand():
    # A is found 0.1 too far right by a detection of another class; B by none, so the zero box:
    # (0.1^2 + 0.7^2 + 0.7^2 + 0.2^2 + 0.2^2) / 8.
    found = [[1, 0.9, 0.3, 0.2, 0.2, 0.2], [0, 0.1, *B]]
    predictions = [entry([[0, *A], [0, *B]], found)]
    assert detection_mse(predictions, 0.5) == pytest.approx((0.01 + 2 * 0.49 + 2 * 0.04) / 8)
    assert detection_mse(predictions, 0.05) == pytest.approx(0.01 / 8)
    assert detection_mse([entry([], found)], 0.5) is None


def test_accuracy_by_hand():
    scores = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.1, 0.9]]
    truth = [0, 0, 0, 1, -1]  # right, right, wrong, wrong, unknown
    predictions = [entry([], [], view, s) for view, s in zip(truth, scores, strict=True)]
    # 2 of 4; by view 2/3 and 0/1.
    assert classification_metrics(predictions) == {
        "accuracy": 0.5,
        "balanced_accuracy": pytest.approx(1 / 3),
    }
    assert classification_metrics(predictions[-1:]) == {"accuracy": None, "balanced_accuracy": None}


def test_without_truth_there_is_no_score():
    result = detection_metrics([entry([], [])], ["AR"], 0.5)
    assert result["map50"] is result["precision"] is result["f1"] is result["detection_mse"] is None


def test_overlaps_are_the_models_to_the_last_bit():
    a, b = np.random.default_rng(0).random((2, 30, 4)).round(5)
    a[0], b[1, 2:] = b[0], 0  # equal boxes, and one without area
    expected = pairwise_iou(*(cxcywh_to_xyxy(torch.from_numpy(boxes)) for boxes in (a, b)))
    assert np.array_equal(_overlaps(a, b), expected.numpy())
