import math

import pytest
import torch

from gradlib.model.losses import BOX_GAIN, SCALE, assign, classification_loss, detection_loss, view_weights
from gradlib.model.yolo import ANCHORS

ANCHOR = torch.tensor(ANCHORS, dtype=torch.float32)
SHAPES = ((8, 8), (4, 4), (2, 2))  # of a 64 px image


def silence(batch=1, classes=2):
    """Raw predictions that say "nothing here" everywhere."""
    raw = [torch.zeros(batch, 3, h, w, 5 + classes) for h, w in SHAPES]
    for level in raw:
        level[..., 4] = -20
    return raw


def test_assignment_by_hand():
    # In an 8x8 map the centre (2.3, 5.8): its cell, the one to the left (0.3 < 0.5), the one below.
    boxes = torch.tensor([[0, 1, 2.3 / 8, 5.8 / 8, 2 / 8, 2 / 8]])
    y, x, learns = assign(boxes, torch.tensor([[2.0, 2.0], [9.0, 2.0]]), (8, 8))
    assert learns.any(2).tolist() == [[True, False]]  # 9 / 2 is more than 4
    cells = zip(x[learns[:, 0]].tolist(), y[learns[:, 0]].tolist(), strict=True)
    assert sorted(cells) == [(1, 5), (2, 5), (2, 6)]


def test_assignment_stays_inside_the_map():
    corner = torch.tensor([[0, 0, 0.01, 0.99, 0.2, 0.2]])
    y, x, learns = assign(corner, torch.tensor([[1.0, 1.0]]), (8, 8))
    assert (x[learns[:, 0]].tolist(), y[learns[:, 0]].tolist()) == ([0], [7])


def test_a_box_without_area_is_learnt_nowhere():
    outside = torch.tensor([[0, 0, 0.5, 0.5, 0.0, 0.0]])
    assert not assign(outside, ANCHOR[0] / 8, (8, 8))[2].any()
    raw = [level.requires_grad_() for level in silence()]
    loss, _ = detection_loss(raw, ANCHOR, outside)
    assert loss.item() == detection_loss(raw, ANCHOR, torch.zeros(0, 6))[0].item()
    loss.backward()
    assert all(level.grad.isfinite().all() for level in raw)


def test_an_exact_prediction_has_no_box_loss():
    # The P3 anchor 16x30 at the centre of cell (4, 4): raw zeros say exactly that box.
    boxes = torch.tensor([[0, 1, 36 / 64, 36 / 64, 16 / 64, 30 / 64]])
    raw = silence()
    _, off = detection_loss(raw, ANCHOR, boxes)
    only = [ANCHOR[0, 1:2].repeat(3, 1), torch.full((3, 2), 1e-3), torch.full((3, 2), 1e-3)]
    _, parts = detection_loss(raw, torch.stack(only), boxes)
    assert parts["box"].item() == pytest.approx(0, abs=1e-4)
    assert off["box"] > 0.1  # the published anchors also claim it at other sizes and levels


def test_box_loss_by_hand():
    # One anchor of twice the width: CIoU = 1/2 - v^2 / (1/2 + v), v = 4/pi^2 (atan 1 - atan 1/2)^2.
    boxes = torch.tensor([[0, 0, 36 / 64, 36 / 64, 16 / 64, 16 / 64]])
    anchors = torch.full((3, 3, 2), 1e-3)
    anchors[0, 0] = torch.tensor([32.0, 16.0])
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(2)) ** 2
    _, parts = detection_loss(silence(), anchors, boxes)
    assert parts["box"].item() == pytest.approx(SCALE * BOX_GAIN * (1 - (0.5 - v * v / (0.5 + v))), rel=1e-4)


def test_an_image_without_boxes_teaches_objectness_only():
    raw = [level.requires_grad_() for level in silence()]
    loss, parts = detection_loss(raw, ANCHOR, torch.zeros(0, 6))
    loss.backward()
    assert parts["box"] == parts["class"] == 0
    for level in raw:
        assert level.grad[..., 4].any()
        assert not level.grad[..., :4].any() and not level.grad[..., 5:].any()


def test_a_better_answer_has_a_lower_loss():
    boxes = torch.tensor([[0, 1, 36 / 64, 36 / 64, 16 / 64, 30 / 64]])
    raw = silence()
    worse, _ = detection_loss(raw, ANCHOR, boxes)
    y, x, learns = assign(boxes, ANCHOR[0] / 8, (8, 8))
    _, a, near = learns.nonzero(as_tuple=True)
    y, x = y[0, near], x[0, near]
    raw[0][0, a, y, x, 4] = 5
    raw[0][0, a, y, x, 6] = 5
    better, parts = detection_loss(raw, ANCHOR, boxes)
    assert better < worse
    raw[0][0, a, y, x, 5:] = torch.tensor([5.0, -5.0])  # the other class
    assert detection_loss(raw, ANCHOR, boxes)[1]["class"] > parts["class"]


def test_the_order_of_boxes_does_not_matter():
    generator = torch.Generator().manual_seed(0)
    raw = [torch.randn(2, 3, h, w, 7, generator=generator) for h, w in SHAPES]
    boxes = torch.cat(
        (
            torch.tensor([[0.0, 1], [0, 0], [1, 1], [1, 0]]),
            torch.rand(4, 2, generator=generator),
            torch.full((4, 2), 0.3),
        ),
        1,
    )
    loss, _ = detection_loss(raw, ANCHOR, boxes)
    assert detection_loss(raw, ANCHOR, boxes.flip(0))[0].item() == pytest.approx(loss.item(), rel=1e-5)


def test_classification_ignores_images_without_a_view():
    logits = torch.tensor([[2.0, 0.0], [5.0, -5.0]], requires_grad=True)
    loss = classification_loss(logits, torch.tensor([0, -1]), torch.ones(2))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))
    loss.backward()
    assert not logits.grad[1].any()


def test_classification_of_a_batch_without_any_view_is_zero():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = classification_loss(logits, torch.tensor([-1, -1]), torch.ones(3))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_a_view_counts_by_its_weight():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    loss = classification_loss(logits, torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert loss.item() == pytest.approx((right + 3 * wrong) / 4)


def test_view_weights_by_hand():
    views = [0] * 1 + [1] * 4 + [-1] * 7
    assert view_weights(views, 2, 0.0).tolist() == [1.0, 1.0]
    assert view_weights(views, 2, 1.0).tolist() == pytest.approx([5 / 2, 5 / 8])
    assert view_weights(views, 2, 0.5).tolist() == pytest.approx([(5 / 2) ** 0.5, (5 / 8) ** 0.5])
    assert view_weights(views, 3, 1.0)[2].isfinite()  # a view that no frame has
    assert view_weights([-1, -1], 2, 0.5).isfinite().all()
