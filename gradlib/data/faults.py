"""What can be wrong with a data set, and the one rule for each kind of it.

skipped   left out and counted
guessed   kept, read in a way that the files do not say
read      kept as it is, only noted
refused   nothing is read: an error

`strict` refuses what is otherwise skipped or guessed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gradlib.data.files import REASONS, UnreadableFile, read_bytes

__all__ = [
    "RULES",
    "SKIPPED",
    "UNPRINTABLE",
    "Fault",
    "Problem",
    "Refused",
    "counts",
    "describe",
    "read_or_fault",
    "refusal",
    "skipped",
]

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # controls, half characters
LONGEST = 80  # characters of a value that are shown

# What is left out -> for which faults.
SKIPPED = {
    "images": (
        *(f"an image that {reason}" for reason in REASONS),
        "not a readable image",
        "an image of too many pixels",
        "a name with control characters or undecodable bytes",
        "a second image of the same stem",
        *(f"a label file that {reason}" for reason in REASONS),
        "a label file that is not a UTF-8 text",
    ),
    "rows": (
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
    "views": (
        "a second one-hot row",
        "not a one-hot row",
        "a one-hot row of another length than there are views",
    ),
    "files": ("a label file without an image", "neither an image nor a label file"),
    "folders": ("a folder that does not exist", "a folder named twice"),
}
GUESSED = (
    "a folder that does not exist, another was read",
    "an image without a label file, read as background",
    "a label file whose name differs in case",
    "an image that its EXIF data turns",
    "an image of several frames, the first was read",
    "an image of more than 8 bits a channel",
    "an expression that does not match every file's stem",
    "an unknown key like one that is known",
)
READ = (
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
)
REFUSED = (
    "no such file",
    "a data.yaml that cannot be opened",
    "a data.yaml that is no regular file",
    "a data.yaml that is too large",
    "not a YAML file",
    "no keys",
    "a missing key",
    "not a list, nor numbered from 0",
    "not a name",
    "a name given twice",
    "too many names",
    "another number of names",
    "not a text",
    "not a regular expression",
    "an expression that takes too long",
    "no folder",
    "a folder that cannot be listed",
    "a folder outside of the data set's place",
    "no readable image",
    "faults that strict refuses",
)
RULES = {
    **{what: "skipped" for kinds in SKIPPED.values() for what in kinds},
    **dict.fromkeys(GUESSED, "guessed"),
    **dict.fromkeys(READ, "read"),
    **dict.fromkeys(REFUSED, "refused"),
}


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
        value = self.value if len(self.value) <= LONGEST else self.value[: LONGEST - 3] + "..."
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


def read_or_fault(noun: str, path: Path, max_bytes: int, within: Path) -> bytes:
    """The bytes of a file, as `read_bytes` reads it. Raises Fault about the `noun` ("an image")."""
    try:
        return read_bytes(path, max_bytes, within)
    except FileNotFoundError:
        cure, value = "correct the link", "No such file or directory"
        raise Fault(f"{noun} that {REASONS[0]}", cure, value) from None
    except UnreadableFile as error:
        raise Fault(f"{noun} that {error.what}", error.cure, error.value) from None


class Refused(ValueError):
    """A data set that is not read, with the problems that were found in it."""

    def __init__(self, problem: Problem, problems: Iterable[Problem]):
        super().__init__(str(problem))
        self.problems = tuple(problems)


def refusal(
    file: object, what: str, cure: str, value: str = "", line: int | None = None, error: type = ValueError
) -> Exception:
    """The error to raise where nothing sensible can be read."""
    return error(str(Problem(str(file), line, value, what, cure)))


def skipped(problems: Iterable[Problem]) -> dict[str, int]:
    """How many images, rows, views, files and folders were left out, of each of which there are any."""
    units = {what: unit for unit, kinds in SKIPPED.items() for what in kinds}
    return dict(Counter(units[problem.what] for problem in problems if problem.what in units))


def counts(problems: Iterable[Problem]) -> dict[tuple[str, str], int]:
    """How often each kind was found, by (rule, what), in the order of RULES."""
    found = Counter(problem.what for problem in problems)
    return {(rule, what): found[what] for what, rule in RULES.items() if what in found}


def describe(problems: Sequence[Problem]) -> str:
    """Every problem in one line, then how often each kind was found and which rule it fell under."""
    lines = [str(problem) for problem in problems]
    table = [f"{number:6d} {rule}: {what}" for (rule, what), number in counts(problems).items()]
    left_out = ", ".join(f"{number} {unit}" for unit, number in skipped(problems).items())
    end = f"{len(problems)} problems; left out: {left_out or 'nothing'}"
    return "\n".join([*lines, *([""] if lines else []), *table, end])
