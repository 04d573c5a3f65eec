"""What a study file asks to search: a solution, the space of its values, an objective, a number of trials.

    search:
      solution: gradnorm                        # an entry as under `solutions`
      space:                                    # parameters of 01_solution, or fields of a solution
        alpha: {low: 0.0, high: 3.0}
        learning_rate: {low: 1e-4, high: 1e-2, log: true}
        branch: [p3, p4, neck]                  # one of these
        batch_size: {low: 8, high: 32, step: 8}
      trials: 20
      objective: delta_m                        # or a metric of the validation part, as map50
      pruner: true                              # end trials early that are behind the median
      seed: 0

Only `solution` and `space` must be given.
"""

import contextlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path

from gradlib.config import TASKS
from gradlib.data.files import read_json
from gradlib.study.entries import FIELDS, MOST, OWN, Entries, Point
from gradlib.study.objective import DELTA_M, OBJECTIVES, tasks_of

__all__ = ["ASKED", "FOLDER", "Range", "Search", "decoded", "label", "read"]

FOLDER = "search"  # in the study's
ASKED = "search.json"  # what the trials in a folder were asked for
KEYS = ("solution", "space", "trials", "objective", "pruner", "seed")
RANGE = ("low", "high", "log", "step")
# Trials that differ in one of these are not trials of the same thing.
FIXED = ("epochs", "folds", "split", "tasks", "weights_from", "branch_from")


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`: whole ones or not, by `step` where it is given, or on a log scale."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False


@dataclass(frozen=True)
class Search:
    """A checked search.

    point: the solution, at the values that are not searched.
    space: by parameter a range, or the list to choose from.
    folder: where the trials lie, each as a solution named trial-<number>.
    jobs_of: the runs of a point in the study (its own name) or in the search ("<name>/search"), in the
        order of folds and seeds; complete: whether such a run exists, made as it is asked for.
    asked: what may not change while there are trials.
    """

    study: str
    folder: Path
    point: Point
    space: Mapping[str, Range | Sequence]
    trials: int
    objective: str
    pruner: bool
    seed: int
    jobs_of: Callable
    complete: Callable
    asked: Mapping
    report: object  # the job of the notebook that shows it

    def jobs(self, name: str, values: Mapping) -> list:
        """The runs of the trial `name`, at these values of the space."""
        chosen = {key: value for key, value in values.items() if key in FIELDS}
        rest = {key: value for key, value in values.items() if key not in FIELDS}
        entry = {**self.point.entry, **chosen, "name": name}
        return self._inside(Point(self.point.key, entry, {**self.point.parameters, **rest}))

    def specialists(self) -> dict[str, list]:
        """By task the runs that `delta_m` compares with: the study's own where they are complete and were
        trained alike, else runs in the search."""
        found = {}
        for task in TASKS if self.objective == DELTA_M else ():
            name = f"{task}-only"
            point = Point(self.point.key, {"name": name, "from": name}, self.point.parameters)
            pairs = zip(self.jobs_of(point, self.study), self._inside(point), strict=True)
            found[task] = [own if self.complete(own) else other for own, other in pairs]
        return found

    def _inside(self, point: Point) -> list:
        jobs = self.jobs_of(point, f"{self.study}/{FOLDER}")
        return [replace(job, label=f"{FOLDER}/{job.label}") for job in jobs]


def label(value: object) -> str | int | float | bool:
    """A choice as Optuna takes it: a list or a mapping as JSON."""
    return value if isinstance(value, (str, int, float)) else json.dumps(value)


def decoded(space: Mapping[str, object], values: Mapping) -> dict:
    """The values of a trial as they stand in the space, from those that Optuna was told."""
    return {
        name: next(choice for choice in space[name] if label(choice) == value)
        if isinstance(space[name], list)
        else value
        for name, value in values.items()
    }


def read(
    entries: Entries, study: str, jobs_of: Callable, complete: Callable, asked: Mapping, report: object
) -> Search:
    """The search of the study file that `entries` checks: ValueError in one line where it is wrong.

    jobs_of, complete, report: see `Search`. asked: what the study file says of data, folds and seeds.
    """
    reader = _Reader(entries.file, entries.inspected, entries.project)
    search = reader.search(study, jobs_of, complete, report)
    said = {
        **asked,
        "solution": {**search.point.entry, "parameters": search.point.parameters},
        "space": {
            name: {key: getattr(part, key) for key in RANGE} if isinstance(part, Range) else part
            for name, part in search.space.items()
        },
        "objective": search.objective,
    }
    search = replace(search, asked=json.loads(json.dumps(said)))
    file = search.folder / ASKED
    before = read_json(file) if file.is_file() else search.asked
    for key, was, now in _differences(before, search.asked):
        text = f"runs/{study}/{FOLDER} was searched with {key} = {was!r}, and now {now!r} is asked for"
        where = key if key.partition(".")[0] in entries.file.values else f"search.{key}"
        raise entries.file.error(where, f"{text}: give the study another name, or remove that folder")
    return search


def _differences(before: object, now: object, key: str = "") -> Iterator[tuple[str, object, object]]:
    """Where two trees of mappings differ: the key, and both values (None where there is none)."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            yield from _differences(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif before != now:
        yield key, before, now


def _divides(step: float, high: float, low: float) -> bool:
    """Whether from `low` to `high` it is a whole number of steps, as they are written in decimal."""
    with contextlib.suppress(InvalidOperation):  # more steps than Decimal counts
        return step > 0 and not (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step))
    return False


class _Reader(Entries):
    """The checks of the part `search`."""

    def search(self, study: str, jobs_of: Callable, complete: Callable, report: object) -> Search:
        values = self._mapping("search", self.file.values["search"], "`solution: gradnorm` and `space: ...`")
        for key in values:
            if key not in KEYS:
                raise self.file.unknown(f"search.{key}", str(key), "key of a search", KEYS)
        for key in ("solution", "space"):
            if not values.get(key):
                raise self.file.error("search", f"'search' has no {key!r}; it needs a solution and a space")
        points = list(self._expanded("search.solution", values["solution"], {}))
        if len(points) > 1 or points[0].choice:
            raise self.file.error("search.solution", "a search has no 'grid': its values go to 'space'")
        (point,) = points
        objective = values.get("objective", DELTA_M)
        if objective not in OBJECTIVES:
            raise self.file.unknown("search.objective", str(objective), "objective", OBJECTIVES)
        pruner = values.get("pruner", True)
        if not isinstance(pruner, bool):
            raise self.file.error("search.pruner", f"'pruner' is {pruner!r}; give true or false")
        search = Search(
            study=study,
            folder=self.project / "runs" / study / FOLDER,
            point=point,
            space=self._space(point, values["space"]),
            trials=self._count("trials", values.get("trials", 20), 1),
            objective=objective,
            pruner=pruner,
            seed=self._count("seed", values.get("seed", 0), 0),
            jobs_of=jobs_of,
            complete=complete,
            asked={},
            report=report,
        )
        self._check(search)
        return search

    def _count(self, key: str, value: object, least: int) -> int:
        if type(value) is not int or not least <= value <= MOST:
            text = f"{key!r} is {value!r}; give a whole number of at least {least}, at most {MOST:,}"
            raise self.file.error(f"search.{key}", text)
        return value

    def _space(self, point: Point, space: object) -> dict[str, Range | list]:
        space = self._mapping("search.space", space, "`alpha: {low: 0.0, high: 3.0}`")
        found = {}
        for name, values in space.items():
            key = f"search.space.{name}"
            if name in FIXED:
                text = f"{name!r} cannot be searched: trials that differ in it cannot be compared"
                raise self.file.error(key, text)
            if name not in FIELDS and name not in self.inspected:
                known = [*FIELDS, *(name for name in self.inspected if name not in OWN)]
                raise self.file.unknown(key, str(name), "parameter", [k for k in known if k not in FIXED])
            if name in point.entry or name in point.parameters:
                raise self.file.error(key, f"{name!r} is given in the search's solution too")
            if isinstance(values, dict):
                found[name] = self._range(key, name, values)
            else:
                found |= self._grid("search.space", {name: values})
        return found

    def _range(self, key: str, name: str, values: Mapping) -> Range:
        for part in values:
            if part not in RANGE:
                raise self.file.unknown(f"{key}.{part}", str(part), "key of a range", RANGE)
        kind = self.inspected[name]["inferred_type_name"] if name in self.inspected else "float"
        if kind not in ("int", "float") or (name in FIELDS and name != "width"):
            raise self.file.error(key, f"{name!r} is no number and has no range; give a list of values")
        if not {"low", "high"} <= values.keys():
            raise self.file.error(key, f"{name!r} is {values!r}; give 'low' and 'high', or a list of values")
        numbers = {
            part: self._number(f"{key}.{part}", name, values[part])
            for part in ("low", "high", "step")
            if part in values
        }
        low, high, step, log = numbers["low"], numbers["high"], numbers.get("step"), values.get("log", False)
        if low >= high:
            raise self.file.error(key, f"{name!r} goes from {low} to {high}; 'low' must be below 'high'")
        if not isinstance(log, bool):
            raise self.file.error(f"{key}.log", f"'log' of {name!r} is {log!r}; give true or false")
        if log and low <= 0:
            raise self.file.error(key, f"{name!r} starts at {low}; a log scale needs a 'low' above 0")
        if log and step is not None:
            raise self.file.error(key, f"{name!r} has both 'log' and 'step'; leave one out")
        if step is not None and not _divides(step, high, low):
            text = f"{name!r} goes from {low} to {high}, which is no multiple of its 'step', {step}"
            raise self.file.error(f"{key}.step", text)
        return Range(low, high, log, step, whole=kind == "int")

    def _number(self, key: str, name: str, value: object) -> float:
        if name in self.inspected:
            value = self._parameter(key, name, value, ())
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.file.error(key, f"{name!r} is {value!r}, which is no float")
        return value

    def _check(self, search: Search) -> None:
        """Raise ValueError where the values of the space make something that cannot be trained or judged."""
        base, points = search.point, list(self._corners(search))
        if self._solution(base.key, base.spec).depends_on:
            text = f"{base.name!r} starts from another run, which a search has not: give its values"
            raise self.file.error(base.key, text)
        for point in points:
            chosen = self._solution(point.key, point.spec)
            for task in tasks_of(search.objective):
                if task not in chosen.tasks:
                    text = f"{search.objective!r} judges {task}, which {base.name!r} has not"
                    raise self.file.error("search.objective", text)
            search.jobs_of(point, search.study)  # raises
        for name in search.space:
            if not any(self._takes(point, name) for point in points):
                text = f"{name!r} changes nothing in {base.name!r}"
                raise self.file.error(f"search.space.{name}", text)

    def _corners(self, search: Search) -> Iterator[Point]:
        """The solution at every combination of its fields' values; of a range, at both ends."""
        fields = {name: part for name, part in search.space.items() if name in FIELDS}
        ends = [(part.low, part.high) if isinstance(part, Range) else part for part in fields.values()]
        self.bounded("search.space", math.prod(map(len, ends)))
        for values in itertools.product(*ends):
            entry = {**search.point.entry, **dict(zip(fields, values, strict=True))}
            yield Point("search.space", entry, search.point.parameters)
