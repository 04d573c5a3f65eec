"""What can be wrong with a data set: each kind with its rule and its cure.

skipped   left out and counted
guessed   kept, read in a way that the files do not say
read      kept as it is, only noted

`strict` refuses what is otherwise skipped or guessed. What makes the whole set unreadable is an error.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gradlib.data.files import printable

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # controls, half characters
MAX_VALUE_LENGTH = 80  # characters of a value that are shown
#: Each kind with its cure, and what is left out ("images", ...) or the rule where nothing is.
KINDS = {
    "an image or label file that cannot be read": ("images", "{cure}"),
    "a name with control characters or undecodable bytes": ("images", "rename the file"),
    "a second image of the same stem": ("images", "{first} has the label file; rename one"),
    "not all finite numbers": ("rows", "write digits 0 to 9, a point for decimals and spaces between"),
    "neither a box, a polygon nor a one-hot row": ("rows", "write class cx cy w h, or class and corners x y"),
    "an unknown class index": ("rows", "write an integer from 0 to {last}, or add to names"),
    "coordinates outside 0-1": ("rows", "divide by the width and height of the image"),
    "a box without area": ("rows", "remove the row or mend its width and height"),
    "the same box twice": ("rows", "remove the row, line {first} has it"),
    "a second one-hot row": ("views", "keep one"),
    "not a one-hot row": ("views", "write one 1 and otherwise zeros"),
    "a one-hot row of another length than there are views": ("views", "write {views} numbers, or mend names"),
    "a label file without an image": ("files", "add the image or remove the file"),
    "neither an image nor a label file": ("files", "known are {known}"),
    "a folder that does not exist": ("folders", "correct it; nothing was read"),
    "an image that is not there": ("images", "mend the list; paths start from it, path or data.yaml"),
    "an image without a label file, read as background": ("guessed", "add {file}"),
    "an image that its EXIF data turns": ("guessed", "save it upright, without EXIF data"),
    "an image of several frames, the first was read": ("guessed", "save each frame as a file"),
    "an image of more than 8 bits a channel": ("guessed", "save it with 8 bits"),
    "an expression that does not match every file's stem": ("guessed", "{count} are their own, as {first!r}"),
    "a folder that is not there, one of that name was read": ("guessed", "write {folder}, which was read"),
    "a box with a confidence": ("guessed", "the sixth number was left out; remove it"),
    "an unknown key like one that is known": ("guessed", "write {known}"),
    "a box that reaches outside the image": ("read", "cut at the border"),
    "no image class": ("read", "give it one of {names}, or it trains detection only"),
    "no one-hot row": ("read", "add a row of {views} numbers, or it trains detection only"),
    "an image of hardly any pixels, once letterboxed": ("read", "see whether it is meant, or crop it"),
    "the same image twice": ("read", "keep one"),
    "the same image in another part": ("read", "a score on it is memory; keep one"),
    "the same image with other labels": ("read", "look which of them are right"),
    "the same stem in another part": ("read", "see whether it is the same frame; rename one"),
    "an expression that finds another patient in every frame": ("read", "find what a patient's frames share"),
    "a folder without images": ("read", "add images, or do not name it"),
    "a folder named twice": ("read", "it was read once; give each part its own"),
    "a default that does not match every file's stem": ("read", "{count} are their own, as {first!r}"),
    "names that no image has": ("read", "see whether boxes are missing; the name may stay"),
    "image_classes that no image has": ("read", "correct image_class, or see whether labels are missing"),
    "one view for every image": ("read", "nothing can be learned of it; correct image_class"),
    "rows of images that are not there": ("read", "write the path from data.yaml or path, or the name"),
    "a name with markup": ("read", "it is shown as written; leave < > and $ out"),
}
RULES = {what: kind if kind in ("guessed", "read") else "skipped" for what, (kind, _) in KINDS.items()}


class Problem(NamedTuple):
    """Something wrong with a file: where, the value found, what it is, the cure, and the rule for it."""

    file: str  # posix, relative to the data folder
    line: int | None
    value: str
    what: str  # a key of RULES
    cure: str
    rule: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}, line {self.line}"
        value = f"{self.value!r}: " if self.value else ""
        return f"{place}: {value}{self.what}; {self.cure}"


class Fault(Exception):
    """What is wrong (a key of RULES) with a file that the caller knows; `details` complete the cure."""

    def __init__(self, what: str, value: str = "", **details: object):
        super().__init__(what, value)
        self.what, self.value, self.cure = what, value, KINDS[what][1].format(**details)

    def at(self, file: str, line: int | None = None, value: str = "") -> Problem:
        """The problem that it is in `file`."""
        value = self.value or value
        value = value if len(value) <= MAX_VALUE_LENGTH else f"{value[: MAX_VALUE_LENGTH - 3]}..."
        file, value, cure = map(printable, (file, value, self.cure))
        return Problem(file, line, value, self.what, cure, RULES[self.what])


class Refused(ValueError):
    """A data set that is not read, with the problems that were found in it."""

    def __init__(self, message: str, problems: Iterable[Problem]):
        super().__init__(printable(message))
        self.problems = tuple(problems)


def counted(number: int, things: str) -> str:
    """`2 images`, or `1 image`."""
    return f"{number} {re.sub('(?<=x)es$|s$', '', things) if number == 1 else things}"


def count_skipped(problems: Iterable[Problem]) -> dict[str, int]:
    """How many images, rows, views, files and folders were left out; only what there is."""
    return dict(Counter(KINDS[problem.what][0] for problem in problems if problem.rule == "skipped"))


def describe(problems: Sequence[Problem]) -> str:
    """Every problem in one line, then how often each kind was found and which rule it fell under."""
    found = Counter(problem.what for problem in problems)
    lines = [*map(str, problems), *([""] if problems else [])]
    lines += [f"{found[what]:6d} {rule}: {what}" for what, rule in RULES.items() if what in found]
    left_out = ", ".join(counted(number, unit) for unit, number in count_skipped(problems).items())
    return "\n".join([*lines, f"{counted(len(problems), 'problems')}; left out: {left_out or 'nothing'}"])
