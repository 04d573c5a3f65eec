"""The files of a run folder, read as a stranger's: bounded, plain, and of the types that they claim.

What each file holds, `runs` says. Where it does not, FileNotFoundError or ValueError in one line that begins
with the path. `within`, everywhere, is the folder that the file must lie in, links resolved.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pandas as pd

from gradlib.config import BRANCHES, Solution, Training
from gradlib.data import names, reading

__all__ = [
    "KEYS",
    "TABLES",
    "config",
    "environment",
    "is_complete",
    "metrics",
    "predictions",
    "project_folder",
    "run_folder",
    "table",
]

KEYS = ("solution", "fold", "seed")
# The tables of a run, and what a reader may ask of one that no run has: without shared layers, no probe.
TABLES = {
    "steps": (),
    "probes": ("step", "stage", "kind", "cosine"),
    "pairs": ("class", "view", "cosine"),
    "batches": ("step", "image"),
    "epochs": (),
}
#: The columns that are no numbers, and what they hold; None: a name.
WORDS = {"stage": BRANCHES[1:], "kind": ("conv", "norm"), "image": None}
MOST_NAMES, LONGEST_NAME, LONGEST_PATH = 2000, 100, 4096
MOST_BOXES = 1000  # of an image; a run keeps 100
HUGE = 2**63  # beyond any number of a run
SOLUTION = {one.name for one in fields(Solution)}


def project_folder() -> Path:
    """The nearest folder, from the working folder upwards, that holds the notebooks; else the working
    folder. Relative paths in a notebook's parameters start here, wherever its kernel runs."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks" / "01_solution.ipynb").is_file():
            return folder
    return here


def run_folder(runs: str | Path, study: str, solution: str, fold: int, seed: int) -> Path:
    """Where a run lives. Raises ValueError where `solution` could be no folder in the study's."""
    names.checked(solution, "solution")
    return project_folder() / runs / study / solution / f"fold={fold}" / f"seed={seed}"


def is_complete(folder: Path) -> bool:
    """Whether the run in `folder` has reached its end."""
    return (folder / "metrics.json").is_file()


def config(folder: Path, within: Path | None = None) -> dict:
    """The parameters of the run, and its solution in full."""
    path = folder / "config.json"
    found = _mapping(path, within)
    kinds = {one.name: type(one.default) for one in fields(Training)}
    kinds |= {"data": str, "split": str, "pretrained": str, "fold": int, "folds": int}
    for name, kind in kinds.items():
        if name in found and not _is(found[name], kind):
            raise _wrong(path, f"{name} is {_short(found[name])}, which is no {kind.__name__}")
    for name in ("classes", "views"):
        if name in found and not _names(found[name]):
            text = f"at most {MOST_NAMES} different names of 1 to {LONGEST_NAME} characters"
            raise _wrong(path, f"{name} is {_short(found[name])}, which is no list of {text}")
    given = found.get("solution")
    try:
        Solution(
            **{key: value for key, value in given.items() if key in SOLUTION}
        )  # other versions have others
    except (AttributeError, TypeError, ValueError) as error:
        raise _wrong(path, f"solution is {_short(given)}, which is none ({error})") from None
    return found


def environment(folder: Path, within: Path | None = None) -> dict:
    """Versions, git revision, device and the data's fingerprint."""
    return _mapping(folder / "environment.json", within)


def metrics(folder: Path, within: Path | None = None) -> dict:
    """The final metrics of each part (at least "test") and the "cost": numbers, None where there is none."""
    path = folder / "metrics.json"
    found = _mapping(path, within)
    for part in {"test": 0, "cost": 0, **found}:
        values = found.get(part)
        if not isinstance(values, dict):
            raise _wrong(path, f"{part} is {_short(values)}, which is no mapping")
        for name, value in values.items():
            each = value.values() if name == "ap50" and isinstance(value, dict) else [value]
            if not all(one is None or _is(one, float) for one in each):
                raise _wrong(path, f"{name} of {part} is {_short(value)}, which is no number")
    return found


def predictions(
    folder: Path, classes: int = MOST_NAMES, views: int = MOST_NAMES, within: Path | None = None
) -> list[dict]:
    """The entries that `metrics` describes, of a run with so many classes and views."""
    path = folder / "predictions.json"
    found = reading.json(path, reading.LARGE, within)
    if not isinstance(found, list):
        raise _wrong(path, f"holds {_short(found)}, which is no list of predictions")
    for at, entry in enumerate(found):
        fault = _fault(entry, classes, views)
        if fault:
            raise _wrong(path, f"entry {at}: {fault}")
    if len({entry["image"] for entry in found}) < len(found):
        raise _wrong(path, "has two entries of one image")
    for name in ("view_scores", "view_from_jet"):
        if len({len(entry.get(name) or []) for entry in found}) > 1:
            raise _wrong(path, f"has {name} of different lengths")
    return found


def _fault(entry: object, classes: int, views: int) -> str:
    """What is wrong with an entry of the predictions; "" for nothing."""
    if not isinstance(entry, dict):
        return f"{_short(entry)} is no mapping"
    for name in ("image", "patient"):
        value = entry.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= LONGEST_PATH:
            return f"{name} is {_short(value)}, which is no name"
    view = entry.get("view")
    if type(view) is not int or not -1 <= view < max(views, 1):
        return f"view is {_short(view)}, which is none of {views}"
    for name in ("view_scores", "view_from_jet"):
        scores = entry.get(name)
        if scores and not (
            isinstance(scores, list) and len(scores) <= views and all(_is(s, float) for s in scores)
        ):
            return f"{name} is {_short(scores)}, which is no list of {views} numbers"
    for name, width in (("boxes", 5), ("detections", 6)):
        rows = entry.get(name)
        if not isinstance(rows, list) or len(rows) > MOST_BOXES:
            return f"{name} is {_short(rows)}, which is no list of at most {MOST_BOXES} rows"
        for row in rows:
            if not (isinstance(row, list) and len(row) == width and all(_is(value, float) for value in row)):
                return f"{name} has the row {_short(row)}, which is no {width} numbers"
            if row[0] not in range(classes):
                return f"{name} has the class {row[0]}, which is none of {classes}"
    return ""


def table(folder: Path, name: str, within: Path | None = None, needs: Sequence[str] = ()) -> pd.DataFrame:
    """One of `TABLES`; empty where the run has no such file, or nothing in it.

    needs: columns that must be there, and so must the table.
    """
    path = folder / f"{name}.csv"
    try:
        text = reading.text(path, reading.LARGE, within)
    except FileNotFoundError:
        text = ""
    if not text.strip():
        if needs:
            raise _wrong(path, f"has no rows, and {', '.join(needs)} are needed")
        return pd.DataFrame()
    if not text.endswith("\n"):
        raise _wrong(path, "is cut short: its last line does not end")
    try:
        header, *rows = csv.reader(io.StringIO(text))
        at = next((at for at, row in enumerate(rows) if len(row) != len(header)), None)
        if at is not None:
            raise _wrong(path, f"row {at + 1} has {len(rows[at])} cells, and the header {len(header)}")
        found = pd.read_csv(
            io.StringIO(text), index_col=False, low_memory=False, dtype=dict.fromkeys(WORDS, str)
        )
    except (csv.Error, pd.errors.ParserError, OverflowError, UnicodeError) as error:
        raise _wrong(path, f"is no table ({error})") from None
    if len(set(header)) < len(header) or {*KEYS} & {*header}:
        raise _wrong(path, f"has the columns {_short(header)}, of which one stands for another")
    if not all(re.fullmatch(r"\w+", column) for column in header):
        raise _wrong(path, f"has the columns {_short(header)}, of which one is no name")
    missing = [column for column in (*TABLES[name], *needs) if column not in found]
    if missing:
        raise _wrong(path, f"lacks the column {missing[0]!r}")
    for column in found:
        _check_column(path, found[column])
    return found


def _check_column(path: Path, column: pd.Series) -> None:
    """Raise ValueError where a column holds anything but what it is for."""
    values = column.dropna()
    if column.name in WORDS:
        known = values.isin(WORDS[column.name]) if WORDS[column.name] else values.str.len() <= LONGEST_PATH
    elif not pd.api.types.is_numeric_dtype(column):  # of texts, or beyond any number
        known = pd.to_numeric(values, errors="coerce").abs() < HUGE
    else:
        return
    if not known.all():
        row, value = values[~known].index[0], values[~known].iloc[0]
        kind = " or ".join(WORDS[column.name] or ["a name"]) if column.name in WORDS else "a number"
        raise _wrong(path, f"row {row + 1}: {column.name} is {_short(value)}, not {kind}")


def _mapping(path: Path, within: Path | None) -> dict:
    found = reading.json(path, reading.SMALL, within)
    if not isinstance(found, dict):
        raise _wrong(path, f"holds {_short(found)}, which is no mapping")
    return found


def _is(value: object, kind: type) -> bool:
    """Whether a value of JSON is of this type; a number is of a size that one may have, and True is none."""
    if kind in (int, float):
        return type(value) in ((int,) if kind is int else (int, float)) and abs(value) < HUGE
    return type(value) is kind and (kind is not str or len(value) <= LONGEST_PATH)


def _names(values: object) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= MOST_NAMES
        and all(isinstance(value, str) and 0 < len(value) <= LONGEST_NAME for value in values)
        and len(set(values)) == len(values)
    )


def _short(value: object) -> str:
    """A value as an error names it."""
    written = repr(value)
    return written if len(written) <= 80 else f"{written[:77]}..."


def _wrong(path: Path, what: str) -> ValueError:
    return ValueError(f"{path}: {what}")
