"""From image files to square uint8 tensors, with the boxes moved along."""

import hashlib
import io
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from gradlib.data.faults import Fault
from gradlib.data.files import UnreadableFile, one_line, read_bytes

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")  # others start programs, or are no frames
Image.init()  # without it, Pillow opens the commonest of them only
MAX_FILE_BYTES = 2**28
CACHE_BYTES = 2**31  # of decoded frames that are kept
MAX_PIXELS = 50_000_000  # as RGB 150 MB
MIN_SIDE, MAX_ASPECT = 4, 20  # pixels; beyond them a frame shows nothing


def read_rgb(path: Path, within: Path | None = None) -> tuple[Image.Image, list[Fault], str]:
    """An image file as RGB, what is to be noted about it, and the SHA-256 of its bytes.

    within: the folder that it must lie in. Raises UnreadableFile. Grey is repeated, transparency shows black,
    more than 8 bits are reduced to 8, of several frames the first is taken. The image is turned as its EXIF
    data says: labels are drawn on what is seen, and YOLOv5 trains on that.
    """
    raw = read_bytes(path, MAX_FILE_BYTES, within)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters of what Pillow says is looked at here
            with Image.open(io.BytesIO(raw), formats=FORMATS) as opened:
                image, notes = _to_rgb(opened)
    except Exception as error:  # a damaged file makes a decoder raise anything
        unknown = isinstance(error, UnidentifiedImageError)
        reason = f"none of {' '.join(FORMATS)}" if unknown else one_line(error) or type(error).__name__
        raise UnreadableFile(path, f"cannot be decoded ({reason})", "replace or remove it") from None
    return image, notes, hashlib.sha256(raw).hexdigest()


def _to_rgb(image: Image.Image) -> tuple[Image.Image, list[Fault]]:
    notes, size = [], f"{image.width} x {image.height}"
    if image.width * image.height > MAX_PIXELS:  # the header says so; nothing is decoded
        raise ValueError(f"{size} pixels, at most {MAX_PIXELS:,} are read")
    if getattr(image, "is_animated", False):
        notes.append(Fault("an image of several frames, the first was read"))
    orientation = 1
    with suppress(Exception):  # damaged EXIF data says nothing of the pixels
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    image.load()  # turns a TIFF
    if orientation in range(2, 9):
        notes.append(Fault("an image that its EXIF data turns", f"orientation {orientation}"))
        image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        notes.append(Fault("an image of more than 8 bits a channel", image.mode))
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    if min(image.size) < MIN_SIDE or max(image.size) > MAX_ASPECT * min(image.size):
        notes.append(Fault("an image of hardly any pixels, once letterboxed", size))
    return image.convert("RGB"), notes


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey levels as 0-255, of the least usual range that holds them all; `convert` would cut them."""
    values = np.asarray(image, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not finite numbers")
    highest = values.max()
    tops = [top for top in (1, 2**8 - 1, 2**16 - 1, 2**32 - 1) if top > 1 or image.mode == "F"]
    top = next((top for top in tops if highest <= top), highest)
    return Image.fromarray(np.rint(values.clip(0) * 255 / top).astype(np.uint8))


def _placing(width: int, height: int, size: int) -> tuple[list[int], list[int]]:
    """In pixels of the square: (width, height) of the image twice, and its place (x, y, 0, 0)."""
    scale = size / max(width, height)
    inner = [max(1, round(side * scale)) for side in (width, height)]
    return inner * 2, [(size - inner[0]) // 2, (size - inner[1]) // 2, 0, 0]


def letterbox(image: Image.Image, size: int) -> torch.Tensor:
    """An RGB image centred on a black square, aspect kept: uint8 [3, size, size]."""
    (width, height, *_), (x, y, *_) = _placing(*image.size, size)
    square = np.zeros((size, size, 3), np.uint8)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)  # antialiased by Pillow
    square[y : y + height, x : x + width] = np.asarray(resized)
    return torch.from_numpy(square).permute(2, 0, 1).contiguous()


def letterbox_boxes(boxes: np.ndarray, width: int, height: int, size: int) -> np.ndarray:
    """Boxes [N, ... cx, cy, w, h], 0-1 of a `width` x `height` image, as 0-1 of the square."""
    boxes, (inner, place) = np.array(boxes, np.float32), _placing(width, height, size)
    boxes[:, -4:] = (boxes[:, -4:] * inner + place) / size
    return boxes


def unletterbox_boxes(boxes: np.ndarray, width: int, height: int, size: int) -> np.ndarray:
    """The inverse of `letterbox_boxes`: back to 0-1 of the `width` x `height` image, cut at its border."""
    boxes, (inner, place) = np.array(boxes, np.float32), _placing(width, height, size)
    centre, sides = np.split((boxes[:, -4:] * size - place) / inner, 2, axis=1)
    low, high = ((centre + sign * sides / 2).clip(0, 1) for sign in (-1, 1))
    boxes[:, -4:] = np.hstack(((low + high) / 2, high - low))
    return boxes


class FrameSet(torch.utils.data.Dataset):
    """Letterboxed frames; all are decoded once if they fit `cache_bytes`, else each when asked for.

    Item i is (image uint8 [3, S, S], boxes float32 [n, 5]: class, cx, cy, w, h in 0-1 of the square, view,
    i). `sizes` int [N, 2] holds the original (width, height), for `unletterbox_boxes`. What `read_dataset`
    has decoded is not decoded again. A file that cannot be read raises UnreadableFile.
    """

    def __init__(self, frames: Sequence, size: int, cache_bytes: float = CACHE_BYTES):
        self.frames, self.size = list(frames), size
        cached = len(self.frames) * 3 * size**2 <= cache_bytes
        quiet = len(self.frames) <= 500 or not cached
        self.squares, sizes = [], []  # squares: None where it is decoded when asked for
        for frame in tqdm(self.frames, "reading images", disable=quiet):
            square, original = frame.square, frame.size
            if square is None or square.shape[1] != size:
                image = read_rgb(frame.image)[0] if cached or original is None else None
                square = letterbox(image, size) if cached else None
                original = original or image.size
            self.squares.append(square)
            sizes.append(original)
        self.sizes = np.array(sizes, int).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
        frame, square = self.frames[i], self.squares[i]
        image = letterbox(read_rgb(frame.image)[0], self.size) if square is None else square
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
