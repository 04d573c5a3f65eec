"""What a data.yaml says: its keys, the names of classes and views, the expressions for patient and video."""

import difflib
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradlib.data.faults import UNPRINTABLE, Problem, refusal
from gradlib.data.yaml_file import YamlFile

__all__ = [
    "GROUPS",
    "KEYS",
    "MOST_NAMES",
    "PARTS",
    "Settings",
    "group_problems",
    "groups_of",
    "read_settings",
]

PARTS = {"train": ("train",), "valid": ("val", "valid"), "test": ("test",)}  # also folders' names
GROUPS = {"patient": "^[^-]+", "video": "^.*(?=-)"}  # of a stem PATIENT-VIDEO-FRAME
KEYS = ("path", "train", "val", "valid", "test", "nc", "names", "image_classes", *GROUPS)
MOST_BYTES = 2**16
MOST_NAMES = 2000  # the commonest sets of many classes have 365 to 1,203
LONGEST_NAME = 100
LONGEST_EXPRESSION = 500
SECONDS = 10  # that an expression may take for all stems


@dataclass(frozen=True)
class Settings:
    """The mapping in a data.yaml: scalars are text as written, whole numbers int, what is empty None."""

    path: Path
    values: Mapping
    lines: Mapping[str, int]

    def refuse(self, key: str, what: str, cure: str, error: type = ValueError) -> Exception:
        """The error to raise about the value of `key`."""
        return refusal(self.path, what, cure, f"{key}: {self.values.get(key)!r}", self.lines.get(key), error)

    def problem(self, key: str, value: str, what: str, cure: str) -> Problem:
        """A problem with the value of `key`."""
        return Problem(self.path.name, self.lines.get(key), value, what, cure)

    def texts(self, key: str) -> list[str]:
        """The text or the list of texts under `key`; none where there is none."""
        value = self.values.get(key)
        entries = value if isinstance(value, list) else [] if value in (None, "") else [value]
        if not all(isinstance(entry, str) and entry and not UNPRINTABLE.search(entry) for entry in entries):
            raise self.refuse(key, "not a text", "write a text, or put it in quotes")
        return entries

    def text(self, key: str, default: str = "") -> str:
        """The text under `key`."""
        if isinstance(self.values.get(key), list):
            raise self.refuse(key, "not a text", "write one text")
        return "".join(self.texts(key)) or default

    def names(self, key: str) -> tuple[str, ...]:
        """The names under `key`, given as a list or numbered from 0; for `names`, `nc` must agree."""
        names = self.values[key]
        if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
            names = [names[index] for index in range(len(names))]
        if not isinstance(names, list):
            raise self.refuse(key, "not a list, nor numbered from 0", "write it as [first, second]")
        if len(names) > MOST_NAMES:
            cure = f"there are {len(names)}, write {MOST_NAMES} at most"
            raise self.refuse(key, "too many names", cure)
        for name in names:
            text = str(name).strip() if isinstance(name, str | int) else ""
            if not 0 < len(text) <= LONGEST_NAME or UNPRINTABLE.search(text):
                cure = f"{name!r:.60}: write 1 to {LONGEST_NAME} characters, none of control"
                raise self.refuse(key, "not a name", cure)
        names = tuple(str(name).strip() for name in names)
        if len(set(names)) < len(names):
            raise self.refuse(key, "a name given twice", "give each its own")
        if key == "names" and self.values.get("nc") not in (None, len(names)):
            cure = f"names has {len(names)}; correct nc or leave it out"
            raise self.refuse("nc", "another number of names", cure)
        return names

    def expression(self, key: str) -> re.Pattern:
        """The regular expression for "patient" or "video"."""
        pattern = self.text(key, GROUPS[key])
        try:
            if len(pattern) > LONGEST_EXPRESSION:
                raise ValueError(f"more than {LONGEST_EXPRESSION} characters")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what a later Python may read in another way
                return re.compile(pattern)
        except (re.error, ValueError, OverflowError, RecursionError) as error:
            raise self.refuse(key, "not a regular expression", f"{error}: correct it") from None

    def marked_up(self) -> list[Problem]:
        """Names that a page or a figure could take for more than text."""
        found = [
            (key, name)
            for key in ("names", "image_classes")
            if self.values.get(key)
            for name in self.names(key)
        ]
        what, cure = "a name with markup", "it is shown as written; leave < > and $ out"
        return [self.problem(key, name, what, cure) for key, name in found if re.search("[<>$]", name)]

    def unknown_keys(self) -> list[Problem]:
        """Keys that look like a mistyped one: what they say would silently not hold."""
        unknown = [str(key) for key in self.values if key not in KEYS]
        near = {key: difflib.get_close_matches(key, KEYS, n=1, cutoff=0.8) for key in unknown}
        what = "an unknown key like one that is known"
        return [self.problem(key, key, what, f"write {like[0]}") for key, like in near.items() if like]


def read_settings(path: Path) -> Settings:
    """Read a data.yaml; `train` and `names` must be there. Raises ValueError or FileNotFoundError."""
    file = YamlFile(path, "data.yaml", as_written=True, max_bytes=MOST_BYTES)
    for key in ("train", "names"):
        if file.values.get(key) in (None, "", [], {}):
            raise refusal(path, "a missing key", f"add '{key}'")
    return Settings(path, file.values, file.lines)


_SEARCH = """
import json, re, sys, warnings
warnings.simplefilter("ignore")
pattern, stems = json.load(sys.stdin)
expression = re.compile(pattern)
found = map(expression.search, stems)
print(json.dumps([one and one.group(min(1, expression.groups)) for one in found]))
"""


def groups_of(settings: Settings, key: str, stems: Sequence[str]) -> list[str | None]:
    """What the expression for `key` finds in each stem: its first group, else all of it; None for nothing.

    It runs in a process of its own, which can be ended: some expressions take years for a stem of 40
    characters, and no rule tells all of these from the others.
    """
    asked = json.dumps([settings.expression(key).pattern, list(stems)])
    command = [sys.executable, "-I", "-S", "-c", _SEARCH]
    try:
        done = subprocess.run(
            command, input=asked, capture_output=True, text=True, timeout=SECONDS, check=True
        )
    except subprocess.TimeoutExpired:
        cure = f"{len(stems)} stems take more than {SECONDS} s; write it without a repeat inside a repeat"
        raise settings.refuse(key, "an expression that takes too long", cure) from None
    return [found or None for found in json.loads(done.stdout)]


def group_problems(
    settings: Settings, stems: Sequence[str], groups: Mapping[str, list[str | None]]
) -> list[Problem]:
    """Expressions that do not group: folds and leakage would silently mean nothing."""
    problems = []
    for key, found in groups.items():
        unmatched = [stem for stem, group in zip(stems, found, strict=True) if group is None]
        if unmatched:
            what = "an expression that does not match every file's stem"
            cure = f"correct {key}: {len(unmatched)} of {len(stems)} are their own, as {unmatched[0]!r}"
        elif key == "patient" and 1 < len(stems) == len(set(found)):
            what = "an expression that finds another patient in every frame"
            cure = "write one that a patient's frames have in common, or the folds leak"
        else:
            continue
        problems.append(settings.problem(key, settings.expression(key).pattern, what, cure))
    return problems
