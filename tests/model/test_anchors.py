import numpy as np
import pytest
import torch

from gradlib.model import anchors
from gradlib.model.yolo import ANCHORS, MultiTaskYOLO


class Boxes:
    """As much of a FrameSet as is looked at: boxes of these sizes in pixels of a square."""

    size = 640

    def __init__(self, sizes):
        self.sizes = torch.as_tensor(np.array(sizes), dtype=torch.float32)

    def __len__(self):
        return len(self.sizes) + 1  # the last frame holds no box

    def __getitem__(self, i):
        own = self.sizes[i : i + 1] / self.size
        return None, torch.cat((torch.zeros(len(own), 3), own), 1), 0, i


def network(tasks=("detection",)):
    model = MultiTaskYOLO("n", 4, 3, tasks, "neck")
    return model, model.anchors if "detection" in tasks else None


def test_recall_by_hand():
    sizes = np.array([[10.0, 10.0], [39.0, 10.0], [41.0, 10.0], [10.0, 2.4]])
    assert anchors.best_possible_recall(sizes, np.array([[[10.0, 10.0]]])) == 0.5
    assert anchors.best_possible_recall(sizes, np.array([[10.0, 10.0], [20.0, 5.0]])) == 1.0


def test_published_anchors_stay_where_they_fit():
    model, own = network()
    assert anchors.fit_anchors(model, Boxes([[30, 30], [60, 40], [11, 14]] * 5)) == (1.0, 1.0)
    assert own.tolist() == torch.tensor(ANCHORS, dtype=torch.float32).tolist()


def test_anchors_that_leave_boxes_out_are_replaced():
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(np.log(2), np.log(30), (200, 1))) * [1.0, 20.0]
    model, own = network()
    before, after = anchors.fit_anchors(model, Boxes(sizes))
    assert before < 0.9 and after == 1.0
    assert own.shape == (3, 3, 2)
    ratios = (own[..., 1] / own[..., 0]).flatten().tolist()
    assert ratios == pytest.approx([20.0] * 9, rel=0.01)
    areas = own.prod(-1).flatten().tolist()
    assert areas == sorted(areas)


@pytest.mark.parametrize("sizes", [[], [[2.0, 500.0]] * 20])
def test_too_few_boxes_to_learn_from_change_nothing(sizes):
    model, own = network()
    before, after = anchors.fit_anchors(model, Boxes(np.array(sizes).reshape(-1, 2)))
    assert before == after
    assert own.tolist() == torch.tensor(ANCHORS, dtype=torch.float32).tolist()


def test_nothing_to_detect():
    assert anchors.fit_anchors(network(("classification",))[0], Boxes([[1.0, 1.0]])) is None
