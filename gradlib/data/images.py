"""From image files to square uint8 tensors, with the boxes moved along."""

import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from gradlib.data.faults import Fault, unreadable_is_fault
from gradlib.data.files import read_bytes

__all__ = [
    "CACHE_BYTES",
    "FrameSet",
    "collate",
    "letterbox",
    "letterbox_boxes",
    "open_rgb",
    "read_rgb",
    "unletterbox_boxes",
]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")  # others start programs, or are no frames
Image.init()  # without it, Pillow opens the commonest of them only
MAX_FILE_BYTES = 2**28
CACHE_BYTES = 2**31  # of decoded frames that are kept
MAX_PIXELS = 50_000_000  # as RGB 150 MB
MIN_SIDE, MAX_ASPECT = 4, 20  # pixels; beyond them a frame shows nothing
TOO_MANY = "an image of too many pixels", f"{MAX_PIXELS:,} at most"


def open_rgb(path: Path, within: Path | None = None) -> Image.Image:
    """The image as `read_rgb` reads it; raises a ValueError that names the file."""
    try:
        return read_rgb(path, within)[0]
    except Fault as fault:
        raise ValueError(f"{path}: cannot be decoded ({fault.value or fault.what}); {fault.cure}") from None


def read_rgb(path: Path, within: Path | None = None) -> tuple[Image.Image, list[Fault], str]:
    """An image file as RGB, what is to be noted about it, and the SHA-256 of its bytes.

    within: the folder that it must lie in. Raises Fault where it cannot be read. Grey is repeated,
    transparency shows black, more than 8 bits are reduced to 8, of several frames the first is taken. The
    image is turned as its EXIF data says: labels are drawn on what is seen, and YOLOv5 trains on that.
    """
    with unreadable_is_fault("an image"):
        raw = read_bytes(path, MAX_FILE_BYTES, within)
    notes = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters of what Pillow says is looked at here
            with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:  # the header says so; nothing is decoded
                    raise Fault(*TOO_MANY, f"{image.width} x {image.height}")
                if getattr(image, "is_animated", False):
                    what = "an image of several frames, the first was read"
                    notes.append(Fault(what, "save each frame as a file"))
                turned = (orientation := _orientation(image)) in range(2, 9)
                if turned:
                    what, cure = "an image that its EXIF data turns", "save it upright, without EXIF data"
                    notes.append(Fault(what, cure, f"orientation {orientation}"))
                image.load()
                image = ImageOps.exif_transpose(image) if turned else image
                if image.mode[0] in "IF":
                    what, cure = "an image of more than 8 bits a channel", "save it with 8 bits"
                    notes.append(Fault(what, cure, image.mode))
                    image = _to_8_bits(image)
                if image.has_transparency_data:
                    image = image.convert("RGBA")
                    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
                    image = Image.alpha_composite(black, image)
                image = image.convert("RGB")
    except Fault:
        raise
    except Image.DecompressionBombError as error:
        raise Fault(*TOO_MANY, str(error)) from None
    except UnidentifiedImageError:
        value = f"none of {' '.join(FORMATS)}"
        raise Fault("not a readable image", "replace or remove it", value) from None
    except Exception as error:  # a damaged file makes a decoder raise anything
        value = " ".join(str(error).split()) or type(error).__name__
        raise Fault("not a readable image", "replace or remove it", value) from None
    if min(image.size) < MIN_SIDE:
        what, cure = "an image of very few pixels", "see whether it is meant"
        notes.append(Fault(what, cure, f"{image.width} x {image.height}"))
    elif max(image.size) > MAX_ASPECT * min(image.size):
        what, cure = "an image of extreme proportions", "crop it: letterboxed, hardly any of it is left"
        notes.append(Fault(what, cure, f"{image.width} x {image.height}"))
    return image, notes, hashlib.sha256(raw).hexdigest()


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data says nothing of the pixels
        return 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey levels as 0-255, of the least usual range that holds them all; `convert` would cut them."""
    values = np.asarray(image, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not finite numbers")
    highest = values.max()
    tops = [top for top in (1, 2**8 - 1, 2**16 - 1, 2**32 - 1) if top > 1 or image.mode == "F"]
    top = next((top for top in tops if highest <= top), highest)
    return Image.fromarray(np.rint(values.clip(0) * 255 / top).astype(np.uint8))


def _placing(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Width and height in pixels of the image inside the square, and the padding before them."""
    scale = size / max(width, height)
    inner_width, inner_height = (max(1, round(side * scale)) for side in (width, height))
    return inner_width, inner_height, (size - inner_width) // 2, (size - inner_height) // 2


def letterbox(image: Image.Image, size: int) -> torch.Tensor:
    """An RGB image centred on a black square, aspect kept: uint8 [3, size, size]."""
    width, height, pad_x, pad_y = _placing(*image.size, size)
    square = np.zeros((size, size, 3), np.uint8)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)  # antialiased by Pillow
    square[pad_y : pad_y + height, pad_x : pad_x + width] = np.asarray(resized)
    return torch.from_numpy(square).permute(2, 0, 1).contiguous()


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

    Item i is (image uint8 [3, S, S], boxes float32 [n, 5]: class, cx, cy, w, h in 0-1 of the square, view,
    i). `sizes` int [N, 2] holds the original (width, height), for `unletterbox_boxes`. What
    `read_dataset` has decoded is not decoded again. A file that cannot be decoded raises a ValueError that
    names it.
    """

    def __init__(self, frames: Sequence, size: int, cache_bytes: float = CACHE_BYTES):
        self.frames, self.size = list(frames), size
        self.sizes = np.zeros((len(self.frames), 2), int)
        self.squares = []  # uint8 [3, S, S] each; None where it is decoded when asked for
        cached = len(self.frames) * 3 * size**2 <= cache_bytes
        quiet = len(self.frames) <= 500 or not cached
        for i, frame in enumerate(tqdm(self.frames, "reading images", disable=quiet)):
            square, self.sizes[i] = frame.square, frame.size or (0, 0)
            if square is None or square.shape[1] != size:
                square = None
                if cached or frame.size is None:
                    image = open_rgb(frame.image)
                    square, self.sizes[i] = letterbox(image, size) if cached else None, image.size
            self.squares.append(square)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
        frame, square = self.frames[i], self.squares[i]
        image = letterbox(open_rgb(frame.image), self.size) if square is None else square
        boxes = letterbox_boxes(frame.boxes, *self.sizes[i].tolist(), self.size)
        return image, torch.from_numpy(boxes), frame.view, i


def collate(batch: Sequence) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Items of a `FrameSet` as one batch.

    Images uint8 [B, 3, S, S]; boxes float32 [M, 6] (image in batch, class, cx, cy, w, h); views
    int64 [B] (-1 = none); indices int64 [B].
    """
    images, boxes, views, indices = zip(*batch, strict=True)
    owners = torch.repeat_interleave(torch.tensor([len(own) for own in boxes]))
    boxes = torch.cat([owners[:, None].to(torch.float32), torch.cat(boxes)], 1)  # [M, 6]
    return torch.stack(images), boxes, torch.tensor(views), torch.tensor(indices)
