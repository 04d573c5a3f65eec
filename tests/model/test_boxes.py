import pytest
import torch

from gradlib.model.boxes import (
    complete_iou,
    cxcywh_to_xyxy,
    non_maximum_suppression,
    pairwise_iou,
    xyxy_to_cxcywh,
)


def test_formats_are_each_others_inverse():
    boxes = torch.tensor([[3.0, 4.0, 2.0, 6.0]])
    assert cxcywh_to_xyxy(boxes).tolist() == [[2, 1, 4, 7]]
    assert xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)).tolist() == boxes.tolist()


def test_iou_by_hand():
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 0, 0]])
    b = torch.tensor([[1.0, 0, 3, 2], [5, 5, 6, 6]])
    # 2x2 and 2x2 share 1x2: 2 / (4 + 4 - 2). The box without area overlaps nothing.
    assert pairwise_iou(a, b).flatten().tolist() == pytest.approx([1 / 3, 0, 0, 0])


def test_complete_iou_by_hand():
    box = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    assert complete_iou(box, box).item() == pytest.approx(1, abs=1e-4)
    # Two unit squares, centres 2 apart: IoU 0, rho^2 = 4, the box around both is 3 x 1, c^2 = 10.
    a, b = torch.tensor([[0.5, 0.5, 1, 1]]), torch.tensor([[2.5, 0.5, 1, 1]])
    assert complete_iou(a, b).item() == pytest.approx(-4 / 10, abs=1e-5)
    # Same centre, 2x1 in 1x2: IoU = 1/3; v = 4/pi^2 (atan 2 - atan 1/2)^2; weight v / (1 - IoU + v).
    a, b = torch.tensor([[0.0, 0, 2, 1]]), torch.tensor([[0.0, 0, 1, 2]])
    v = 4 / torch.pi**2 * (torch.atan(torch.tensor(2.0)) - torch.atan(torch.tensor(0.5))).item() ** 2
    assert complete_iou(a, b).item() == pytest.approx(1 / 3 - v * v / (2 / 3 + v), abs=1e-5)


def greedy(boxes, iou):
    """The boxes that stay, best first, by the textbook's loop."""
    left, stay = list(range(len(boxes))), []
    while left:
        stay.append(left.pop(0))
        left = [i for i in left if pairwise_iou(boxes[stay[-1:]], boxes[i : i + 1]) <= iou]
    return stay


def test_suppression_is_the_greedy_one():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(4, 60, 2, generator=generator)
    boxes = torch.cat((corners, corners + 0.05 + 0.3 * torch.rand(4, 60, 2, generator=generator)), -1)
    scores = torch.rand(4, 60, generator=generator).sort(descending=True).values
    scores[2, 30:] = 0  # padding
    kept = non_maximum_suppression(boxes, scores, 0.4)
    for image in range(4):
        real = int((scores[image] > 0).sum())
        stay = greedy(boxes[image, :real], 0.4)
        assert kept[image].nonzero().flatten().tolist() == stay
        assert 0 < len(stay) < real


def test_a_suppressed_box_does_not_suppress():
    # Three boxes in a row, each overlapping its neighbour: the middle one goes, the third stays.
    boxes = torch.tensor([[[0.0, 0, 4, 4], [1, 0, 5, 4], [2, 0, 6, 4]]])
    assert non_maximum_suppression(boxes, torch.tensor([[0.9, 0.8, 0.7]]), 0.5).tolist() == [
        [True, False, True]
    ]
