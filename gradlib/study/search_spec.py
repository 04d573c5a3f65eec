"""What a study file asks to search: a solution, the space of its values, an objective, a number of trials."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gradlib.checks import SEARCH_FOLDER
from gradlib.config import TASKS
from gradlib.data.files import read_json
from gradlib.study.objective import DELTA_M, tasks_of
from gradlib.study.points import Point, combine, expand, solution_of, takes
from gradlib.study.study_file import FIELDS, Range

if TYPE_CHECKING:  # it imports this module
    from gradlib.study.spec import Job, StudySpec

ASKED = "search.json"  # what the trials in a folder were asked for
RANGE = tuple(Range.model_fields)


@dataclass(frozen=True)
class SearchSpec:
    """A checked search.

    point: the solution at the values that are not searched. space: by name a range or a list to choose from.
    asked: what may not change while there are trials. report: the notebook that shows them.
    """

    spec: "StudySpec"
    point: Point
    space: Mapping[str, Range | Sequence]
    trials: int
    objective: str
    pruner: bool
    seed: int
    asked: Mapping
    report: "Job"

    @property
    def folder(self) -> Path:
        """Where the trials are, each as a solution named trial-<number>."""
        return self.spec.folder / SEARCH_FOLDER

    def jobs(self, name: str, values: Mapping) -> list["Job"]:
        """The runs of the trial `name` at these values of the space, by fold and seed."""
        point = replace(self.point.at(values), base=name, choice={})
        jobs = self.spec.jobs_of(point, f"{self.spec.name}/{SEARCH_FOLDER}")
        return [replace(job, label=f"{SEARCH_FOLDER}/{job.label}") for job in jobs]

    def complete(self, job: "Job") -> bool:
        """Whether the run of `job` exists and was made with its parameters."""
        try:
            return self.spec.is_made(job)
        except ValueError:
            return False

    def specialists(self) -> dict[str, list["Job"]]:
        """By task the runs that `delta_m` compares with: the study's own where they are complete and were
        trained alike, else runs in the search."""
        found = {}
        for task in TASKS if self.objective == DELTA_M else ():
            point = replace(self.point, base=f"{task}-only", fields={"from": f"{task}-only"})
            pairs = zip(
                self.spec.jobs_of(point), replace(self, point=point).jobs(point.base, {}), strict=True
            )
            found[task] = [own if self.complete(own) else other for own, other in pairs]
        return found


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


def read_search(spec: "StudySpec", report: "Job") -> SearchSpec | None:
    """The search of a study, if any. report: the notebook that shows it.

    Raises ValueError, in one line, where it cannot be trained or judged, or there are trials of another.
    """
    search, error = spec.keys.search, spec.file.error
    if search is None:
        return None
    (point, *more) = expand(spec.file, "search.solution", search.solution)
    if more or point.choice:
        raise error("search.solution.grid", "a search has no grid: its values go to 'space'")
    if solution_of(spec.file, point).depends_on:
        text = f"{point.name!r} starts from another run, which a search has not: give its values"
        raise error(point.key, text)
    ends = {n: [part.low, part.high] if isinstance(part, Range) else part for n, part in search.space.items()}
    grid = {name: values if name in FIELDS else values[:1] for name, values in ends.items()}
    corners = combine(spec.file, "search.space", [replace(point, key="search.space")], grid)
    for corner in corners:
        corner = replace(corner, choice={})
        if missing := {*tasks_of(search.objective)} - {*solution_of(spec.file, corner).tasks}:
            text = f"{search.objective!r} judges {min(missing)}, which {point.name!r} has not; take another"
            raise error("search.objective", text)
        spec.jobs_of(corner)  # raises
    for name in search.space:
        if not any(takes(spec.file, corner, name) for corner in corners):
            raise error(f"search.space.{name}", f"{name!r} changes nothing in {point.name!r}; leave it out")
    asked = spec.keys.model_dump(mode="json", include={"data", "split", "folds", "seeds", "parameters"})
    asked |= search.model_dump(mode="json", include={"space", "objective"})
    asked["solution"] = search.solution.model_dump(mode="json", exclude={"grid"})
    options = search.model_dump(include={"trials", "objective", "pruner", "seed"})
    found = SearchSpec(spec, point, search.space, **options, asked=asked, report=report)
    before = read_json(found.folder / ASKED) if (found.folder / ASKED).is_file() else asked
    before = before if isinstance(before, dict) else {}
    for key, value in asked.items():
        if before.get(key) != value:
            where = key if key in spec.keys.model_fields_set else f"search.{key}"
            text = f"was searched with {key} = {before.get(key)!r}, and now {value!r} is asked for"
            cure = "give the study another name, or remove that folder"
            raise error(where, f"runs/{spec.name}/{SEARCH_FOLDER} {text}: {cure}")
    return found
