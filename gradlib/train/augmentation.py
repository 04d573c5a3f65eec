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
    """Boxes [M, 6] under each image's affine map [B, 3, 3] of pixels, cut to the image.

    A jet fills the ellipse in its box rather than the corners, so a turned box is the upright one around the
    turned ellipse: around its corners, labels would be 1.15 times as large at 8 degrees. Of a box that is
    mostly outside, width and height are 0: it is nobody's.
    """
    maps = matrices[boxes[:, 0].long()]  # [M, 3, 3]
    centre = (maps[:, :2, :2] @ boxes[:, 2:4, None])[..., 0] + maps[:, :2, 2] / side
    half = (maps[:, :2, :2].square() @ (boxes[:, 4:6, None] / 2).square())[..., 0].sqrt()
    whole = torch.cat((centre - half, centre + half), -1)  # [M, 4] corners
    cut = xyxy_to_cxcywh(whole.clamp(0, 1))
    stays = cut[:, 2:].prod(-1) > MIN_VISIBLE * 4 * half.prod(-1)
    return torch.cat((boxes[:, :2], cut[:, :2], cut[:, 2:] * stays[:, None]), -1)
