"""The study file: a YAML list of what to run, checked as a whole before anything starts.

    name: demo                              # everything goes to runs/demo
    data: phantom                           # or a data.yaml, from the folder of the project
    split: patients                         # or published
    solutions: [baseline, {name: late, from: gradnorm, branch: p4}]     # see `entries`
    grid: {alpha: [0.5, 1.5]}               # each combination is a solution of its own
    folds: [0]
    seeds: [0, 1]
    parameters: {image_size: 128, epochs: 12}   # of notebooks/01_solution.ipynb
    search: {...}                           # see `searchfile`

Only `solutions` or `search` must be given. `read` turns it into jobs: one notebook with its parameters each.
"""

import ast
import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import nbformat
import papermill

from gradlib.config import check_folder_name, closest, find_solution
from gradlib.data.files import MAX_TABLE_BYTES, one_line, project_folder, read_text
from gradlib.data.yaml_file import YamlFile
from gradlib.plots.language import LANGUAGES
from gradlib.runs import schema
from gradlib.runs.write import is_complete
from gradlib.study.entries import SPLITS, Entries, Point
from gradlib.study.search_spec import Search
from gradlib.study.search_spec import read as read_search

__all__ = [
    "ANALYSIS",
    "COMPARE",
    "DATA",
    "SEARCH",
    "SOLUTION",
    "Job",
    "Study",
    "ends_in_error",
    "executed",
    "read",
]

DATA, SOLUTION, COMPARE, ANALYSIS, SEARCH = (
    f"notebooks/{name}.ipynb" for name in ("00_data", "01_solution", "02_compare", "03_analysis", "04_search")
)
BATCH = {"interactive": False}  # nobody is there to move a slider
MOST_RUNS = 10_000
KEYS = ("name", "data", "split", "solutions", "grid", "folds", "seeds", "parameters", "search")


@dataclass(frozen=True)
class Job:
    """One notebook to execute; paths are relative to the project folder."""

    label: str
    notebook: str
    output: str
    parameters: Mapping = field(default_factory=dict)
    after: tuple[str, ...] = ()  # labels of the jobs whose results it reads
    solution: str = ""  # whose run it is
    epochs: int = 0  # that it will train for

    @property
    def folder(self) -> Path:
        """Where it leaves what it makes."""
        return Path(self.output).parent


@dataclass(frozen=True)
class Study:
    """A checked study file."""

    name: str
    project: Path  # the folder that every other path starts from
    data: Job
    runs: tuple[Job, ...]
    reports: tuple[Job, ...]  # what reads the runs
    complete: Mapping[str, Job]  # the runs that need not run again, by label
    search: Search | None = None  # after the runs

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All that is known beforehand: not the trials of a search."""
        return (self.data, *self.runs, *self.reports, *([self.search.report] if self.search else ()))

    @property
    def folder(self) -> Path:
        """Where everything of this study goes."""
        return self.project / "runs" / self.name


def read(path: str | Path) -> Study:
    """Check the study file at `path` against the project's notebooks and the runs that are there.

    Nothing is started and nothing written. An unknown name, a missing path, a value of the wrong
    type, a run folder made with other parameters: ValueError or FileNotFoundError, in one line.
    """
    project = project_folder().resolve()
    file = YamlFile(Path(path), "study file", KEYS)
    searches = "search" in file.values
    for notebook in (DATA, SOLUTION, COMPARE, ANALYSIS, *([SEARCH] if searches else ())):
        if not (project / notebook).is_file():
            message = f"{notebook} is missing in {project}; start from the folder of the project"
            raise FileNotFoundError(message)
    name = file.values.get("name", file.path.stem)
    try:
        check_folder_name(name, "'name' is")
    except ValueError as error:
        raise file.error("name", str(error)) from None
    split = file.values.get("split", "patients")
    if split not in SPLITS:
        raise file.error("split", f"unknown split {split!r}{closest(split, SPLITS)}")
    folds, seeds = file.numbers("folds"), file.numbers("seeds")
    if split == "published" and len(folds) > 1:
        raise file.error("folds", "the published split has no folds: each would repeat the same run")

    inspected = papermill.inspect_notebook(project / SOLUTION)
    entries = Entries(file, inspected, project)
    data = file.values.get("data", "phantom")
    if data != "phantom":
        data = entries.path("data", data, "*.yaml", "*/data.yaml", known=("phantom",))
    parameters = entries.parameters("parameters", file.values.get("parameters"))
    common = {"data": data, "split": split, **parameters, "study": name, "runs": "runs", **BATCH}
    defaults = {name: _literal(value["default"]) for name, value in inspected.items()}
    takes = papermill.inspect_notebook(project / DATA)
    show = {key: value for key, value in common.items() if key in takes}

    def jobs_of(point: Point, study: str = name) -> list[Job]:
        return _runs(file, point, {**common, "study": study, **point.values}, defaults, folds, seeds)

    points = [] if searches and not file.values.keys() & {"solutions", "grid"} else entries.points()
    if (count := len(points) * len(folds) * len(seeds)) > MOST_RUNS:
        text = f"the study has {count:,} runs; give at most {MOST_RUNS:,}: fewer solutions, folds or seeds"
        raise file.error("solutions", text)
    runs = [job for point in points for job in jobs_of(point)]
    _check_order(file, runs)
    search = None
    if searches:
        asked = {"data": data, "split": split, "folds": folds, "seeds": seeds, "parameters": parameters}
        report = Job("search", SEARCH, f"runs/{name}/search.ipynb", {"study": name, "runs": "runs"})
        search = read_search(
            entries, name, jobs_of, lambda job: _alike(job, project, defaults), asked, report
        )
    return Study(
        name=name,
        project=project,
        data=Job("data", DATA, f"runs/{name}/data.ipynb", show),
        runs=tuple(runs),
        reports=_reports(name) if runs else (),
        complete={job.label: job for job in runs if _complete(job, project, defaults)},
        search=search,
    )


def _runs(
    file: YamlFile, point: Point, common: Mapping, defaults: Mapping, folds: list[int], seeds: list[int]
) -> list[Job]:
    """The jobs of one solution, each in a folder of its own."""
    chosen = find_solution(point.spec)
    if common.get("pretrained") and chosen.width != 1:
        raise file.error(
            point.key,
            f"{point.name!r} has width {chosen.width:g}, and {common['pretrained']!r} fits no network of "
            'another width: leave the solution out, or give it `parameters: {pretrained: ""}`',
        )
    if common["split"] == "published":  # it has no folds: each would repeat the same run
        folds = folds[:1]
    number = common.get("folds", defaults.get("folds"))
    if number is not None and max(folds) >= number:
        raise file.error("folds", f"fold {max(folds)} does not exist: of {number}, the last is {number - 1}")
    return [
        Job(
            label=f"{chosen.name} fold={fold} seed={seed}",
            notebook=SOLUTION,
            output=f"runs/{common['study']}/{chosen.name}/fold={fold}/seed={seed}/notebook.ipynb",
            parameters={"solution": point.spec, "fold": fold, "seed": seed, **common},
            after=tuple(f"{other} fold={fold} seed={seed}" for other in chosen.depends_on),
            solution=chosen.name,
            epochs=common.get("epochs", defaults.get("epochs")) or 0,
        )
        for fold in folds
        for seed in seeds
    ]


def _check_order(file: YamlFile, runs: list[Job]) -> None:
    """Raise ValueError where a run starts from one that is not in the study."""
    labels = {job.label for job in runs}
    for job in runs:
        for label in job.after:
            if label not in labels:
                text = f"{job.label!r} starts from {label!r}, which is no run of this study"
                raise file.error("solutions", text)


def _reports(name: str) -> tuple[Job, ...]:
    """The comparison, and the analysis in each language."""
    values = {"study": name, "runs": "runs"}
    jobs = [Job("compare", COMPARE, f"runs/{name}/compare.ipynb", {**values, **BATCH})]
    for language in LANGUAGES:  # the first one's files bear no language in their names
        label = "analysis" if language == LANGUAGES[0] else f"analysis.{language}"
        jobs.append(Job(label, ANALYSIS, f"runs/{name}/{label}.ipynb", {**values, "language": language}))
    return tuple(jobs)


def _literal(source: str) -> object:
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(source)
    return None


def _complete(job: Job, project: Path, defaults: Mapping) -> bool:
    """Whether the run of `job` exists already; ValueError if it was made with other parameters."""
    folder = project / job.folder
    if not is_complete(folder) or ends_in_error(project / job.output):
        return False
    try:
        made, _ = schema.config(folder), schema.metrics(folder)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{error}; remove {job.folder}, and it is run again") from None
    asked = find_solution(job.parameters["solution"])
    # A run from before a field was added was made with the field's default.
    made["solution"] = asdict(find_solution(made["solution"]))
    wanted = {**defaults, **job.parameters, "solution": asdict(asked)}
    made, wanted = json.loads(json.dumps([made, wanted]))  # as a file holds it: lists for tuples
    for values in (made, wanted):
        for field_name in ("description", *asked.unresolved_fields):  # words may change
            values["solution"].pop(field_name, None)
        for name in ("study", "runs"):
            values.pop(name, None)
    for name in sorted(made.keys() & wanted.keys()):
        if made[name] != wanted[name]:
            raise ValueError(
                f"{job.folder} was run with {name} = {made[name]!r}, and now "
                f"{wanted[name]!r} is asked for: give the study another name, or remove that folder"
            )
    return True


def _alike(job: Job, project: Path, defaults: Mapping) -> bool:
    """Whether the run of `job` exists already and was made with its parameters."""
    with contextlib.suppress(ValueError):
        return _complete(job, project, defaults)
    return False


def ends_in_error(notebook: Path) -> bool:
    """Whether this executed notebook ended in an error."""
    if not notebook.is_file():
        return False  # run by hand, without the study
    told = executed(notebook).metadata.get("papermill")
    return isinstance(told, Mapping) and bool(told.get("exception"))


def executed(notebook: Path) -> nbformat.NotebookNode:
    """An executed notebook; ValueError in one line where the file holds none."""
    text, found = read_text(notebook, MAX_TABLE_BYTES), {}
    try:
        content = nbformat.reads(text, as_version=4, capture_validation_error=found)
    except Exception as error:  # whatever comes of a file that is no notebook, or of another version
        found = {"ValidationError": error}
    if found:
        reason = one_line(found["ValidationError"])[:200]
        raise ValueError(f"{notebook}: is no notebook ({reason}); remove it")
    return content
