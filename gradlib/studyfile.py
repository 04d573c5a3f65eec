"""The study file: a YAML list of what to run, checked as a whole before anything starts.

    name: demo                              # everything goes to runs/demo
    data: phantom                           # or a data.yaml, from the folder of the project
    split: patients                         # or published
    solutions: [baseline, {name: late, from: gradnorm, branch: p4}]
    folds: [0]
    seeds: [0, 1]
    parameters: {image_size: 128, epochs: 12}   # of notebooks/01_solution.ipynb

Only `solutions` must be given. `read` turns it into jobs: one notebook with its parameters each.
"""

import ast
import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import nbformat
import papermill
import yaml

from gradlib.config import Training, closest, from_mapping, solution
from gradlib.runs import is_complete, project_folder

__all__ = ["ANALYSIS", "COMPARE", "DATA", "SOLUTION", "Job", "Study", "read"]

DATA, SOLUTION, COMPARE, ANALYSIS = (
    f"notebooks/{name}.ipynb" for name in ("00_data", "01_solution", "02_compare", "03_analysis")
)
KEYS = ("name", "data", "split", "solutions", "folds", "seeds", "parameters")
#: What the study itself passes to a run, so that it cannot stand under `parameters`.
OWN = ("solution", "data", "split", "fold", "seed", "study", "runs")
SPLITS = ("patients", "published")
TYPES = {"int": int, "float": (int, float), "bool": bool, "str": str}


@dataclass(frozen=True)
class Job:
    """One notebook to execute; paths are relative to the project folder."""

    label: str
    notebook: str
    output: str
    parameters: Mapping = field(default_factory=dict)
    after: tuple[str, ...] = ()  # labels of the jobs whose results it reads


@dataclass(frozen=True)
class Study:
    """A checked study file."""

    name: str
    project: Path  # the folder that every other path starts from
    data: Job
    runs: tuple[Job, ...]
    complete: Mapping[str, Job]  # the runs that need not run again, by label

    @property
    def folder(self) -> str:
        """Where everything of this study goes."""
        return f"runs/{self.name}"

    def report(self, notebook: str, output: str) -> Job:
        """The job of a notebook that reads all runs of the study."""
        values = {"study": self.name, "runs": "runs"}
        return Job(output, notebook, f"{self.folder}/{output}.ipynb", values)


class _File:
    """A YAML mapping that knows the line of each key, for errors that say where."""

    def __init__(self, path: Path):
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
            node = yaml.compose(text, yaml.SafeLoader)
            self.values = yaml.safe_load(text)
        except FileNotFoundError:
            others = (str(other) for other in sorted(path.parent.glob("*.yaml")))
            message = f"study file {path} does not exist{closest(str(path), others)}"
            raise FileNotFoundError(message) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            what = getattr(error, "problem", None) or str(error)
            where = f"{path}, line {mark.line + 1}" if mark else str(path)
            raise ValueError(f"{where}: not valid YAML: {what}") from None
        if not isinstance(self.values, dict):
            raise ValueError(f"{path}: a study file is a mapping with the keys {', '.join(KEYS)}")
        self.lines: dict[str, int] = {}
        self._number(node)

    def _number(self, node: yaml.MappingNode, prefix: str = "") -> None:
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            first = self.lines.setdefault(name, key.start_mark.line + 1)
            if first != key.start_mark.line + 1:
                again = key.start_mark.line + 1
                raise self.error(name, f"{key.value!r} is given again in line {again}")
            if isinstance(value, yaml.MappingNode):
                self._number(value, f"{name}.")

    def error(self, key: str, message: str) -> ValueError:
        """The error to raise about `key` ("parameters.epochs" for a nested one)."""
        line = self.lines.get(key)
        return ValueError(f"{self.path}, line {line}: {message}" if line else f"{self.path}: {message}")

    def unknown(self, key: str, what: str, known: tuple[str, ...]) -> ValueError:
        """The error about an unknown `key`, with its nearest match among `known`."""
        name = key.rpartition(".")[2]
        return self.error(key, f"unknown {what} {name!r}{closest(name, known)}")

    def numbers(self, key: str) -> list[int]:
        """The list of whole numbers under `key`, [0] where there is none."""
        values = self.values.get(key, [0])
        whole = isinstance(values, list) and all(type(value) is int for value in values)
        if not whole or not values or min(values) < 0 or len(set(values)) < len(values):
            text = f"{key!r} is {values!r}; give a list of different whole numbers, as [0, 1, 2]"
            raise self.error(key, text)
        return values


def read(path: str | Path) -> Study:
    """Check the study file at `path` against the project's notebooks and the runs that are there.

    Nothing is started and nothing written. An unknown name, a missing path, a value of the wrong
    type, a run folder made with other parameters: ValueError or FileNotFoundError, in one line.
    """
    project = project_folder().resolve()
    file = _File(Path(path))
    for key in file.values:
        if key not in KEYS:
            raise file.unknown(str(key), "key", KEYS)
    for notebook in (DATA, SOLUTION, COMPARE, ANALYSIS):
        if not (project / notebook).is_file():
            message = f"{notebook} is missing in {project}; start from the folder of the project"
            raise FileNotFoundError(message)
    name = file.values.get("name", file.path.stem)
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise file.error("name", f"'name' is {name!r}; give letters, digits, '-', '_' and '.'")
    split = file.values.get("split", "patients")
    if split not in SPLITS:
        raise file.error("split", f"unknown split {split!r}{closest(split, SPLITS)}")

    inspected = papermill.inspect_notebook(project / SOLUTION)
    parameters = _parameters(file, inspected)
    defaults = {name: _literal(value["default"]) for name, value in inspected.items()}
    folds = file.numbers("folds")
    number = parameters.get("folds", defaults.get("folds"))
    if number is not None and max(folds) >= number:
        raise file.error("folds", f"fold {max(folds)} does not exist: of {number}, the last is {number - 1}")
    if split == "published" and len(folds) > 1:
        raise file.error("folds", "the published split has no folds: each would repeat the same run")

    data = _data(file, project)
    if parameters.get("pretrained"):
        parameters["pretrained"] = _path(
            file, "parameters.pretrained", parameters["pretrained"], project, "*.pt"
        )
    common = {"data": data, "split": split, **parameters, "study": name, "runs": "runs"}
    takes = papermill.inspect_notebook(project / DATA)
    show = {key: value for key, value in common.items() if key in takes}
    runs = [
        _run(spec, fold, seed, common)
        for spec in _solutions(file)
        for fold in folds
        for seed in file.numbers("seeds")
    ]
    return Study(
        name=name,
        project=project,
        data=Job("data", DATA, f"runs/{name}/data.ipynb", show),
        runs=tuple(runs),
        complete={job.label: job for job in runs if _complete(job, project, defaults)},
    )


def _parameters(file: _File, inspected: Mapping) -> dict:
    """The values under `parameters`, each known to the notebook and of the type that it names."""
    values = file.values.get("parameters") or {}
    if not isinstance(values, dict):
        raise file.error("parameters", "'parameters' must be a mapping, as `epochs: 12`")
    free = tuple(name for name in inspected if name not in OWN)
    for name, value in list(values.items()):
        key = f"parameters.{name}"
        if name in OWN:
            raise file.error(key, f"{name!r} is set by the study, not under 'parameters'")
        if name not in free:
            raise file.unknown(key, "parameter", free)
        kind = inspected[name]["inferred_type_name"]
        wanted = TYPES.get(kind)
        if kind == "float" and isinstance(value, str):  # YAML takes 1e-3 for a text
            with contextlib.suppress(ValueError):
                values[name] = value = float(value)
        if wanted and (not isinstance(value, wanted) or (kind != "bool" and type(value) is bool)):
            raise file.error(key, f"{name!r} is {value!r}, which is no {kind}")
    known = {setting.name for setting in fields(Training)}
    for name in known & set(values):
        try:
            from_mapping(Training, {name: values[name]}, name)
        except ValueError as error:
            raise file.error(f"parameters.{name}", str(error)) from None
    return values


def _solutions(file: _File) -> list:
    """The checked entries under `solutions`, each a name or a mapping."""
    specs = file.values.get("solutions")
    if not isinstance(specs, list) or not specs:
        raise file.error("solutions", "'solutions' must be a list, as [baseline, gradnorm]")
    try:
        chosen = [solution(spec) for spec in specs]
    except (ValueError, TypeError) as error:
        raise file.error("solutions", str(error)) from None
    names = [one.name for one in chosen]
    for one in chosen:
        for other in one.follows:
            if other not in names:
                raise file.error("solutions", f"{one.name!r} starts from {other!r}: name that one too")
    for name in names:
        if names.count(name) > 1:
            raise file.error("solutions", f"solution {name!r} is given twice; name one differently")
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise file.error("solutions", f"solution {name!r}: take letters, digits, '-', '_' and '.'")
    return specs


def _data(file: _File, project: Path) -> str:
    """The data set as notebooks are told of it: `phantom`, or a path from the project folder."""
    value = file.values.get("data", "phantom")
    return (
        value
        if value == "phantom"
        else _path(file, "data", value, project, "*.yaml", "*/data.yaml", known=("phantom",))
    )


def _path(file: _File, key: str, value: object, project: Path, *near: str, known: tuple = ()) -> str:
    """The path `value` as notebooks are told of it, from the project folder; `near` are the patterns of
    what may have been meant where there is no such file, beside the names `known`."""
    path = project / str(value)
    if not path.is_file():
        name = key.rpartition(".")[2]
        others = [os.path.relpath(other, project) for pattern in near for other in path.parent.glob(pattern)]
        meant = [*known, *sorted(others)]
        message = f"{name} {value!r} is no file, taken from {project}"
        raise file.error(key, message + (closest(str(value), meant) if meant else ""))
    # An executed notebook shows its parameters and is meant to be shared: no path of this machine.
    return Path(os.path.relpath(path, project)).as_posix() if path.is_absolute() else str(value)


def _run(spec: str | Mapping, fold: int, seed: int, common: Mapping) -> Job:
    """The job of one run, in its own folder."""
    chosen = solution(spec)
    output = f"runs/{common['study']}/{chosen.name}/fold={fold}/seed={seed}/notebook.ipynb"
    values = {"solution": spec, "fold": fold, "seed": seed, **common}
    after = tuple(f"{other} fold={fold} seed={seed}" for other in chosen.follows)
    return Job(f"{chosen.name} fold={fold} seed={seed}", SOLUTION, output, values, after)


def _literal(source: str) -> object:
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(source)
    return None


def _complete(job: Job, project: Path, defaults: Mapping) -> bool:
    """Whether the run of `job` exists already; ValueError if it was made with other parameters."""
    folder = project / Path(job.output).parent
    if not is_complete(folder) or _exception(project / job.output):
        return False
    made = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    asked = solution(job.parameters["solution"])
    wanted = {**defaults, **job.parameters, "solution": asdict(asked)}
    wanted = json.loads(json.dumps(wanted))  # as a file holds it: lists for tuples
    for values in (made, wanted):
        for field_name in ("description", *asked.left_open):  # words may change
            values["solution"].pop(field_name, None)
        for name in ("study", "runs"):
            values.pop(name, None)
    for name in sorted(made.keys() & wanted.keys()):
        if made[name] != wanted[name]:
            raise ValueError(
                f"{Path(job.output).parent} was run with {name} = {made[name]!r}, and now "
                f"{wanted[name]!r} is asked for: give the study another name, or remove that folder"
            )
    return True


def _exception(notebook: Path) -> bool:
    """Whether this executed notebook ended in an error."""
    if not notebook.is_file():
        return False  # run by hand, without the study
    metadata = nbformat.read(notebook, as_version=4).metadata
    return bool(metadata.get("papermill", {}).get("exception"))
