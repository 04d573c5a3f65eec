"""Augmentation that keeps the labels of colour-Doppler frames true.

No flip (a mirrored frame is another anatomy), no hue shift (hue is the direction of flow), no mosaic (its
image would have several views). The rest is what an ultrasound probe does between two frames: it turns,
moves, changes depth and gain, and the speckle changes.
"""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from gradlib.model.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh

ROTATION = 8.0  # degrees either way
SHIFT = 0.08  # of the image's side, either way
SCALE = (0.85, 1.15)
GAIN = (0.8, 1.25)  # a factor on every pixel of an image: black stays black
SPECKLE = 0.08  # standard deviation of a factor on every pixel
MIN_VISIBLE = 0.25  # a box stays if at least this part of its area is inside the image


@torch.no_grad()
def augment(images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Images [B, 3, S, S] in 0-1 and boxes [M, 6] (image, class, cx, cy, w, h) -> the same, moved.

    All random numbers are drawn on the images' device, so that the host need not wait for them.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(len(images), *shape, device=images.device).uniform_(low, high)

    angle, scale = uniform(-ROTATION, ROTATION).deg2rad(), uniform(*SCALE)
    shift, gain = uniform(-SHIFT, SHIFT, 2), uniform(*GAIN, 1, 1, 1)
    turn = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), -1).view(-1, 2, 2)
    back = turn.mT / scale[:, None, None]  # where a pixel comes from, in -1 to 1
    grid = affine_grid(torch.cat((back, back @ shift[..., None] * -2), -1), images.shape, align_corners=False)
    moved = grid_sample(images, grid, align_corners=False)
    speckle = 1 + SPECKLE * torch.randn_like(moved[:, :1])
    moved = (moved * gain).clamp(0, 1).mul_(speckle).clamp_(0, 1)
    moved = moved.contiguous(memory_format=torch.channels_last)
    return moved, move_boxes(boxes, turn * scale[:, None, None], shift)


def move_boxes(boxes: Tensor, maps: Tensor, shift: Tensor) -> Tensor:
    """Boxes [M, 6] under each image's map [B, 2, 2] around its centre and shift [B, 2], cut to the image.

    A jet fills the ellipse in its box rather than the corners, so a turned box is the upright one around the
    turned ellipse: around its corners, labels would be 1.15 times as large at 8 degrees. Of a box that is
    mostly outside, width and height are 0: it is nobody's.
    """
    owner = boxes[:, 0].long()
    maps, middle = maps[owner], shift[owner] + 0.5
    centre = (maps @ (boxes[:, 2:4, None] - 0.5))[..., 0] + middle
    sides = (maps.square() @ boxes[:, 4:6, None].square())[..., 0].sqrt()
    cut = xyxy_to_cxcywh(cxcywh_to_xyxy(torch.cat((centre, sides), -1)).clamp(0, 1))
    stays = cut[:, 2] * cut[:, 3] > MIN_VISIBLE * sides[:, 0] * sides[:, 1]
    return torch.cat((boxes[:, :2], cut[:, :2], cut[:, 2:] * stays[:, None]), -1)
