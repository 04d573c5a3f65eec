"""The rows of one label file: boxes, and the one-hot row that names the view of the whole image."""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

__all__ = ["TOLERANCE", "Labels", "OneHot", "Problem", "parse", "views_of"]

TOLERANCE = 1e-3  # how far, in image widths, a number may lie outside 0-1 and merely be rounded


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file that reading survived: where, the value found, and the cure."""

    file: str  # posix, relative to the data folder
    line: int | None
    value: str
    what: str  # the same words for the same fault, so that faults can be counted
    cure: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{place}: {self.value!r}: {self.what}; {self.cure}"


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


class _Fault(Exception):
    """What is wrong with one row, and the cure."""


def parse(text: str, file: str, classes: int, views: int | None = None) -> Labels:
    """Read the text of a label file; a faulty row becomes a `Problem` and is left out.

    A row is a box (class cx cy w h), a polygon (class x1 y1 x2 y2 x3 y3 ..., its bounding box is
    taken) or the one-hot row. Zeros and exactly one 1 are always the one-hot row, whatever their
    number: read as a box or a polygon such a row has no area, so no legal box is lost.

    `classes` is the number of detection classes, `views` that of the views where it is known.
    """
    rows = [(n, row.strip()) for n, row in enumerate(text.splitlines(), 1) if row.strip()]
    boxes, one_hots, problems = [], [], []
    for position, (line, row) in enumerate(rows):
        value = row if len(row) <= 60 else row[:57] + "..."
        try:
            numbers = _numbers(row)
            if _is_one_hot(numbers):
                one_hots.append(OneHot(numbers.index(1), len(numbers), line, value))
                if len(one_hots) > 1:
                    raise _Fault("a second one-hot row", "keep one")
            elif _meant_as_one_hot(numbers, position == len(rows) - 1, views):
                one_hots.append(OneHot(-1, len(numbers), line, value))
                raise _Fault("not a one-hot row", "write one 1 and otherwise zeros")
            else:
                box, reaches_outside = _box(numbers, classes)
                boxes.append(box)
                if reaches_outside:
                    raise _Fault("a box that reaches outside the image", "cut at the border")
        except _Fault as fault:
            problems.append(Problem(file, line, value, *fault.args))
    one_hot = one_hots[0] if one_hots else None
    if len({(row.index, row.length) for row in one_hots}) > 1:  # which of them holds is unknown
        one_hot = OneHot(-1, one_hot.length, one_hot.line, one_hot.value)
    return Labels(np.array(boxes, np.float32).reshape(-1, 5), one_hot, tuple(problems))


def _numbers(row: str) -> list[float]:
    if "," in row or ";" in row:
        raise _Fault("numbers not separated by spaces", "put spaces between, a point for decimals")
    try:
        numbers = [float(word) for word in row.split()]
    except ValueError:
        raise _Fault("not a number", "write numbers only") from None
    if not all(map(math.isfinite, numbers)):
        raise _Fault("not a finite number", "write finite numbers only")
    return numbers


def _is_one_hot(numbers: list[float]) -> bool:
    return numbers.count(1) == 1 and numbers.count(0) == len(numbers) - 1


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
        raise _Fault("neither a box, a polygon nor a one-hot row", cure)
    index, *place = numbers
    if not index.is_integer():
        raise _Fault("a class index that is not an integer", f"write 0 to {classes - 1}")
    if not 0 <= index < classes:
        raise _Fault("an unknown class index", f"write 0 to {classes - 1} or add to names")
    if min(place) < -TOLERANCE or max(place) > 1 + TOLERANCE:
        raise _Fault("coordinates outside 0-1", "divide by the width and height of the image")
    if len(numbers) == 5:
        cx, cy, w, h = place
        corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    else:
        xs, ys = place[::2], place[1::2]
        corners = (min(xs), min(ys), max(xs), max(ys))
    reaches_outside = min(corners) < -TOLERANCE or max(corners) > 1 + TOLERANCE
    left, top, right, bottom = (min(max(corner, 0.0), 1.0) for corner in corners)
    if right <= left or bottom <= top or (len(numbers) == 5 and min(place[2:]) <= 0):
        raise _Fault("a box without area", "remove the row or mend its width and height")
    box = (index, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    return box, reaches_outside


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
