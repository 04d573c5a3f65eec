"""Augmentation that keeps the labels of colour-Doppler frames true.

No flip (a mirrored frame is another anatomy), no hue shift (hue is the direction of flow), no mosaic (its
image would have several views). The rest is what an ultrasound probe does between two frames: it turns,
moves, changes depth and gain, and the speckle changes.
"""

import torch
from kornia.augmentation import AugmentationSequential, RandomAffine, RandomContrast
from torch import Tensor, nn

from gradlib.model.boxes import xyxy_to_cxcywh

ROTATION = 8.0  # degrees either way
SHIFT = 0.08  # of the image's side, either way
SCALE = (0.85, 1.15)
GAIN = (0.8, 1.25)  # a factor on every pixel of an image
SPECKLE = 0.08  # standard deviation of a factor on every pixel
MIN_VISIBLE = 0.25  # a box stays if at least this part of its area is inside the image


class Augmentation(nn.Module):
    """Images [B, 3, S, S] in 0-1 and boxes [M, 6] (image, class, cx, cy, w, h) -> the same, moved."""

    def __init__(self):
        super().__init__()
        self.sequence = AugmentationSequential(
            RandomAffine(ROTATION, (SHIFT, SHIFT), SCALE, p=1.0),
            RandomContrast(GAIN, p=1.0),  # kornia's contrast is a factor: black stays black
            data_keys=["input"],
        )

    @torch.no_grad()
    def forward(self, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        images = self.sequence(images)
        images = (images * (1 + SPECKLE * torch.randn_like(images[:, :1]))).clamp(0, 1)
        return images, move_boxes(boxes, self.sequence.transform_matrix, images.shape[-1])


def move_boxes(boxes: Tensor, matrices: Tensor, side: int) -> Tensor:
    """Boxes [M, 6] under each image's affine map [B, 3, 3] of pixels: the upright box around the four moved
    corners, cut to the image, without the boxes that are mostly outside."""
    image = boxes[:, 0].long()
    half = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], device=boxes.device) / 2
    corners = boxes[:, None, 2:4] + half * boxes[:, None, 4:6]  # [M, 4, 2]
    corners = torch.cat((corners * side, torch.ones_like(corners[..., :1])), -1)
    moved = (corners @ matrices[image].transpose(1, 2))[..., :2] / side  # [M, 4, 2]
    whole = torch.cat((moved.amin(1), moved.amax(1)), -1)  # [M, 4] corners
    cut = whole.clamp(0, 1)
    area, area_cut = ((c[:, 2:] - c[:, :2]).prod(-1) for c in (whole, cut))
    return torch.cat((boxes[:, :2], xyxy_to_cxcywh(cut)), -1)[area_cut > MIN_VISIBLE * area]
