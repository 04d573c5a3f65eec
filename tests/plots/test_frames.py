"""Boxes are drawn where they are, and told apart."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from gradlib.plots import frames

BLACK = np.zeros((100, 200, 3), np.uint8)
CLASSES = ["AR", "MR"]
# Centre (0.5, 0.5), 0.2 by 0.4 of 200 x 100: corner (80, 30), 40 by 40 pixels.
TRUTH, FOUND = [[1, 0.5, 0.5, 0.2, 0.4]], [[0, 0.75, 0.5, 0.5, 0.1, 0.1]]


@pytest.fixture(autouse=True)
def close_figures():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def test_detections_show_truth_and_prediction_where_they_are():
    axes = frames.detections([BLACK, BLACK], [TRUTH, []], CLASSES, ["a", "b"], [FOUND, []], columns=3)
    assert axes.shape == (1, 3)
    assert [ax.get_title() for ax in axes.flat] == ["a", "b", ""]
    boxes = [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in axes[0, 0].patches]
    assert boxes[0] == pytest.approx((80, 30, 40, 40))
    assert [text.get_text() for text in axes[0, 0].texts] == ["MR", "AR 0.75"]
    assert not axes[0, 1].patches


def test_what_is_wrong_and_what_is_missed_looks_otherwise():
    looks = {}
    for fault in (False, True):
        ax = plt.figure().add_subplot()
        frames.frame(BLACK, TRUTH, CLASSES, "a", ax, FOUND, wrong=[fault], missed=[fault])
        looks[fault] = [(p.get_edgecolor(), p.get_linestyle(), p.get_linewidth()) for p in ax.patches]
    (true, found), (missed, wrong) = looks[False], looks[True]
    assert missed[:2] == true[:2] and missed[2] > true[2]
    assert wrong[0] != found[0] and wrong[1] != found[1]


def test_a_batch_is_one_picture_with_each_frame_in_its_place():
    images = [np.full((20, 20, 3), shade, np.uint8) for shade in (10, 20, 30)]
    ax = frames.batch(
        images, [[], TRUTH, []], CLASSES, ["x", "y", "z"], plt.figure().add_subplot(), columns=2
    )
    (sheet,) = (image.get_array() for image in ax.images)
    assert sheet.shape == (42, 42, 3)  # two by two with a gap of 2
    assert [sheet[row, column, 0] for row, column in ((5, 5), (5, 30), (30, 5), (30, 30))] == [
        10,
        20,
        30,
        255,
    ]
    (boxes,) = ax.collections
    (box,) = (path.get_extents() for path in boxes.get_paths())
    # Of 20 x 20, so a corner of (8, 6), moved right by 22.
    assert (box.x0, box.y0, box.width, box.height) == pytest.approx((30, 6, 4, 8))
    assert [text.get_text() for text in ax.texts] == ["x", "MR y", "z"]
