"""What the files of a run folder may hold; they are read as untrusted input.

`write` lists them. Every error is FileNotFoundError or ValueError in one line that begins with the path and
names the value found and what is expected. `within`: the folder that a file must lie in, links resolved.
"""

import csv
import functools
import io
import re
import reprlib
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import pandas as pd
import pydantic
from pydantic import AfterValidator, BaseModel, FailFast, Field, Strict, TypeAdapter, ValidationError

from gradlib.config import BRANCHES, Solution, Training
from gradlib.data.files import MAX_BYTES, MAX_TABLE_BYTES, one_line, read_json, read_text

KEYS = ("solution", "fold", "seed")
# The tables of a run, and the columns that each must have.
TABLES = {
    "steps": (),
    "probes": ("step", "stage", "kind", "cosine"),
    "pairs": ("class", "view", "cosine"),
    "batches": ("step", "image"),
    "epochs": (),
}
#: The columns of text, and the values that they may have; (): any name.
TEXT_COLUMNS = {"stage": BRANCHES[1:], "kind": ("conv", "norm"), "image": ()}
MAX_NAMES, MAX_NAME_LENGTH, MAX_TEXT_LENGTH = 2000, 100, 4096
MAX_BOXES = 1000  # of an image; a run keeps 100
MAX_NUMBER = 2**63

Number = Annotated[float, Field(gt=-MAX_NUMBER, lt=MAX_NUMBER)]
Score = Number | None
Text = Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]
TYPES = {bool: bool, int: Annotated[int, Field(gt=-MAX_NUMBER, lt=MAX_NUMBER)], float: Number, str: Text}


def _different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError(f"expected different names, got {_short(names)}")
    return names


def _solution(values: dict) -> dict:
    known = {one.name for one in fields(Solution)}  # other versions have others too
    try:
        Solution(**{key: value for key, value in values.items() if key in known})
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"expected a solution, got {_short(values)} ({error})") from None
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
_Config = pydantic.create_model(
    "_Config",
    __base__=_Open,
    solution=Annotated[dict, AfterValidator(_solution)],
    data=Text,
    **dict.fromkeys(("classes", "views"), Names),
    **{name: (Text, "") for name in ("split", "pretrained")},
    **{name: (TYPES[int], 0) for name in ("fold", "folds")},
    **{one.name: (TYPES[type(one.default)], one.default) for one in fields(Training)},
)
CONFIG, METRICS, ENVIRONMENT = TypeAdapter(_Config), TypeAdapter(_Metrics), TypeAdapter(dict)


@functools.cache
def _predictions(classes: int, views: int) -> TypeAdapter:
    """The model of predictions.json of a run with so many classes and views."""
    label = Annotated[float, Field(ge=0, lt=classes, multiple_of=1)]
    name, scores = Annotated[Text, Field(min_length=1)], Annotated[list[Number], Field(max_length=views)]

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


def read_config(folder: Path, within: Path | None = None) -> dict:
    """The parameters of a run, and its solution in full."""
    return _read(folder / "config.json", CONFIG, within)


def read_environment(folder: Path, within: Path | None = None) -> dict:
    """Versions, git revision, device and the data's fingerprint."""
    return _read(folder / "environment.json", ENVIRONMENT, within)


def read_metrics(folder: Path, within: Path | None = None) -> dict:
    """The final metrics of each part (at least "test") and the "cost": numbers, None where there is none."""
    return _read(folder / "metrics.json", METRICS, within)


def read_predictions(
    folder: Path, classes: int = MAX_NAMES, views: int = MAX_NAMES, within: Path | None = None
) -> list[dict]:
    """The entries that `predict` describes, of a run with so many classes and views."""
    path = folder / "predictions.json"
    entries = _read(path, _predictions(classes, views), within, MAX_TABLE_BYTES)
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
    except FileNotFoundError:
        text = ""
    if not text.strip():
        return pd.DataFrame()
    if not text.endswith("\n"):
        raise ValueError(f"{path}: is cut short: its last line does not end")
    try:
        header, *rows = csv.reader(io.StringIO(text))
        for at, row in enumerate(rows, 1):
            if len(row) != len(header):
                raise ValueError(f"row {at} has {len(row)} cells, and the header {len(header)}")
        types = dict.fromkeys(TEXT_COLUMNS, str)
        table = pd.read_csv(io.StringIO(text), index_col=False, low_memory=False, dtype=types)
    except (csv.Error, OverflowError, ValueError) as error:
        raise ValueError(f"{path}: is no table ({one_line(error)})") from None
    if len({*header, *KEYS}) < len(header) + len(KEYS) or not all(re.fullmatch(r"\w+", c) for c in header):
        expected = f"different words, none of them {', '.join(KEYS)}"
        raise ValueError(f"{path}: columns: expected {expected}, got {_short(header)}")
    for column in TABLES[name]:
        if column not in table:
            raise ValueError(f"{path}: lacks the column {column!r}")
    for column, values in table.items():
        values, known = values.dropna(), TEXT_COLUMNS.get(column, ())
        if column in TEXT_COLUMNS:
            valid = values.isin(known) if known else values.str.len() <= MAX_TEXT_LENGTH
        else:
            valid = pd.to_numeric(values, errors="coerce").abs() < MAX_NUMBER
        if not valid.all():
            row, value = values[~valid].index[0], values[~valid].iloc[0]
            expected = " or ".join(known) or ("name" if column in TEXT_COLUMNS else "number")
            raise ValueError(f"{path}: row {row + 1}: {column}: expected {expected}, got {_short(value)}")
    return table


def _read(path: Path, model: TypeAdapter, within: Path | None, max_bytes: int = MAX_BYTES):
    """The value in a JSON file as it was parsed, once it is valid for `model`."""
    value = read_json(path, max_bytes, within)
    try:
        model.validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{path}: {first_error(error)}") from None
    return value


def first_error(error: ValidationError) -> str:
    """The first error that pydantic found in one line: `entry 0: view: expected integer, got 0.5`."""
    first = error.errors(include_url=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    where = re.sub(r"^\[(\d+)\]\.?", r"entry \1: ", one_line(where)).strip(".: ")[:200]
    text = re.sub(r"^\w+ should (be|have) (a valid )?", "expected ", first["msg"])
    text = re.sub(r"^Value error, | or instance of \w+| after validation.*", "", text)
    text = text.replace("Field required", "missing")
    if first["type"] not in ("missing", "value_error"):
        text += f", got {_short(first['input'])}"
    return f"{where}: {text}" if where else text


def _short(value: object) -> str:
    return one_line(reprlib.repr(value))[:80]
