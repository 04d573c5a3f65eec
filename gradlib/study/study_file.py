"""The keys of a study file and the types of their values; types of parameters come from a notebook.

    name: demo                              # everything goes to runs/demo
    data: phantom                           # or a data.yaml, from the folder of the project
    split: patients                         # or published
    solutions:
      - baseline
      - {from: gradnorm, grid: {alpha: [0.5, 1.5]}}     # gradnorm-alpha=0.5 and gradnorm-alpha=1.5
      - {name: short, from: dual, parameters: {epochs: 4}}
    grid: {learning_rate: [1e-3, 3e-3]}     # for every solution that takes it
    folds: [0]
    seeds: [0, 1]
    parameters: {image_size: 128, epochs: 12}   # of notebooks/01_solution.ipynb
    margin: {delta_m: 5, map50: 0.03}       # a smaller difference counts as none, in the analysis
    precision: {delta_m: 5}                 # seeds are added until the intervals are +-5 at most,
    budget: {runs: 60, minutes: 120}        # or so much is spent: runs, or minutes of training
    search:
      solution: gradnorm                    # as under `solutions`, without a grid
      space:                                # parameters, or fields of a solution
        alpha: {low: 0.0, high: 3.0}
        learning_rate: {low: 1e-4, high: 1e-2, log: true}
        branch: [p3, p4, neck]              # one of these
        batch_size: {low: 8, high: 32, step: 8}
      trials: 20
      objective: delta_m                    # or a metric of the validation part, as map50
      pruner: true                          # end trials early that are behind the median
      seed: 0

Only `solutions` or `search` must be given; of a search `solution` and `space`.
"""

import ast
import contextlib
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import papermill
import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, TypeAdapter, ValidationInfo

from gradlib.checks import (
    Count,
    Known,
    NotNegative,
    Number,
    Positive,
    Seed,
    check_folder_name,
    closest,
    field_types,
)
from gradlib.config import PHANTOMS, SOLUTIONS, Parameters, Solution, find_solution
from gradlib.data.yaml_file import YamlFile
from gradlib.evidence.tables import METRICS, PERFORMANCE
from gradlib.study.objective import DELTA_M, OBJECTIVES

FIELDS = tuple(name for name in field_types(Solution) if name not in ("name", "description"))
SET_BY_STUDY = ("solution", "data", "fold", "seed", "study", "runs", "interactive")  # among the parameters
# Trials that differ in one of these cannot be compared.
NOT_SEARCHED = ("epochs", "folds", "split", "tasks", "weights_from", "branch_from")
MAX_VALUES = 1000  # of a list
T = TypeVar("T")


def _check_keys(values: object, known: Iterable[str], set_by_study: Iterable[str] = ()) -> object:
    for key in values if isinstance(values, dict) else ():
        if key not in known:
            unknown = f"unknown key {key!r} here{closest(key, known)}"
            taken = f"{key!r} is set by the study; leave it out"
            error = ValueError(taken if key in set_by_study else unknown)
            place = {"type": "value_error", "loc": (str(key),), "input": key, "ctx": {"error": error}}
            raise pydantic.ValidationError.from_exception_data("", [place])
    return values


def _each(values: dict, info: ValidationInfo, part: str) -> dict:
    """The values of a mapping, each as the type takes it that its name has in this `part` of the file."""
    types, checked = info.context[part], {}
    for name, value in _check_keys(values, types, (*SET_BY_STUDY, *NOT_SEARCHED)).items():
        reader = TypeAdapter(dict[str, types[name]])
        checked |= reader.validate_python({name: value}, context=info.context)
    return checked


def _distinct(values: list) -> list:
    if len(set(map(repr, values))) < len(values):
        raise ValueError(f"got {values!r}; give each value once")
    return values


def _existing(value: str, info: ValidationInfo, patterns: Iterable[str], instead: Sequence[str]) -> str:
    """The path `value`, from the project folder, as notebooks are told of it; or what may stand `instead`."""
    project = info.context["project"]
    path = project / value
    if value not in instead and not os.path.isfile(path):  # unlike `Path`, it takes a name that is too long
        folder = path.parent if os.path.isdir(path.parent) else project
        found = (os.path.relpath(file, project) for glob in patterns for file in folder.glob(glob))
        hint = closest(value, filter(None, [*instead, *sorted(found)]))
        raise ValueError(f"{value!r} is no file, taken from {project}{hint}")
    # An executed notebook shows its parameters and is meant to be shared: no path of this machine.
    return Path(os.path.relpath(path, project)).as_posix() if os.path.isabs(value) else value


def _named(entry: object) -> object:
    """An entry as a mapping with a name."""
    if not isinstance(entry, dict):
        return {"name": find_solution(entry).name, "from": entry}
    base = entry.get("from") if "parameters" in entry or "grid" in entry else None
    name = entry.get("name") or find_solution(base or entry).name
    return {**({"from": name} if name in list(SOLUTIONS) else {}), **entry, "name": name}


def _range_or_list(value: object, read_list, info: ValidationInfo, kind: object) -> object:
    is_range = isinstance(value, dict)
    return Range[kind].model_validate(value, context=info.context) if is_range else read_list(value)


def _section(part: str) -> object:
    empty = BeforeValidator(lambda values: {} if values is None else values)  # all below it is commented out
    return Annotated[dict, AfterValidator(partial(_each, part=part)), empty]


Values, Grid, Space = map(_section, ("parameters", "grid", "space"))
Name = Annotated[str, BeforeValidator(partial(check_folder_name, what="solution"))]
Judged = Known(*(name for name, one in METRICS.items() if one.margin > 0))
DATA_FILES = {"patterns": ("*.yaml", "*/data.yaml"), "instead": PHANTOMS}
DataFile = Annotated[str, AfterValidator(partial(_existing, **DATA_FILES))]
Checkpoint = Annotated[str, AfterValidator(partial(_existing, patterns=["*.pt"], instead=[""]))]
List = Annotated[list[T], Field(min_length=1, max_length=MAX_VALUES), AfterValidator(_distinct)]


class _Strict(BaseModel, strict=True, frozen=True):
    """Values of the stated types under known keys."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _check(cls, values: object) -> object:
        return _check_keys(values, cls.model_fields)


class Range(_Strict, Generic[T]):
    """The numbers from `low` to `high`, by `step` where it is given, or on a log scale."""

    low: T
    high: T
    log: bool = False
    step: T | None = None

    @pydantic.model_validator(mode="after")
    def _check_values(self) -> "Range":
        low, high, step = self.low, self.high, self.step
        if low >= high:
            raise ValueError(f"from {low} to {high}; 'low' must be below 'high'")
        if self.log and (low <= 0 or step is not None):
            raise ValueError(f"from {low} with 'log'; give a 'low' above 0 and no 'step'")
        if step is not None and (step <= 0 or round((high - low) / step, 6) % 1):
            raise ValueError(f"from {low} to {high} is no multiple of its 'step', {step}")
        return self


class Entry(BaseModel, extra="allow", frozen=True):
    """A solution: a name, fields of `Solution` or `from`, parameters of its runs, and a grid of both."""

    name: Name
    parameters: Values = {}
    grid: Grid = {}


class Search(_Strict):
    """The part `search`."""

    solution: Annotated[Entry, BeforeValidator(_named)]
    space: Annotated[Space, Field(min_length=1)]
    trials: Positive = 20
    objective: Known(*OBJECTIVES) = DELTA_M
    pruner: bool = True
    seed: Count = 0


class Budget(_Strict):
    """What a study that asks for a precision may take at most: so many runs, so many minutes of training."""

    runs: Positive | None = None
    minutes: Annotated[Number, Field(gt=0)] | None = None


class Keys(_Strict):
    """A study file."""

    name: Annotated[str, BeforeValidator(partial(check_folder_name, what="the study"))]
    data: DataFile = "phantom"
    split: Known("patients", "published") = "patients"
    solutions: Annotated[list[Annotated[Entry, BeforeValidator(_named)]], Field(max_length=MAX_VALUES)] = []
    grid: Grid = {}
    folds: List[Count] = [0]
    seeds: List[Seed] = [0]
    parameters: Values = {}
    margin: dict[Judged, NotNegative] = {}
    precision: dict[Known(*PERFORMANCE, "delta_m"), Annotated[Number, Field(gt=0)]] = {}
    budget: Budget = Budget()
    search: Search | None = None

    @pydantic.model_validator(mode="after")
    def _check_budget(self) -> "Keys":
        if self.precision and self.budget == Budget():
            raise ValueError("'precision' adds runs until it is reached; give a 'budget' of runs or minutes")
        return self


def read_keys(path: Path, project: Path, notebook: str) -> tuple[YamlFile, Keys, dict]:
    """The study file at `path`, its keys, and the defaults of the parameters that `notebook` declares.

    Raises FileNotFoundError, or ValueError in one line with the file, the line, the value and the cure.
    """
    file, defaults = YamlFile(path, "study file"), {}
    types = {name: field_types(Solution)[name] for name in FIELDS}
    for name, declared in papermill.inspect_notebook(project / notebook).items():
        with contextlib.suppress(ValueError, SyntaxError):
            defaults[name] = ast.literal_eval(declared["default"])
        if name not in SET_BY_STUDY:
            types[name] = field_types(Parameters).get(name, Any)
    types["pretrained"] = Checkpoint
    lists = {name: List[kind] for name, kind in types.items()}
    space = {name: kind for name, kind in lists.items() if name not in NOT_SEARCHED}
    for name in space:
        if getattr(types[name], "__origin__", None) in (int, float):
            validator = pydantic.WrapValidator(partial(_range_or_list, kind=types[name]))
            space[name] = Annotated[space[name], validator]
    parameters = {name: kind for name, kind in types.items() if name not in FIELDS}
    context = {"project": project, "parameters": parameters, "grid": lists, "space": space}
    return file, file.parse(Keys, context, name=path.stem), defaults
