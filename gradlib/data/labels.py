"""The rows of one label file: boxes, and the one-hot row that names the view of the whole image."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradlib.data.data_yaml import MAX_NAMES
from gradlib.data.faults import Fault, Problem

TOLERANCE = 1e-3  # how far, in image widths, a number may lie outside 0-1 and merely be rounded
MIN_SIDE = 1e-6  # of a box in image widths: less is no area, and float32 could not hold where it is
# Not all that float() takes: it reads 1_0 as ten, and the digits of every script.
NUMBER = re.compile(r"[+-]?((\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?)", re.ASCII | re.IGNORECASE)
MAX_NUMBER_LENGTH = 64  # characters; to read one of a million takes minutes


class OneHot(NamedTuple):
    """A one-hot row: the index of its 1 (-1 when it has not exactly one) and how long it is."""

    index: int
    length: int
    line: int
    value: str


@dataclass(frozen=True)
class Labels:
    """One label file: boxes float32 [N, 5] (class, cx, cy, w, h in 0-1), its one-hot row if any."""

    file: str  # "" where there is none
    boxes: np.ndarray
    one_hot: OneHot | None
    problems: tuple[Problem, ...]


def parse(text: str, file: str, classes: int, views: int | None = None, keypoints: int = 0) -> Labels:
    """Read the text of a label file; a faulty row becomes a `Problem` and is left out.

    A row is a box (class cx cy w h), a polygon (class x1 y1 x2 y2 x3 y3 ..., its bounding box is
    taken) or the one-hot row. Zeros and exactly one 1 are always the one-hot row, whatever their
    number: read as a box or a polygon such a row has no area, so no legal box is lost.

    classes: how many there are. views: how many, where it is known. keypoints: how many numbers follow a box.
    """
    lines = enumerate(re.split(r"\r\n|\r|\n", text), 1)
    rows = [(line, row.strip(" \t")) for line, row in lines if row.strip(" \t")]
    boxes, one_hots, problems = {}, [], []
    for position, (line, row) in enumerate(rows):
        try:
            numbers = _numbers(row)
            single_one = numbers.count(1) == 1 and numbers.count(0) == len(numbers) - 1
            if single_one and len(numbers) <= MAX_NAMES:
                one_hots.append(OneHot(numbers.index(1), len(numbers), line, row))
                if len(one_hots) > 1:
                    raise Fault("a second one-hot row")
            elif _meant_as_one_hot(numbers, position == len(rows) - 1, views):
                one_hots.append(OneHot(-1, len(numbers), line, row))
                raise Fault("not a one-hot row")
            else:
                has_confidence = len(numbers) == 6 and 0 <= numbers[5] <= 1
                has_keypoints = keypoints and len(numbers) == 5 + keypoints
                own = numbers[:5] if has_confidence or has_keypoints else numbers
                box, reaches_outside = _box(own, classes)
                if box in boxes:
                    raise Fault("the same box twice", first=boxes[box])
                boxes[box] = line
                if has_confidence:
                    raise Fault("a box with a confidence")
                if reaches_outside:
                    raise Fault("a box that reaches outside the image")
        except Fault as fault:
            problems.append(fault.at(file, line, row))
    one_hot = one_hots[0] if one_hots else None
    if len({row[:2] for row in one_hots}) > 1:  # which of them holds is unknown
        one_hot = one_hot._replace(index=-1)
    return Labels(file, np.array(list(boxes), np.float32).reshape(-1, 5), one_hot, tuple(problems))


def _numbers(row: str) -> list[float]:
    words = re.split("[ \t]+", row)
    legal = all(len(word) <= MAX_NUMBER_LENGTH and NUMBER.fullmatch(word) for word in words)
    numbers = [float(word) for word in words] if legal else [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise Fault("not all finite numbers")
    return numbers


def _meant_as_one_hot(numbers: list[float], last: bool, views: int | None) -> bool:
    """Whether a row that is not one-hot stands where, or looks as, a one-hot row would."""
    box_shaped = len(numbers) >= 5 and len(numbers) % 2 == 1
    binary = all(number in (0, 1) for number in numbers)
    as_long_as_views = len(numbers) == (views or 3)
    return (not box_shaped and (binary or (last and as_long_as_views))) or len(numbers) == 3


def _box(numbers: list[float], classes: int) -> tuple[tuple[float, ...], bool]:
    """(class, cx, cy, w, h), and whether it had to be cut at the border of the image."""
    index, *place = numbers
    if len(place) != 4 and (len(place) < 6 or len(place) % 2):
        raise Fault("neither a box, a polygon nor a one-hot row")
    if not (index.is_integer() and 0 <= index < classes):
        raise Fault("an unknown class index", last=classes - 1)
    if min(place) < -TOLERANCE or max(place) > 1 + TOLERANCE:
        raise Fault("coordinates outside 0-1")
    if len(place) == 4:
        cx, cy, w, h = place
        corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    else:
        xs, ys = place[::2], place[1::2]
        corners = (min(xs), min(ys), max(xs), max(ys))
    left, top, right, bottom = (min(max(corner, 0.0), 1.0) for corner in corners)
    if min(right - left, bottom - top) < MIN_SIDE or (len(place) == 4 and min(place[2:]) <= 0):
        raise Fault("a box without area")
    if len(place) == 4 and corners == (left, top, right, bottom):
        return tuple(numbers), False  # as written, to the last digit
    reaches_outside = min(corners) < -TOLERANCE or max(corners) > 1 + TOLERANCE
    return (index, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top), reaches_outside


def find_views(
    labels: Sequence[Labels], names: Sequence[str] | None, problems: list
) -> tuple[tuple[str, ...], list[int]]:
    """The names of the views, and the view of each label file by index (-1 = has none).

    Without `names` there are as many views as most rows are long, called "view 1", "view 2", ...; without
    any one-hot row there are none, and nothing is wrong.
    """
    rows = [one.one_hot for one in labels]
    if names is None:
        lengths = Counter(row.length for row in rows if row and row.index >= 0)
        length = max(lengths, key=lambda length: (lengths[length], length), default=0)
        names = [f"view {number}" for number in range(1, length + 1)]
    for file, row in zip((one.file for one in labels), rows, strict=True):
        if row is None and names and file:
            problems.append(Fault("no one-hot row", views=len(names)).at(file))
        elif row and row.index >= 0 and row.length != len(names):
            fault = Fault("a one-hot row of another length than there are views", views=len(names))
            problems.append(fault.at(file, row.line, row.value))
    return tuple(names), [row.index if row and row.length == len(names) else -1 for row in rows]
