"""The rows of one label file: boxes, and the one-hot row that names the view of the whole image."""

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradlib.data.data_yaml import MAX_NAMES
from gradlib.data.faults import Fault, Problem, unreadable_is_fault
from gradlib.data.files import read_text

__all__ = ["MIN_SIDE", "TOLERANCE", "Labels", "OneHot", "parse", "read_label_text", "views_of"]

MAX_FILE_BYTES = 2**20
TOLERANCE = 1e-3  # how far, in image widths, a number may lie outside 0-1 and merely be rounded
MIN_SIDE = 1e-6  # side of a box in image widths: less is no area, and float32 could not hold where it is
# Not all that float() takes: it reads 1_0 as ten, and the digits of every script.
NUMBER = re.compile(r"[+-]?((\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|nan|inf|infinity)", re.ASCII | re.IGNORECASE)
MAX_NUMBER_LENGTH = 64  # characters; to read one of a million takes minutes


@dataclass(frozen=True)
class OneHot:
    """A one-hot row: the index of its 1 (-1 when it has not exactly one) and how long it is."""

    index: int
    length: int
    line: int
    value: str


@dataclass(frozen=True)
class Labels:
    """One label file: boxes float32 [N, 5] (class, cx, cy, w, h in 0-1), its one-hot row if any."""

    boxes: np.ndarray
    one_hot: OneHot | None
    problems: tuple[Problem, ...]


def read_label_text(path: Path, within: Path) -> str:
    """The text of a label file in the folder `within`. Raises Fault."""
    with unreadable_is_fault("a label file"):
        text = read_text(path, MAX_FILE_BYTES, within)
    if "\0" in text:  # UTF-16 without a byte order mark, or no text at all
        raise Fault("a label file that is not UTF-8 text", "save it as UTF-8", "NUL bytes")
    return text


def parse(text: str, file: str, classes: int, views: int | None = None) -> Labels:
    """Read the text of a label file; a faulty row becomes a `Problem` and is left out.

    A row is a box (class cx cy w h), a polygon (class x1 y1 x2 y2 x3 y3 ..., its bounding box is
    taken) or the one-hot row. Zeros and exactly one 1 are always the one-hot row, whatever their
    number: read as a box or a polygon such a row has no area, so no legal box is lost.

    `classes` is the number of detection classes, `views` that of the views where it is known.
    """
    lines = enumerate(re.split(r"\r\n|\r|\n", text), 1)
    rows = [(line, row.strip(" \t")) for line, row in lines if row.strip(" \t")]
    boxes, one_hots, problems = {}, [], []
    for position, (line, row) in enumerate(rows):
        try:
            numbers = _numbers(row)
            if _is_one_hot(numbers):
                one_hots.append(OneHot(numbers.index(1), len(numbers), line, row))
                if len(one_hots) > 1:
                    raise Fault("a second one-hot row", "keep one")
            elif _meant_as_one_hot(numbers, position == len(rows) - 1, views):
                one_hots.append(OneHot(-1, len(numbers), line, row))
                raise Fault("not a one-hot row", "write one 1 and otherwise zeros")
            else:
                box, reaches_outside = _box(numbers, classes)
                if box in boxes:
                    raise Fault("the same box twice", f"remove the row, line {boxes[box]} has it")
                boxes[box] = line
                if reaches_outside:
                    raise Fault("a box that reaches outside the image", "cut at the border")
        except Fault as fault:
            problems.append(Problem(file, line, row, fault.what, fault.cure))
    one_hot = one_hots[0] if one_hots else None
    if len({(row.index, row.length) for row in one_hots}) > 1:  # which of them holds is unknown
        one_hot = OneHot(-1, one_hot.length, one_hot.line, one_hot.value)
    return Labels(np.array(list(boxes), np.float32).reshape(-1, 5), one_hot, tuple(problems))


def _numbers(row: str) -> list[float]:
    if "," in row or ";" in row:
        raise Fault("numbers not separated by spaces", "put spaces between, a point for decimals")
    words = re.split("[ \t]+", row)
    if not all(len(word) <= MAX_NUMBER_LENGTH and NUMBER.fullmatch(word) for word in words):
        raise Fault("not a number", "write numbers only, with digits 0 to 9")
    numbers = [float(word) for word in words]
    if not all(map(math.isfinite, numbers)):
        raise Fault("not a finite number", "write finite numbers only")
    return numbers


def _is_one_hot(numbers: list[float]) -> bool:
    zeros = numbers.count(0)
    return numbers.count(1) == 1 and zeros == len(numbers) - 1 and len(numbers) <= MAX_NAMES


def _meant_as_one_hot(numbers: list[float], last: bool, views: int | None) -> bool:
    """Whether a row that is not one-hot stands where, or looks as, a one-hot row would."""
    box_shaped = len(numbers) >= 5 and len(numbers) % 2 == 1
    binary = all(number in (0, 1) for number in numbers)
    as_long_as_views = len(numbers) == (views or 3)
    return (not box_shaped and (binary or (last and as_long_as_views))) or len(numbers) == 3


def _box(numbers: list[float], classes: int) -> tuple[tuple[float, ...], bool]:
    """(class, cx, cy, w, h), and whether it had to be cut at the border of the image."""
    if len(numbers) != 5 and (len(numbers) < 7 or len(numbers) % 2 == 0):
        cure = "write class cx cy w h, or class and three or more corners x y"
        raise Fault("neither a box, a polygon nor a one-hot row", cure)
    index, *place = numbers
    if not index.is_integer():
        raise Fault("a class index that is not an integer", f"write 0 to {classes - 1}")
    if not 0 <= index < classes:
        raise Fault("an unknown class index", f"write 0 to {classes - 1} or add to names")
    if min(place) < -TOLERANCE or max(place) > 1 + TOLERANCE:
        raise Fault("coordinates outside 0-1", "divide by the width and height of the image")
    if len(numbers) == 5:
        cx, cy, w, h = place
        corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    else:
        xs, ys = place[::2], place[1::2]
        corners = (min(xs), min(ys), max(xs), max(ys))
    reaches_outside = min(corners) < -TOLERANCE or max(corners) > 1 + TOLERANCE
    left, top, right, bottom = (min(max(corner, 0.0), 1.0) for corner in corners)
    if min(right - left, bottom - top) < MIN_SIDE or (len(numbers) == 5 and min(place[2:]) <= 0):
        raise Fault("a box without area", "remove the row or mend its width and height")
    if len(numbers) == 5 and corners == (left, top, right, bottom):
        return tuple(numbers), False  # as written, to the last digit
    return (index, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top), reaches_outside


def views_of(
    rows: list[tuple[str | None, OneHot | None]], names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], list[int], list[Problem]]:
    """The views, the view of each (file, one-hot row) by index (-1 = has none), what is wrong.

    Without `names` there are as many views as most rows are long, called "view 1", "view 2", ...;
    without any one-hot row there are none, and nothing is wrong. `file` is None where there is no
    label file.
    """
    lengths = Counter(row.length for _, row in rows if row and row.index >= 0)
    if names is None:
        length = max(lengths, key=lambda length: (lengths[length], length), default=0)
        names = tuple(f"view {number}" for number in range(1, length + 1))
    indices, problems = [], []
    for file, row in rows:
        if row is None and names and file:
            cure = f"add a row of {len(names)} numbers, or it trains detection only"
            problems.append(Problem(file, None, "", "no one-hot row", cure))
        elif row and row.index >= 0 and row.length != len(names):
            cure = f"write {len(names)} numbers, or mend image_classes in data.yaml"
            what = "a one-hot row of another length than there are views"
            problems.append(Problem(file, row.line, row.value, what, cure))
        indices.append(row.index if row and row.length == len(names) else -1)
    return names, indices, problems
