"""What a study file asks for: the entries under `solutions`, each with its parameters and its grid.

    solutions:
      - baseline
      - {from: gradnorm, grid: {alpha: [0.5, 1.5]}}     # gradnorm-alpha=0.5 and gradnorm-alpha=1.5
      - {name: short, from: dual, parameters: {epochs: 4}}
    grid: {learning_rate: [1e-3, 3e-3]}                 # for every entry that takes it

Each combination of a grid's values is a *point*: a solution of its own, with a name that says which.
"""

import contextlib
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from gradlib.config import TASKS, Solution, Training, check_folder_name, closest, find_solution
from gradlib.data.yaml_file import YamlFile

__all__ = ["MOST_POINTS", "SPLITS", "Entries", "Point"]

#: What the study itself passes to a run, so that it cannot stand under `parameters`.
OWN = ("solution", "data", "split", "fold", "seed", "study", "runs", "interactive")
SPLITS = ("patients", "published")
FIELDS = tuple(one.name for one in fields(Solution) if one.name not in ("name", "description"))
GRADNORM = ("alpha", "weights_learning_rate")  # parameters that only GradNorm reads
MOST_POINTS = 1000  # of a study, or of the ends of a search
MOST = 10**6  # of any whole number among the parameters: more is a slip
TYPES = {"int": int, "float": (int, float), "bool": bool, "str": str}


@dataclass(frozen=True)
class Point:
    """One solution of the study. `key` is where its entry stands, `base` the name before the grid's values.

    entry: the entry without its parameters and grid, with a name.
    parameters: of 01_solution, for this solution's runs alone.
    choice: the grid's values.
    """

    key: str
    entry: Mapping
    parameters: Mapping
    choice: Mapping = field(default_factory=dict)

    @property
    def base(self) -> str:
        return self.entry["name"]

    @property
    def name(self) -> str:
        chosen = ",".join(f"{key}={_text(value)}" for key, value in self.choice.items())
        return f"{self.base}-{chosen}" if chosen else self.base

    @property
    def spec(self) -> str | Mapping:
        """What the notebook is told: a registered name, or a mapping of `Solution`'s fields."""
        values = {key: value for key, value in self.choice.items() if key in FIELDS}
        spec = {**self.entry, **values, "name": self.name}
        return self.name if spec == {"name": self.name, "from": self.name} else spec

    @property
    def values(self) -> dict:
        """The parameters of the notebook that differ from the study's."""
        return {**self.parameters, **{k: v for k, v in self.choice.items() if k not in FIELDS}}


def _text(value: object) -> str:
    """A grid's value as a part of a name: 1.0 as 1, a list joined by _."""
    if isinstance(value, (list, tuple)):
        return "_".join(_text(one) for one in value)
    if isinstance(value, Mapping):
        return "_".join(f"{key}_{_text(one)}" for key, one in value.items()) or "none"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return re.sub(r"[^\w.+-]", "_", str(value)) or "none"


def _combinations(grid: Mapping) -> Iterator[dict]:
    """Each choice of one value a key; the last key changes fastest."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


@dataclass(frozen=True)
class Entries:
    """Checks of the study `file` against the parameters of 01_solution as papermill `inspected` them."""

    file: YamlFile
    inspected: Mapping
    project: Path  # what paths start from

    def parameters(self, key: str, values: object, also: tuple[str, ...] = ()) -> dict:
        """The mapping of parameters at `key`, each known to the notebook and of the type that it names.

        also: what of the study's own may stand here.
        """
        values = self._mapping(key, values, "`epochs: 12`")
        return {name: self._parameter(f"{key}.{name}", name, value, also) for name, value in values.items()}

    def points(self) -> list[Point]:
        """The solutions of the study, in order: of different names, each with what it starts from."""
        entries = self.file.values.get("solutions")
        if not isinstance(entries, list) or not entries:
            raise self.file.error("solutions", "'solutions' must be a list, as [baseline, gradnorm]")
        shared = self._grid("grid", self.file.values.get("grid"))
        points = [
            point
            for at, entry in enumerate(entries)
            for point in self._expanded(f"solutions.{at}", entry, shared)
        ]
        for name in shared:
            if not any(name in point.choice for point in points):
                raise self.file.error(f"grid.{name}", f"no solution here takes {name!r}")
        self.bounded("solutions", len(points))
        points = [self._followed(point, points) for point in points]
        known = set()
        for point in points:
            if point.name in known:
                text = f"solution {point.name!r} is given twice; name one differently"
                raise self.file.error(point.key, text)
            known.add(point.name)
        return points

    def bounded(self, key: str, combinations: int) -> None:
        """Raise ValueError where the grid at `key` has too many combinations to be made."""
        if combinations > MOST_POINTS:
            text = f"these are {combinations:,} combinations; give fewer values, for {MOST_POINTS:,} at most"
            raise self.file.error(key, text)

    def path(self, key: str, value: object, *near: str, known: tuple[str, ...] = ()) -> str:
        """The path `value` as notebooks are told of it, from the project folder; `near` are the patterns of
        what may have been meant where there is no such file, beside the names `known`."""
        path = self.project / str(value)
        if not os.path.isfile(path):  # unlike `Path`, also false of a name that is too long to ask for
            name = key.rpartition(".")[2]
            beside = path.parent if os.path.isdir(path.parent) else self.project
            found = [other for pattern in near for other in beside.glob(pattern)]
            meant = [*known, *sorted(os.path.relpath(other, self.project) for other in found)]
            message = f"{name} {value!r} is no file, taken from {self.project}"
            raise self.file.error(key, message + (closest(str(value), meant) if meant else ""))
        # An executed notebook shows its parameters and is meant to be shared: no path of this machine.
        return Path(os.path.relpath(path, self.project)).as_posix() if path.is_absolute() else str(value)

    def _mapping(self, key: str, values: object, example: str) -> dict:
        name = key.rpartition(".")[2]
        if values is None:
            return {}
        if not isinstance(values, dict):
            raise self.file.error(key, f"{name!r} must be a mapping, as {example}")
        return values

    def _parameter(self, key: str, name: str, value: object, also: tuple[str, ...]) -> object:
        if name in OWN and name not in also:
            raise self.file.error(key, f"{name!r} is set by the study, not under 'parameters' or 'grid'")
        if name not in self.inspected:
            known = [name for name in self.inspected if name not in OWN or name in also]
            raise self.file.unknown(key, str(name), "parameter", known)
        kind = self.inspected[name]["inferred_type_name"]
        wanted = TYPES.get(kind)
        if kind == "float" and isinstance(value, str):  # YAML takes 1e-3 for a text
            with contextlib.suppress(ValueError):
                value = float(value)
        if wanted and (not isinstance(value, wanted) or (kind != "bool" and type(value) is bool)):
            raise self.file.error(key, f"{name!r} is {value!r}, which is no {kind}")
        if kind == "float" and not math.isfinite(value):
            raise self.file.error(key, f"{name!r} is {value!r}; give a finite number")
        if kind == "int" and abs(value) > MOST:
            raise self.file.error(key, f"{name!r} is {value}; give at most {MOST:,}")
        if name == "split" and value not in SPLITS:
            raise self.file.unknown(key, value, "split", SPLITS)
        if name in {setting.name for setting in fields(Training)}:
            try:
                Training(**{name: value})
            except ValueError as error:
                raise self.file.error(key, str(error)) from None
        return self.path(key, value, "*.pt") if name == "pretrained" and value else value

    def _grid(self, key: str, grid: object) -> dict:
        """The grid at `key`: lists of different values by solution field or parameter."""
        grid = self._mapping(key, grid, "`alpha: [0.5, 1.5]`")
        checked = {}
        for name, values in grid.items():
            here = f"{key}.{name}"
            if name not in FIELDS and name not in self.inspected:
                known = [*FIELDS, *(name for name in self.inspected if name not in OWN)]
                raise self.file.unknown(here, str(name), "key of a grid", known)
            if not isinstance(values, list) or not values:
                raise self.file.error(here, f"{name!r} is {values!r}; give a list of values, as [0.5, 1.5]")
            if name not in FIELDS:
                values = [self._parameter(here, name, value, ("split",)) for value in values]
            if any(value in values[:at] for at, value in enumerate(values)):
                raise self.file.error(here, f"{name!r} is {values!r}; give each value once")
            checked[name] = values
        return checked

    def _expanded(self, key: str, entry: object, shared: Mapping) -> Iterator[Point]:
        """The points of an entry: of its own grid, then of the keys of the file's grid that each takes."""
        if isinstance(entry, dict):
            own = {name: value for name, value in entry.items() if name not in ("parameters", "grid")}
            if len(own) < len(entry) and not own.get("name") and own.get("from"):
                own["name"] = self._solution(key, own["from"]).name
            if not own.get("name"):
                self._solution(key, own)  # raises
        else:
            own = {"name": self._solution(key, entry).name, "from": entry}
            entry = {}
        parameters = self.parameters(f"{key}.parameters", entry.get("parameters"), ("split",))
        grid = self._grid(f"{key}.grid", entry.get("grid"))
        said = {**own, **parameters}
        for name in grid:
            if name in said:
                raise self.file.error(f"{key}.grid.{name}", f"{name!r} is given beside the grid too")
        said |= grid
        self.bounded(f"{key}.grid", math.prod(map(len, grid.values())))
        points = [Point(key, own, parameters, choice) for choice in _combinations(grid)]
        # What a solution is decides which parameters it takes.
        for group in (FIELDS, self.inspected):
            taken = [
                {
                    name: values
                    for name, values in shared.items()
                    if name in group and name not in said and self._takes(point, name)
                }
                for point in points
            ]
            self.bounded("grid", sum(math.prod(map(len, values.values())) for values in taken))
            points = [
                Point(key, own, parameters, {**point.choice, **choice})
                for point, values in zip(points, taken, strict=True)
                for choice in _combinations(values)
            ]
        for point in points:
            self._named(key, point)
            self._solution(key, point.spec)
        yield from points

    def _named(self, key: str, point: Point) -> None:
        try:
            check_folder_name(point.name, "solution")
        except ValueError as error:
            raise self.file.error(key, str(error)) from None

    def _takes(self, point: Point, name: str) -> bool:
        """Whether the grid of the whole file concerns this solution: `name` changes something in it."""
        chosen = self._solution(point.key, point.spec)
        if name in GRADNORM:
            return chosen.balancer == "gradnorm"
        if name == "weights" and len(chosen.tasks) < len(TASKS):
            return False
        return name not in chosen.unresolved_fields

    def _followed(self, point: Point, points: list[Point]) -> Point:
        """`point`, starting from the point of the same choices where what it starts from became several."""
        chosen, known = self._solution(point.key, point.spec), {other.name for other in points}
        found = {}
        for name in ("weights_from", "branch_from"):
            other = getattr(chosen, name)
            if not other or other in known:
                continue
            several = [one for one in points if one.base == other]
            same = [one for one in several if one.choice.items() <= point.choice.items()]
            same = several if len(several) == 1 else same
            if len(same) == 1:
                found[name] = same[0].name
            elif several:
                listed = ", ".join(one.name for one in several)
                text = f"{chosen.name!r} starts from {other!r}, which is several here: name one of {listed}"
                raise self.file.error(point.key, f"{text} under {name!r}")
            else:
                text = f"{chosen.name!r} starts from {other!r}: name that one too"
                raise self.file.error(point.key, text)
        return Point(point.key, {**point.entry, **found}, point.parameters, point.choice)

    def _solution(self, key: str, spec: object) -> Solution:
        try:
            return find_solution(spec)
        except (ValueError, TypeError) as error:
            raise self.file.error(key, str(error)) from None
