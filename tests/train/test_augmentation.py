import pytest
import torch

from gradlib.train.augmentation import augment, move_boxes

STILL = torch.eye(2)[None]  # no turn


def test_a_shift_by_hand():
    boxes = torch.tensor([[0, 2, 0.5, 0.5, 0.2, 0.4]])
    moved = move_boxes(boxes, STILL, torch.tensor([[0.1, -0.2]]))
    assert moved.flatten().tolist() == pytest.approx([0, 2, 0.6, 0.3, 0.2, 0.4])


def test_a_box_is_cut_at_the_border_and_dropped_when_little_is_left():
    boxes = torch.tensor([[0, 2, 0.5, 0.5, 0.2, 0.4]])
    # 0.4 to the right: half of the width is outside.
    moved = move_boxes(boxes, STILL, torch.tensor([[0.5, 0]]))
    assert moved[0].tolist() == pytest.approx([0, 2, 0.95, 0.5, 0.1, 0.4])
    assert not move_boxes(boxes, STILL, torch.tensor([[0.56, 0]]))[0, 4:].any()


def test_a_turned_box_is_around_the_ellipse_in_it():
    angle = torch.tensor(30.0).deg2rad()
    c, s = angle.cos(), angle.sin()
    turn = torch.stack((c, -s, s, c)).view(2, 2)
    around = torch.linspace(0, 2 * torch.pi, 1001)
    ellipse = torch.stack((0.2 * around.cos(), 0.1 * around.sin()))  # [2, N], of a box of 0.4 x 0.2
    width, height = (2 * (turn @ ellipse).amax(1)).tolist()
    moved = move_boxes(torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.2]]), turn[None], torch.zeros(1, 2))
    assert moved[0].tolist() == pytest.approx([0, 1, 0.5, 0.5, width, height], abs=1e-5)


def test_the_box_follows_the_pixels():
    torch.manual_seed(0)
    images = torch.zeros(6, 3, 96, 96)
    y, x = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    images[:, :, ((x - 55) / 20).square() + ((y - 45) / 10).square() < 1] = 1  # what fills its box
    boxes = torch.tensor([[i, 0, 55 / 96, 45 / 96, 40 / 96, 20 / 96] for i in range(6)])
    moved_images, moved = augment(images, boxes)
    assert len(moved) == 6
    for image, box in zip(moved_images, moved, strict=True):
        y, x = (image[0] > 0.3).nonzero(as_tuple=True)
        seen = [x.min() / 96, y.min() / 96, (x.max() + 1) / 96, (y.max() + 1) / 96]
        cx, cy, w, h = box[2:].tolist()
        assert [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2] == pytest.approx(
            [float(v) for v in seen], abs=2 / 96
        )
    assert (moved[:, 2:] - boxes[:, 2:]).abs().max() > 0.02  # it does move


def test_nothing_is_mirrored_and_no_colour_turned():
    torch.manual_seed(0)
    images = torch.zeros(8, 3, 64, 64)
    images[:, 0, :, :32], images[:, 2, :, 32:] = 1, 1  # red left, blue right
    moved, _ = augment(images, torch.zeros(0, 6))
    red, blue = moved[:, 0], moved[:, 2]
    assert (red[:, :, :32].sum((1, 2)) > 4 * red[:, :, 32:].sum((1, 2))).all()
    assert (blue[:, :, 32:].sum((1, 2)) > 4 * blue[:, :, :32].sum((1, 2))).all()
    assert not moved[:, 1].any() and moved.min() >= 0 and moved.max() <= 1  # black stays black
