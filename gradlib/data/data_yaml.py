"""What a data.yaml says: folders, names of classes and views, expressions for patient and video."""

import math
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import pydantic
import regex
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, ValidationInfo

from gradlib.checks import shortened
from gradlib.data.faults import UNPRINTABLE, Fault, Problem
from gradlib.data.yaml_file import YamlFile

PARTS = {"train": ("train",), "valid": ("val", "valid"), "test": ("test",)}  # keys and folders of each part
MAX_FILE_BYTES = 2**16
MAX_NAMES = 2000  # the commonest sets of many classes have 365 to 1,203
MAX_COPIES = 2**20  # of an expression's parts: `regex` writes x{3} as xxx, and x+ as xx*
TIMEOUT_S = 10  # that an expression may take for all stems


def _visible(text: str) -> str:
    if UNPRINTABLE.search(text):
        raise ValueError(f"expected no control character, got {text!r}")
    return text


def _as_names(value: object) -> list:
    """Names numbered from 0 as a list; names that are whole numbers as text."""
    numbered = isinstance(value, dict) and [str(key) for key in value] == [str(n) for n in range(len(value))]
    names = list(value.values()) if numbered else value
    if not isinstance(names, list):
        raise ValueError(f"expected [first, second] or names numbered from 0, got {shortened(value)}")
    names = [str(name) if type(name) is int else name for name in names]
    if len({str(name).strip() for name in names}) < len(names):
        raise ValueError(f"a name given twice in {shortened(names)}; give each its own")
    return names


def _expression(pattern: str) -> regex.Pattern:
    """A regular expression that Python's `re` knows, compiled by `regex`, which can be stopped in time."""
    repeats = re.findall(r"[+]|{(\d{1,9})", pattern)
    if math.prod(int(repeat or 1) + 1 for repeat in repeats) > MAX_COPIES:
        raise ValueError(f"{pattern!r} is not a regular expression to read: it repeats too often; shorten it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later version may read in another way
            re.compile(pattern)
            return regex.compile(pattern)
    except (re.error, regex.error, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}; correct it") from None


def _file_or_expression(text: str) -> str | regex.Pattern:
    return text if text.casefold().endswith(".csv") else _expression(text)


VISIBLE = AfterValidator(_visible)
Text = Annotated[str, Field(strict=True, min_length=1), VISIBLE]
Texts = Annotated[list[Text], BeforeValidator(lambda text: [text] if type(text) is str else text)]
NAME = StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=100)
Name = Annotated[str, NAME, VISIBLE]
Names = Annotated[list[Name], Field(max_length=MAX_NAMES), BeforeValidator(_as_names)]
Expression = Annotated[str, Field(strict=True, max_length=500), AfterValidator(_expression)]


class DataYaml(BaseModel):
    """The values of a data.yaml; `patient` and `video` are patterns."""

    path: Text = ""
    train: Texts
    val: Texts = ()
    valid: Texts = ()
    test: Texts = ()
    names: Names
    nc: int | None = None
    image_classes: Names | None = None
    image_class: Annotated[Text, AfterValidator(_file_or_expression)] | None = None
    kpt_shape: tuple[Annotated[int, Field(ge=1, le=1000)], Annotated[int, Field(ge=2, le=3)]] | None = None
    allow_outside: bool = False
    patient: Expression = Field("^[^-]+", validate_default=True)  # of a stem PATIENT-VIDEO-FRAME
    video: Expression = Field("^.*(?=-)", validate_default=True)
    _file: YamlFile = pydantic.PrivateAttr()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _without_empty(cls, values: Mapping) -> dict:
        return {key: value for key, value in values.items() if value not in (None, "", [], {})}

    @pydantic.field_validator("nc")
    @classmethod
    def _agrees(cls, nc: int | None, info: ValidationInfo) -> int | None:
        names = info.data.get("names", ())
        if names and nc != len(names):
            raise ValueError(f"expected {len(names)}, the number of names, got {nc}; leave it out")
        return nc

    @pydantic.field_validator("valid")
    @classmethod
    def _is_alone(cls, valid: list, info: ValidationInfo) -> list:
        if valid and info.data.get("val"):
            raise ValueError("stands beside val, which means the same; leave one out")
        return valid

    @property
    def root(self) -> Path:
        """The folder of the data.yaml."""
        return self._file.path.parent

    @property
    def boundary(self) -> Path:
        """The folder that all files must lie in, links resolved: the one above data.yaml, for exports name
        `../train/images`; with `allow_outside` any."""
        return Path(self.root.anchor) if self.allow_outside else self.root.parent

    def error(self, key: str, message: str, kind: type = ValueError) -> Exception:
        """The error to raise about the value of `key`."""
        return self._file.error(key, f"{key}: {self._file.values.get(key)!r}: {message}", kind)

    def problem(self, key: str, what: str, value: str, **details: object) -> Problem:
        """A problem with the value of `key`."""
        return Fault(what, value, **details).at(self._file.path.name, self._file.lines.get(key))

    def problems(self) -> list[Problem]:
        """Keys that look mistyped, and names that a page or figure could take for more than text."""
        known, found = list(DataYaml.model_fields), []
        for key in map(str, self._file.values):
            short = [name for name in known if key.casefold().startswith(name)]
            near = [] if key in known else short or get_close_matches(key.casefold(), known, 1, 0.75)
            if near:  # what it says would silently not hold
                found.append(self.problem(key, "an unknown key like one that is known", key, known=near[0]))
        for key in ("names", "image_classes"):
            marked = [name for name in getattr(self, key) or () if re.search("[<>$]", name)]
            found += [self.problem(key, "a name with markup", name) for name in marked]
        return found


def read_data_yaml(path: Path) -> DataYaml:
    """Read a data.yaml; `train` and `names` must be there. Raises ValueError or FileNotFoundError."""
    file = YamlFile(path, "data.yaml", MAX_FILE_BYTES, printable_only=False)
    settings = file.parse(DataYaml)
    settings._file = file
    return settings


def find_groups(settings: DataYaml, stems: Sequence[str], problems: list) -> list[list[str]]:
    """The patient and the video of each stem: the first group that the expression finds, else all of it.

    Where it finds nothing, the stem itself: an expression that does not group would make folds and leakage
    mean nothing, and is a problem.
    """
    groups = []
    for key in ("patient", "video"):
        pattern, found = getattr(settings, key).pattern, search(settings, key, stems)
        unmatched = [stem for stem, group in zip(stems, found, strict=True) if not group]
        if unmatched:
            whose = "an expression" if key in settings.model_fields_set else "a default"
            what, value = f"{whose} that does not match every file's stem", f"{key}: {pattern}"
            details = {"count": f"{len(unmatched)} of {len(stems)}", "first": unmatched[0]}
            problems.append(settings.problem(key, what, value, **details))
        elif key == "patient" and 1 < len(stems) == len(set(found)):
            what = "an expression that finds another patient in every frame"
            problems.append(settings.problem(key, what, pattern))
        groups.append([group or stem for stem, group in zip(stems, found, strict=True)])
    return groups


def search(settings: DataYaml, key: str, texts: Sequence[str]) -> list[str | None]:
    """What the expression `key` finds in each text: its first group, else all of it; None for nothing.

    Some expressions take years for a text of 40 characters: after TIMEOUT_S in all the search is an error.
    """
    expression, end = getattr(settings, key), time.monotonic() + TIMEOUT_S
    try:
        found = [expression.search(text, timeout=max(end - time.monotonic(), 1e-3)) for text in texts]
    except TimeoutError:
        text = f"an expression that takes too long: {len(texts)} names take more than {TIMEOUT_S} s"
        raise settings.error(key, f"{text}; write it without a repeat inside a repeat") from None
    return [match.group(min(1, expression.groups)) if match else None for match in found]
