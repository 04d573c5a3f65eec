"""The points of a study: its solutions at each combination of their grid's values, named after it."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gradlib.checks import check_folder_name
from gradlib.config import Solution, find_solution
from gradlib.data.yaml_file import YamlFile
from gradlib.study.study_file import FIELDS, Entry, Keys

GRADNORM = ("alpha", "weights_learning_rate")  # parameters that only GradNorm reads
MAX_POINTS, MAX_RUNS = 1000, 10_000


@dataclass(frozen=True)
class Point:
    """A solution of the study at one combination of a grid's values, its `choice`.

    key: where it stands in the file. base: its name without the choice. fields: of a `Solution`, or `from`.
    parameters: of the notebook, for its runs alone.
    """

    key: str
    base: str
    fields: Mapping
    parameters: Mapping
    choice: Mapping = field(default_factory=dict)

    def at(self, values: Mapping) -> "Point":
        """This solution with these values of a grid."""
        fields = {name: value for name, value in values.items() if name in FIELDS}
        rest = {name: value for name, value in values.items() if name not in FIELDS}
        choice = {**self.choice, **values}
        return Point(self.key, self.base, {**self.fields, **fields}, {**self.parameters, **rest}, choice)

    @property
    def name(self) -> str:
        """As `gradnorm-alpha=0.5,branch=p3`: 1.0 is 1, a list is joined by _."""
        texts = {key: re.sub(r"\.0(?![\w.])", "", str(value)) for key, value in self.choice.items()}
        words = {key: re.sub(r"[^\w.+-]+", "_", text).strip("_") or "none" for key, text in texts.items()}
        choice = ",".join(f"{key}={word}" for key, word in words.items())
        return f"{self.base}-{choice}" if choice else self.base

    @property
    def spec(self) -> str | Mapping:
        """What the notebook is told: a registered name, or a mapping of `Solution`'s fields."""
        return self.name if self.fields == {"from": self.name} else {"name": self.name, **self.fields}


def read_points(file: YamlFile, keys: Keys) -> list[Point]:
    """The solutions, in order: of different names, each with what it starts from."""
    points = []
    for at, entry in enumerate(keys.solutions):
        some = expand(file, f"solutions.{at}", entry)
        # The fields first: what a solution is decides which parameters it takes.
        for of_solution in (True, False):
            grid = {n: values for n, values in keys.grid.items() if (n in FIELDS) == of_solution}
            some = combine(file, "grid", some, grid, shared=True)
        points += some
        if len(points) * len(keys.folds) * len(keys.seeds) > MAX_RUNS:
            text = f"the study has more than {MAX_RUNS:,} runs; give fewer solutions, folds or seeds"
            raise file.error(f"solutions.{at}", text)
    for name in keys.grid:
        if not any(name in point.choice for point in points):
            raise file.error(f"grid.{name}", f"no solution here takes {name!r}; leave it out")
    points = [_follow(file, point, points) for point in points]
    counts = Counter(point.name for point in points)
    for point in points:
        if counts[point.name] > 1:
            text = f"solution {point.name!r} is given twice; name one differently"
            raise file.error(point.key, text)
    return points


def expand(file: YamlFile, key: str, entry: Entry) -> list[Point]:
    """The solution at `key`, at each combination of the values of its own grid."""
    point = Point(key, entry.name, entry.model_extra, entry.parameters)
    return combine(file, f"{key}.grid", [point], entry.grid)


def combine(
    file: YamlFile, key: str, points: Sequence[Point], grid: Mapping, shared: bool = False
) -> list[Point]:
    """Each point with each combination of the values in the `grid` at `key`.

    shared: by several solutions: each takes the names that change something in it, unless it has a value.
    """
    grids = []
    for point in points:
        given = grid.keys() & {**point.fields, **point.parameters}
        if given and not shared:
            text = f"{min(given)!r} has a value beside these; leave one out"
            raise file.error(f"{key}.{min(given)}", text)
        taken = [n for n in grid if not shared or (n not in given and takes(file, point, n))]
        grids.append({name: grid[name] for name in taken})
    if (count := sum(math.prod(map(len, own.values())) for own in grids)) > MAX_POINTS:
        text = f"these are {count:,} combinations; give fewer values, for {MAX_POINTS:,} at most"
        raise file.error(key, text)
    return [
        point.at(dict(zip(own, values, strict=True)))
        for point, own in zip(points, grids, strict=True)
        for values in itertools.product(*own.values())
    ]


def takes(file: YamlFile, point: Point, name: str) -> bool:
    """Whether the field or parameter `name` changes anything in this solution."""
    solution = solution_of(file, point)
    if name in GRADNORM:
        return solution.balancer == "gradnorm"
    return name not in solution.unresolved_fields and (name != "weights" or len(solution.tasks) > 1)


def solution_of(file: YamlFile, point: Point) -> Solution:
    """The solution of a point."""
    try:
        check_folder_name(point.name, "solution")
        return find_solution(point.spec)
    except ValueError as error:
        raise file.error(point.key, str(error)) from None


def _follow(file: YamlFile, point: Point, points: Sequence[Point]) -> Point:
    """`point`, starting from the point of the same choices where what it starts from became several."""
    solution, found = solution_of(file, point), {}
    for name in ("weights_from", "branch_from"):
        start = getattr(solution, name)
        if not start or any(other.name == start for other in points):
            continue
        several = [other for other in points if other.base == start]
        alike = [other for other in several if other.choice.items() <= point.choice.items()]
        alike = several if len(several) == 1 else alike
        if len(alike) == 1:
            found[name] = alike[0].name
        elif several:
            text = f"{name} is {start!r}, which is several here: name one of "
            raise file.error(point.key, text + ", ".join(other.name for other in several))
    return replace(point, fields={**point.fields, **found})
