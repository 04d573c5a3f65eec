import math

import pytest
import torch
from lightning_fabric import Fabric

from gradlib.balance.gradnorm import GradNorm
from gradlib.config import TASKS
from gradlib.model.losses import classification_loss, detection_loss
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.probe.pairs import conflict_by_pair
from gradlib.probe.probe import Probe
from gradlib.train.step import train_step

IMAGES = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
# Class 1 in frames 0 and 3, class 2 in frame 3 alone; frame 2 has no box, frame 1 no view.
BOXES = torch.tensor([[0, 1, 0.5, 0.5, 0.3, 0.3], [3, 1, 0.3, 0.4, 0.2, 0.2], [3, 2, 0.7, 0.6, 0.3, 0.2]])
VIEWS = torch.tensor([0, -1, 0, 2])


def network():
    torch.manual_seed(0)
    model = MultiTaskYOLO(
        "n", 4, 3, TASKS, "p3"
    ).eval()  # no dropout; batch normalisation as one forward has it
    return model


def test_pairs_are_those_of_the_batch_and_their_cosines_of_the_frames_alone():
    model = network()
    rows = conflict_by_pair(model, model(IMAGES), BOXES, VIEWS, model.shared_weight())
    found = {(row["class"], row["view"]): row for row in rows}
    assert set(found) == {(1, 0), (1, 2), (2, 0), (2, 2)}
    assert [found[1, 0][f"frames_{of}"] for of in ("class", "view", "both")] == [2, 2, 1]
    assert [found[2, 0][f"frames_{of}"] for of in ("class", "view", "both")] == [1, 2, 0]
    # By hand: the network on frame 3 alone for class 2, and on frames 0 and 2 for view 0.
    model = network()
    anchors = model.anchors
    boxes = torch.tensor([[0, 1, 0.3, 0.4, 0.2, 0.2], [0, 2, 0.7, 0.6, 0.3, 0.2]])
    loss, _ = detection_loss(model(IMAGES[3:])["detection"], anchors, boxes)
    (a,) = torch.autograd.grad(loss, model.shared_weight())
    logits = model(IMAGES[[0, 2]])["classification"]
    (b,) = torch.autograd.grad(
        classification_loss(logits, torch.tensor([0, 0]), torch.ones(3)), model.shared_weight()
    )
    cosine = float((a * b).sum() / a.norm() / b.norm())
    assert found[2, 0]["cosine"] == pytest.approx(cosine, abs=1e-4)
    assert all(math.isfinite(row["cosine"]) for row in rows)


def test_a_batch_without_boxes_or_views_has_no_pairs():
    model = network()
    assert conflict_by_pair(model, model(IMAGES), BOXES[:0], VIEWS, model.shared_weight()) == []
    assert conflict_by_pair(model, model(IMAGES), BOXES, VIEWS * 0 - 1, model.shared_weight()) == []


def test_pairs_leave_the_step_as_it_is():
    ends = []
    for pairs in (False, True):
        model = network()
        probe = Probe(model, 20, 1, model.shared_weight() if pairs else None)
        train_step(model, IMAGES, BOXES, VIEWS, GradNorm([1.0, 1.0]), Fabric(accelerator="cpu"), probe)
        assert bool(probe.pairs) == pairs
        ends.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
