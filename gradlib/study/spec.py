"""What a study runs: each point of its file on each fold and seed, as one notebook with its parameters.

`study_file` shows a study file. Nothing is started before all of it is checked.
"""

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import nbformat
import papermill

from gradlib.checks import PAGES_FOLDER, SEARCH_FOLDER
from gradlib.config import find_solution
from gradlib.data.files import MAX_TABLE_BYTES, check_inside, one_line, project_folder, read_text
from gradlib.plots.language import LANGUAGES
from gradlib.runs.schema import is_complete, read_values
from gradlib.study.points import Point, read_points, solution_of
from gradlib.study.search_spec import read_search
from gradlib.study.study_file import read_keys

NAMES = ("00_data", "01_solution", "02_compare", "03_analysis", "04_search")
DATA, SOLUTION, COMPARE, ANALYSIS, SEARCH = NOTEBOOKS = [f"notebooks/{name}.ipynb" for name in NAMES]


@dataclass(frozen=True)
class Job:
    """One notebook to execute; paths are relative to the project folder.

    depends_on: labels of the runs that must have ended before. solution, epochs: of a run.
    """

    label: str
    notebook: str
    output: str
    parameters: Mapping = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    solution: str = ""
    epochs: int = 0

    @property
    def folder(self) -> Path:
        """Where it leaves what it makes."""
        return Path(self.output).parent


def read_spec(path: str | Path) -> "StudySpec":
    """Check the study file at `path` against the project's notebooks and the runs that are there.

    Nothing is written. An unknown name, a missing path, a value of the wrong type, a run folder made with
    other parameters: ValueError or FileNotFoundError, in one line.
    """
    return StudySpec(Path(path))


class StudySpec:
    """A checked study file: its `keys` and what they ask for.

    project: the folder that every other path starts from. data: the job that shows the data. runs: in order;
    complete: those that need not run again, by label. reports: what reads the runs. search: after these.
    """

    def __init__(self, path: Path):
        self.project = project_folder().resolve()
        for notebook in NOTEBOOKS:
            if not (self.project / notebook).is_file():
                text = f"{notebook} is missing in {self.project}; start from the folder of the project"
                raise FileNotFoundError(text)
        self.file, self.keys, self.defaults = read_keys(path, self.project, SOLUTION)
        keys, self.name = self.keys, self.keys.name
        if keys.split == "published" and len(keys.folds) > 1:
            text = "the published split has no folds: each would repeat the same run; leave them out"
            raise self.file.error("folds", text)
        if not keys.solutions and (keys.grid or not keys.search):
            raise self.file.error("solutions", "expected a list of solutions, as [baseline, gradnorm]")
        shown = {"study": self.name, "runs": "runs"}
        judged = {**shown, "margin": keys.margin} if keys.margin else shown
        of_study = {"data": keys.data, "split": keys.split, "interactive": False}
        self.common = {**of_study, **keys.parameters, **shown}
        self.seeds = self._seeds()
        takes = papermill.inspect_notebook(self.project / DATA)
        common = {name: value for name, value in self.common.items() if name in takes}
        self.data = self._job("data", DATA, common)
        self.points = read_points(self.file, keys)
        self.runs = [job for point in self.points for job in self.jobs_of(point)]
        labels = {job.label for job in self.runs}
        for job in self.runs:
            if missing := {*job.depends_on} - labels:
                text = f"{job.label!r} starts from {min(missing)!r}, which is no run of this study; add it"
                raise self.file.error("solutions", text)
        try:
            TopologicalSorter({job.label: job.depends_on for job in self.runs}).prepare()
        except CycleError as error:
            text = f"each starts from the next: {', '.join(error.args[1])}; give one of them its values"
            raise self.file.error("solutions", text) from None
        self.complete = {job.label: job for job in self.runs if self.is_made(job)}
        self.reports = [self._job("compare", COMPARE, {**judged, "interactive": False})] if self.runs else []
        for language in LANGUAGES if self.runs else ():  # the first one's files do not name it
            label = "analysis" if language == LANGUAGES[0] else f"analysis.{language}"
            self.reports.append(self._job(label, ANALYSIS, {**judged, "language": language}))
        outputs = [job.output for job in (self.data, *self.runs, *self.reports)]
        for path in (*outputs, self.folder / SEARCH_FOLDER):  # a stranger's study may hold links
            check_inside(self.project / path, self.folder)
        self.search = read_search(self, self._job("search", SEARCH, shown))

    @property
    def jobs(self) -> list[Job]:
        """All that is known beforehand: not the trials of a search."""
        return [self.data, *self.runs, *self.reports, *([self.search.report] if self.search else ())]

    @property
    def folder(self) -> Path:
        """Where everything of this study goes."""
        return self.project / "runs" / self.name

    def _seeds(self) -> list[int]:
        """The seeds of the file, and of the rounds that were begun beyond them."""
        last = max(self.keys.seeds)
        names = [path.name.partition("=")[2] for path in self.folder.glob("*/fold=*/seed=*")]
        begun = [int(name) for name in names if self.keys.precision and name.isdecimal() and len(name) < 10]
        return [*self.keys.seeds, *range(last + 1, max([last, *begun]) + 1)]

    def add_round(self) -> list[Job]:
        """One seed more of every solution and fold: the new runs."""
        known = {job.label for job in self.runs}
        self.seeds.append(max(self.seeds) + 1)
        self.runs = [job for point in self.points for job in self.jobs_of(point)]
        return [job for job in self.runs if job.label not in known]

    def _job(self, label: str, notebook: str, parameters: Mapping) -> Job:
        return Job(label, notebook, f"runs/{self.name}/{PAGES_FOLDER}/{label}.ipynb", parameters)

    def jobs_of(self, point: Point, study: str = "") -> list[Job]:
        """The runs of a point by fold and seed, each with its folder in the `study` (default: this one)."""
        solution, study = solution_of(self.file, point), study or self.name
        values = {**self.common, **point.parameters, "study": study}
        every = {**self.defaults, **values}
        # The published split has no folds: each would repeat the same run.
        folds = self.keys.folds[:1] if every["split"] == "published" else self.keys.folds
        if every.get("pretrained") and solution.width != 1:
            text = f"{point.name!r} has width {solution.width:g}, which {every['pretrained']!r} does not fit"
            cure = ': leave it out, or give it `parameters: {pretrained: ""}`'
            raise self.file.error(point.key, text + cure)
        if max(folds) >= every.get("folds", math.inf):
            text = f"fold {max(folds)} does not exist: of {every['folds']}, the last is {every['folds'] - 1}"
            raise self.file.error("folds", text)
        return [
            Job(
                label=f"{point.name} fold={fold} seed={seed}",
                notebook=SOLUTION,
                output=f"runs/{study}/{point.name}/fold={fold}/seed={seed}/notebook.ipynb",
                parameters={"solution": point.spec, "fold": fold, "seed": seed, **values},
                depends_on=tuple(f"{other} fold={fold} seed={seed}" for other in solution.depends_on),
                solution=point.name,
                epochs=every.get("epochs") or 0,
            )
            for fold, seed in itertools.product(folds, self.seeds)
        ]

    def is_made(self, job: Job) -> bool:
        """Whether the run of `job` exists already; ValueError if it was made with other parameters."""
        folder, notebook = self.project / job.folder, self.project / job.output
        # A run that was made by hand, without the study, has no notebook.
        if not is_complete(folder) or (notebook.is_file() and ends_in_error(notebook)):
            return False
        try:
            made, _ = read_values(folder, "config"), read_values(folder, "metrics")
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(f"{error}; remove {job.folder}, and it is run again") from None
        wanted = {**self.defaults, **job.parameters}
        ignored = {"description", *find_solution(wanted["solution"]).unresolved_fields}
        for values in (made, wanted):  # a run from before a field was added was made with the field's default
            solution = asdict(find_solution(values["solution"]))
            values["solution"] = {name: value for name, value in solution.items() if name not in ignored}
        made, wanted = json.loads(json.dumps([made, wanted]))  # as a file holds it: lists for tuples
        for name in sorted((made.keys() & wanted.keys()) - {"study", "runs"}):
            if made[name] != wanted[name]:
                raise ValueError(
                    f"{job.folder} was run with {name} = {made[name]!r}, and now {wanted[name]!r} is "
                    "asked for: give the study another name, or remove that folder"
                )
        return True


def check_data(spec: StudySpec) -> None:
    """Raises ValueError where data that complete runs were made of have changed since."""
    from gradlib.data.dataset import read_dataset

    fingerprint = cache(lambda data: read_dataset(data).fingerprint)
    for job in spec.complete.values():
        file = spec.project / job.folder / "environment.json"
        made = read_values(file.parent, "environment").get("data_fingerprint") if file.is_file() else None
        if made and made != fingerprint(data := job.parameters["data"]):
            raise ValueError(
                f"{job.folder} was run on other data than {data} holds now: give the study another name, or "
                "remove that folder"
            )


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """An executed notebook; ValueError in one line where the file holds none."""
    text = read_text(path, MAX_TABLE_BYTES)
    try:
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # whatever comes of a file that is no notebook, or of another version
        raise ValueError(f"{path}: is no notebook ({one_line(error)[:200]}); remove it") from None
    return notebook


def ends_in_error(notebook: Path) -> bool:
    """Whether this executed notebook ended in an error."""
    told = read_notebook(notebook).metadata.get("papermill")
    return isinstance(told, Mapping) and bool(told.get("exception"))
