"""What can be wrong with a data set, and the one rule for each kind of it.

skipped   left out and counted
guessed   kept, read in a way that the files do not say
read      kept as it is, only noted

`strict` refuses what is otherwise skipped or guessed. What makes the whole set unreadable is an error.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from gradlib.data.files import REASONS, UnreadableFile

__all__ = ["RULES", "UNPRINTABLE", "Fault", "Problem", "Refused", "count_skipped", "counts", "describe"]

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # controls, half characters
MAX_VALUE_LENGTH = 80  # characters of a value that are shown

#: The kinds by their rule and by what is left out.
KINDS = {
    ("skipped", "images"): (
        *(f"an image that {reason}" for reason in REASONS),
        "not a readable image",
        "an image of too many pixels",
        "a name with control characters or undecodable bytes",
        "a second image of the same stem",
        *(f"a label file that {reason}" for reason in REASONS),
        "a label file that is not UTF-8 text",
    ),
    ("skipped", "rows"): (
        "numbers not separated by spaces",
        "not a number",
        "not a finite number",
        "neither a box, a polygon nor a one-hot row",
        "a class index that is not an integer",
        "an unknown class index",
        "coordinates outside 0-1",
        "a box without area",
        "the same box twice",
    ),
    ("skipped", "views"): (
        "a second one-hot row",
        "not a one-hot row",
        "a one-hot row of another length than there are views",
    ),
    ("skipped", "files"): ("a label file without an image", "neither an image nor a label file"),
    ("skipped", "folders"): ("a folder that does not exist", "a folder named twice"),
    ("guessed", ""): (
        "a folder that does not exist, another was read",
        "an image without a label file, read as background",
        "a label file whose name differs in case",
        "an image that its EXIF data turns",
        "an image of several frames, the first was read",
        "an image of more than 8 bits a channel",
        "an expression that does not match every file's stem",
        "an unknown key like one that is known",
    ),
    ("read", ""): (
        "a box that reaches outside the image",
        "no one-hot row",
        "an image of very few pixels",
        "an image of extreme proportions",
        "the same image twice",
        "the same image in another part",
        "the same image with other labels",
        "the same stem in another part",
        "an expression that finds another patient in every frame",
        "a folder without images",
        "a class that no box has",
        "a name with markup",
    ),
}
RULES = {what: rule for (rule, _), kinds in KINDS.items() for what in kinds}
UNITS = {what: unit for (_, unit), kinds in KINDS.items() for what in kinds if unit}


def _printable(text: str) -> str:
    """`text` in one line that any file can hold."""
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file: where, the value found, what it is, the cure, and the rule for it."""

    file: str  # posix, relative to the data folder
    line: int | None
    value: str
    what: str  # a key of RULES
    cure: str
    rule: str = field(init=False)

    def __post_init__(self):
        long = len(self.value) > MAX_VALUE_LENGTH
        value = f"{self.value[: MAX_VALUE_LENGTH - 3]}..." if long else self.value
        for name, text in {"file": self.file, "value": value, "cure": self.cure}.items():
            object.__setattr__(self, name, _printable(text))
        object.__setattr__(self, "rule", RULES[self.what])

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}, line {self.line}"
        value = f"{self.value!r}: " if self.value else ""
        return f"{place}: {value}{self.what}; {self.cure}"


class Fault(Exception):
    """What is wrong (a key of RULES), the cure and the value, where the file is known to the caller."""

    def __init__(self, what: str, cure: str, value: str = ""):
        super().__init__(what, cure, value)
        self.what, self.cure, self.value = what, cure, value

    def at(self, file: str, line: int | None = None) -> Problem:
        """The problem that it is in `file`."""
        return Problem(file, line, self.value, self.what, self.cure)


@contextmanager
def unreadable_is_fault(noun: str) -> Iterator[None]:
    """A file that `files` does not read becomes a Fault about the `noun` ("an image")."""
    try:
        yield
    except FileNotFoundError:
        raise Fault(f"{noun} that {REASONS[0]}", "correct the link", "No such file") from None
    except UnreadableFile as error:
        raise Fault(f"{noun} that {error.what}", error.cure, error.value) from None


class Refused(ValueError):
    """A data set that is not read, with the problems that were found in it."""

    def __init__(self, message: str, problems: Iterable[Problem]):
        super().__init__(_printable(message))
        self.problems = tuple(problems)


def count_skipped(problems: Iterable[Problem]) -> dict[str, int]:
    """How many images, rows, views, files and folders were left out; only what there is."""
    return dict(Counter(UNITS[problem.what] for problem in problems if problem.what in UNITS))


def counts(problems: Iterable[Problem]) -> dict[tuple[str, str], int]:
    """How often each kind was found, by (rule, what), in the order of RULES."""
    found = Counter(problem.what for problem in problems)
    return {(rule, what): found[what] for what, rule in RULES.items() if what in found}


def describe(problems: Sequence[Problem]) -> str:
    """Every problem in one line, then how often each kind was found and which rule it fell under."""
    lines = [str(problem) for problem in problems]
    table = [f"{number:6d} {rule}: {what}" for (rule, what), number in counts(problems).items()]
    left_out = ", ".join(f"{number} {unit}" for unit, number in count_skipped(problems).items())
    end = f"{len(problems)} problems; left out: {left_out or 'nothing'}"
    return "\n".join([*lines, *([""] if lines else []), *table, end])
