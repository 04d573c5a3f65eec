"""Curves and confusions of predictions small enough to work out by hand."""

import pytest

from gradlib.evidence import predictions
from gradlib.report.rendering import commonest_confusion

from .studies import runs, study


def test_area_under_the_precision_recall_curve_is_map():
    # Two boxes of one class; the detections by confidence: right, wrong, right. Precision 1, 1/2, 2/3 at
    # recall 1/2, 1/2, 1: the best precision at recall 0 ... 0.5 (51 points) is 1, above it (50) 2/3.
    box = [0.5, 0.5, 0.2, 0.2]
    found = [[0, 0.9, *box], [0, 0.8, 0.1, 0.1, 0.05, 0.05]]
    images = [
        {"image": "a", "view": 0, "view_scores": [0.9, 0.1], "boxes": [[0, *box]], "detections": found},
        {
            "image": "b",
            "view": 0,
            "view_scores": [0.2, 0.8],
            "boxes": [[0, *box]],
            "detections": [[0, 0.7, *box]],
        },
        {"image": "c", "view": -1, "view_scores": [0.5, 0.5], "boxes": [], "detections": []},
    ]
    configs = {"dual": {"classes": ["AR", "MR"], "views": ["A4C", "PSAX"]}}
    made = study(runs({"solution": "dual", "map50": 1.0}), configs=configs, kept={"dual": images})
    curve = predictions.precision_recall(made)
    assert set(curve["class"]) == {"AR", ""}  # MR does not occur
    overall = curve[curve["class"] == ""]
    assert overall["precision"].mean() == pytest.approx((51 + 50 * 2 / 3) / 101)
    table = predictions.view_confusion(made, "dual")
    assert table.to_numpy().tolist() == [[1, 1], [0, 0]]  # the frame without a view is not counted
    assert commonest_confusion(table) == (
        "1 of 2 frames named right (50%); most often A4C is named PSAX (1 times)."
    )
