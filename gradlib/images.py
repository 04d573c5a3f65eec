"""From image files to square uint8 tensors, with the boxes moved along."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

__all__ = [
    "FrameSet",
    "collate",
    "letterbox",
    "letterbox_boxes",
    "load_images",
    "open_rgb",
    "unletterbox_boxes",
]


def open_rgb(path: Path) -> Image.Image:
    """The image as RGB: grey is repeated, transparency shows black, 16 bits are reduced to 8."""
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":  # convert() would cut everything above 255 to white
                values = np.asarray(image, np.float32)
                values = values / 257 if values.max() > 255 else values
                image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                black = Image.new("RGBA", image.size, (0, 0, 0, 255))
                image = Image.alpha_composite(black, image)
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path}: cannot be decoded ({error}); replace or remove it") from None


def _placing(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Width and height in pixels of the image inside the square, and the padding before them."""
    scale = size / max(width, height)
    inner_width, inner_height = (max(1, round(side * scale)) for side in (width, height))
    return inner_width, inner_height, (size - inner_width) // 2, (size - inner_height) // 2


def letterbox(image: Image.Image, size: int) -> tuple[np.ndarray, float, tuple[int, int]]:
    """An RGB image centred on a black square, aspect kept.

    Returns uint8 [size, size, 3], the scale, and the padding (x, y) in pixels.
    """
    width, height, pad_x, pad_y = _placing(*image.size, size)
    square = np.zeros((size, size, 3), np.uint8)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)  # antialiased by Pillow
    square[pad_y : pad_y + height, pad_x : pad_x + width] = np.asarray(resized)
    return square, size / max(image.size), (pad_x, pad_y)


def letterbox_boxes(boxes: np.ndarray, width: int, height: int, size: int) -> np.ndarray:
    """Boxes [N, ... cx, cy, w, h], 0-1 of a `width` x `height` image, as 0-1 of the square."""
    inner_width, inner_height, pad_x, pad_y = _placing(width, height, size)
    boxes = np.array(boxes, np.float32)
    inner = [inner_width, inner_height, inner_width, inner_height]
    boxes[:, -4:] = (boxes[:, -4:] * inner + [pad_x, pad_y, 0, 0]) / size
    return boxes


def unletterbox_boxes(boxes: np.ndarray, width: int, height: int, size: int) -> np.ndarray:
    """The inverse of `letterbox_boxes`: back to 0-1 of the `width` x `height` image."""
    inner_width, inner_height, pad_x, pad_y = _placing(width, height, size)
    boxes = np.array(boxes, np.float32)
    inner = [inner_width, inner_height, inner_width, inner_height]
    boxes[:, -4:] = (boxes[:, -4:] * size - [pad_x, pad_y, 0, 0]) / inner
    return boxes


class FrameSet(torch.utils.data.Dataset):
    """Letterboxed frames; all are decoded once if they fit `cache_bytes`, else each when asked for.

    Item i is (image uint8 [3, S, S], boxes float32 [n, 5]: class, cx, cy, w, h in 0-1 of the
    square, view, i). `sizes` int [N, 2] holds the original (width, height), for
    `unletterbox_boxes`. A file that cannot be decoded raises a ValueError that names it.
    """

    def __init__(self, frames: Sequence, size: int, cache_bytes: float = 2**31):
        self.frames, self.size = list(frames), size
        self.sizes = np.zeros((len(self.frames), 2), int)
        self.images = None  # uint8 [N, 3, S, S] when cached
        cached = len(self.frames) * 3 * size * size <= cache_bytes
        if cached:
            self.images = torch.empty(len(self.frames), 3, size, size, dtype=torch.uint8)
        quiet = len(self.frames) <= 500 or not cached
        for i in tqdm(range(len(self.frames)), "reading images", disable=quiet):
            if cached:
                self.images[i], self.sizes[i] = self._decode(i)
            else:
                with Image.open(self.frames[i].image) as image:
                    self.sizes[i] = image.size

    def _decode(self, i: int) -> tuple[torch.Tensor, tuple[int, int]]:
        image = open_rgb(self.frames[i].image)
        square, _, _ = letterbox(image, self.size)
        return torch.from_numpy(square).permute(2, 0, 1).contiguous(), image.size  # [3, S, S]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
        image = self._decode(i)[0] if self.images is None else self.images[i]
        frame = self.frames[i]
        boxes = letterbox_boxes(frame.boxes, *self.sizes[i].tolist(), self.size)
        return image, torch.from_numpy(boxes), frame.view, i


def load_images(frames: Sequence, size: int) -> torch.Tensor:
    """All frames letterboxed in memory: uint8 [N, 3, size, size]."""
    return FrameSet(frames, size, math.inf).images


def collate(batch: Sequence) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Items of a `FrameSet` as one batch.

    Images uint8 [B, 3, S, S]; boxes float32 [M, 6] (image in batch, class, cx, cy, w, h); views
    int64 [B] (-1 = none); indices int64 [B].
    """
    images, boxes, views, indices = zip(*batch, strict=True)
    owners = torch.repeat_interleave(torch.tensor([len(own) for own in boxes]))
    boxes = torch.cat([owners[:, None].to(torch.float32), torch.cat(boxes)], 1)  # [M, 6]
    return torch.stack(images), boxes, torch.tensor(views), torch.tensor(indices)
