"""What the files of a run folder may hold; they are read as untrusted input.

`write` lists them. Every error is FileNotFoundError or ValueError in one line that begins with the path and
names the value found and what is expected. `within`: the folder that a file must lie in, links resolved.
"""

import csv
import functools
import io
import re
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import pandas as pd
import pydantic
from pydantic import AfterValidator, BaseModel, FailFast, Field, Strict, TypeAdapter, ValidationError

from gradlib.checks import first_error, shortened
from gradlib.config import BRANCHES, TASKS, Parameters, Solution
from gradlib.data.files import MAX_BYTES, MAX_TABLE_BYTES, MissingFile, one_line, read_json, read_text

KEYS = ("solution", "fold", "seed")
# The tables of a run, and the columns that each must have.
TABLES = {
    "steps": (),
    "probes": ("step", "stage", "kind", "cosine", "conflict"),
    "pairs": ("class", "view", "cosine"),
    "parts": ("step",),
    "affinity": ("step", "source", "target", "affinity"),
    "batches": ("step", "image"),
    "epochs": (),
}
NEVER_EMPTY = ("steps", "epochs")
#: The columns of text, and the values that they may have; (): any name.
TEXT_COLUMNS = {"stage": BRANCHES[1:], "kind": ("conv", "norm"), "image": ()}
TEXT_COLUMNS |= dict.fromkeys(("source", "target"), TASKS)
MAX_NAMES, MAX_NAME_LENGTH, MAX_TEXT_LENGTH = 2000, 100, 4096
MAX_BOXES = 2**17  # of an image: more than a label file can hold
MAX_NUMBER = 2**63
MAX_ROWS, MAX_COLUMNS = 2 * 10**6, 1000  # of a table

Number = Annotated[float, Field(gt=-MAX_NUMBER, lt=MAX_NUMBER)]
Score = Number | None
Text = Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]
TYPES = {bool: bool, int: Annotated[int, Field(gt=-MAX_NUMBER, lt=MAX_NUMBER)], float: Number, str: Text}


def _different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError(f"expected different names, got {shortened(names)}")
    return names


def _solution(values: dict) -> dict:
    Solution.from_mapping({"name": None, **values})  # without the fields that only other versions have
    return values


class _Open(BaseModel, strict=True, extra="allow", allow_inf_nan=False):
    """Other versions may write more than a model names."""


class _Scores(_Open):
    __pydantic_extra__: dict[str, Score]
    ap50: dict[str, Score] | None = None


class _Metrics(_Open):
    __pydantic_extra__: dict[str, _Scores]
    test: _Scores
    cost: _Scores


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
Names = Annotated[list[Name], Field(max_length=MAX_NAMES), FailFast(), AfterValidator(_different)]
_known = {one.name: (TYPES[type(one.default)], one.default) for one in fields(Parameters)}
_known |= {"solution": Annotated[dict, AfterValidator(_solution)], "data": Text}
_Config = pydantic.create_model("_Config", __base__=_Open, **_known, classes=Names, views=Names)
#: Of a run's JSON files: parameters and solution; versions, device, the data's fingerprint; final metrics of
#: each part (at least "test") and the cost, numbers or None. Its predictions are no mapping.
MODELS = {"config": _Config, "environment": dict, "metrics": _Metrics}


@functools.cache
def _predictions(classes: int, views: int) -> TypeAdapter:
    """The model of predictions.json of a run with so many classes and views."""
    label = Annotated[float, Field(ge=0, lt=classes, multiple_of=1)]
    name = Annotated[Text, Field(min_length=1)]
    scores = Annotated[list[Number], Field(min_length=views, max_length=views)]

    def rows(width: int) -> object:
        row = Annotated[tuple[label, *[Number] * (width - 1)], Strict(False)]  # JSON has lists for tuples
        return Annotated[list[row], Field(max_length=MAX_BOXES), FailFast()]

    entry = dict(image=name, patient=name, view=Annotated[int, Field(ge=-1, lt=views)])
    entry |= dict.fromkeys(("view_scores", "view_from_jet"), (scores | None, None))
    entry |= dict(boxes=rows(5), detections=rows(6))  # class, [confidence,] cx, cy, w, h
    model = pydantic.create_model("_Prediction", __base__=_Open, **entry)
    return TypeAdapter(Annotated[list[model], FailFast()])


def is_complete(folder: Path) -> bool:
    """Whether the run in `folder` has reached its end."""
    return (folder / "metrics.json").is_file()


def read_values(folder: Path, name: str, within: Path | None = None) -> dict:
    """The values of one of `MODELS`, as they were written."""
    return read_valid(folder / f"{name}.json", TypeAdapter(MODELS[name]), within)


def read_predictions(folder: Path, classes: int, views: int, within: Path | None = None) -> list[dict]:
    """The entries that `predict` describes, of a run with so many classes and views."""
    path = folder / "predictions.json"
    entries = read_valid(path, _predictions(classes, views), within, MAX_TABLE_BYTES)
    if len({entry["image"] for entry in entries}) < len(entries):
        raise ValueError(f"{path}: has two entries of one image")
    for name in ("view_scores", "view_from_jet"):
        if len({len(entry.get(name) or ()) for entry in entries}) > 1:
            raise ValueError(f"{path}: has {name} of different lengths")
    return entries


def read_table(folder: Path, name: str, within: Path | None = None) -> pd.DataFrame:
    """One of `TABLES`; empty where the run has no such file, or nothing in it."""
    path = folder / f"{name}.csv"
    try:
        text = read_text(path, MAX_TABLE_BYTES, within)
    except MissingFile:
        text = ""
    if not text.strip():
        return pd.DataFrame()
    if not text.endswith("\n"):
        raise ValueError(f"{path}: is cut short: its last line does not end")
    if (n_lines := text.count("\n")) > MAX_ROWS:
        raise ValueError(f"{path}: expected at most {MAX_ROWS:,} rows, got {n_lines:,}")
    try:
        rows = csv.reader(io.StringIO(text))
        header = next(rows)
        if len(header) > MAX_COLUMNS:
            raise ValueError(f"expected at most {MAX_COLUMNS} columns, got {len(header):,}")
        for at, row in enumerate(rows, 1):
            if len(row) != len(header):
                raise ValueError(f"row {at} has {len(row)} cells, and the header {len(header)}")
        types = dict.fromkeys(TEXT_COLUMNS, str)
        table = pd.read_csv(io.StringIO(text), index_col=False, low_memory=False, dtype=types)
    except (csv.Error, OverflowError, ValueError) as error:
        raise ValueError(f"{path}: is no table ({one_line(error)})") from None
    if len({*header, *KEYS}) < len(header) + len(KEYS) or not all(re.fullmatch(r"\w+", c) for c in header):
        expected = f"different words, none of them {', '.join(KEYS)}"
        raise ValueError(f"{path}: columns: expected {expected}, got {shortened(header)}")
    if missing := [column for column in TABLES[name] if column not in table]:
        raise ValueError(f"{path}: lacks the column {missing[0]!r}")
    for column, values in table.items():
        values, known = values.dropna(), TEXT_COLUMNS.get(column)
        if known is None:
            expected, valid = "number", pd.to_numeric(values, errors="coerce").abs() < MAX_NUMBER
        elif known:
            expected, valid = " or ".join(known), values.isin(known)
        else:
            expected, valid = "name", values.str.len() <= MAX_TEXT_LENGTH
        if not valid.all():
            row, value = values[~valid].index[0], values[~valid].iloc[0]
            raise ValueError(f"{path}: row {row + 1}: {column}: expected {expected}, got {shortened(value)}")
    return table


def read_valid(path: Path, model: TypeAdapter, within: Path | None = None, max_bytes: int = MAX_BYTES):
    """The value in a JSON file as it was parsed, once it is valid for `model`."""
    value = read_json(path, max_bytes, within)
    try:
        model.validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{path}: {first_error(error)}") from None
    return value
