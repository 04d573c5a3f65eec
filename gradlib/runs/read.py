"""What runs have left: a study's results as pandas tables, and the network of one run.

A run folder of a study that cannot be read is named and left out; the others are read all the same.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from gradlib.checks import check_folder_name
from gradlib.config import Solution, find_solution
from gradlib.data.files import one_line, project_folder
from gradlib.runs import schema
from gradlib.runs.schema import KEYS, TABLES

if TYPE_CHECKING:
    from gradlib.model.yolo import MultiTaskYOLO


@dataclass(frozen=True)
class StudyResults:
    """All complete runs of a study. What it holds is given to every caller: do not change it.

    runs: one row a run (solution, fold, seed, path, branch, balancer, split, the test metrics, the cost).
    steps, probes, pairs, parts, affinity, batches, epochs: the runs' tables, with solution, fold and seed.
    incomplete: folders of runs that have begun and not ended.
    published: where a study splits by patient and as published, the rows of the latter, which are then in no
        other table: their test patients were trained on. `of`: the solution that such a run repeats, or None.
    guessed: solutions without a network (see `evidence.controls.with_controls`).
    unreadable: a line for each run that has ended and cannot be read: its file, what is wrong, the cure.
    files: by (solution, fold, seed) the "config", "metrics" and "predictions", as they were parsed.
    """

    folder: Path
    runs: pd.DataFrame
    steps: pd.DataFrame
    probes: pd.DataFrame
    pairs: pd.DataFrame
    parts: pd.DataFrame
    affinity: pd.DataFrame
    batches: pd.DataFrame
    epochs: pd.DataFrame
    incomplete: list[Path]
    published: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*KEYS, "path", "of"]))
    guessed: frozenset[str] = frozenset()
    unreadable: list[str] = field(default_factory=list)
    files: Mapping[tuple[str, int, int], Mapping] = field(default_factory=dict, repr=False)

    def predictions(self, solution: str, fold: int = 0, seed: int = 0) -> list[dict]:
        """The test predictions of one run."""
        return self._file("predictions", solution, fold, seed)

    def config(self, solution: str, fold: int = 0, seed: int = 0) -> dict:
        """The parameters of one run, with its environment under "environment"."""
        return self._file("config", solution, fold, seed)

    def metrics(self, solution: str, fold: int = 0, seed: int = 0) -> dict:
        """The final metrics of one run, as its metrics.json has them."""
        return self._file("metrics", solution, fold, seed)

    def _file(self, name: str, *run) -> object:
        if run not in self.files:
            raise ValueError("{}: no complete run of {!r}, fold {}, seed {}".format(self.folder, *run))
        return self.files[run][name]


def load_study(folder: str | Path) -> StudyResults:
    """Read the study in `folder` (relative: from the project folder). Raises FileNotFoundError with the cure
    where it holds no complete run, ValueError where none can be read."""
    folder = project_folder() / folder
    places = (folder.glob(f"*/fold=*/seed=*/{name}.json") for name in ("config", "metrics"))
    begun = sorted({path.parent for found in places for path in found})
    complete = [run for run in begun if schema.is_complete(run)]
    if not complete:
        raise FileNotFoundError(
            f"{folder}: no complete run; run `python -m gradlib study FILE` or 01_solution.ipynb first"
        )
    rows, files, unreadable = [], {}, []
    for run in complete:
        try:
            row, found = _read_run(run, folder, next(iter(files.values()), None))
        except ValueError as error:
            # Relative to the study: no path of this machine in the executed notebook.
            line = str(error).removeprefix(f"{folder}{os.sep}")
            unreadable.append(f"{line}; copy the run again, or remove its folder")
        else:
            rows.append(row)
            files[tuple(row[key] for key in KEYS)] = found
    for at in reversed(_of_other_data(folder, rows, files)):
        row = rows.pop(at)
        del files[tuple(row[key] for key in KEYS)]
        text = "was made of other data than the study's last run; run it again, or remove its folder"
        unreadable.append(f"{row['path']}: {text}")
    if not rows:
        raise ValueError(f"{folder}: none of {len(complete)} complete runs can be read: {unreadable[0]}")
    runs = pd.DataFrame(rows)
    leaking, tables = runs["split"] == "published", {}
    if leaking.any() and not leaking.all():
        keys = [solution_key(found["config"]) for found in files.values()]
        own = [(key, runs["solution"][at]) for at, key in enumerate(keys) if not leaking[at]]
        names = [next((n for k, n in own if k == key), None) for at, key in enumerate(keys) if leaking[at]]
        tables["published"] = runs[leaking].reset_index(drop=True).assign(of=pd.Series(names, dtype=object))
        runs = runs[~leaking].reset_index(drop=True)
    for name, columns in TABLES.items():
        every = [files[run].get(name) for run in runs[[*KEYS]].itertuples(index=False, name=None)]
        every = [table for table in every if table is not None] or [pd.DataFrame(columns=[*KEYS, *columns])]
        tables[name] = pd.concat(every, ignore_index=True)
    incomplete = [run for run in begun if run not in complete]
    return StudyResults(folder, runs, incomplete=incomplete, unreadable=unreadable, files=files, **tables)


def _of_other_data(study: Path, rows: list[dict], files: Mapping) -> list[int]:
    """The places of runs that read another content behind the same `data` than the last one that ended."""
    ends = [(study / row["path"] / "metrics.json").stat().st_mtime for row in rows]
    configs = [found["config"] for found in files.values()]
    made = [(config["data"], config["environment"].get("data_fingerprint")) for config in configs]
    newest = dict(made[at] for at in sorted(range(len(rows)), key=ends.__getitem__))
    return [at for at, (data, fingerprint) in enumerate(made) if fingerprint != newest[data]]


def solution_key(config: Mapping) -> dict:
    """The solution of a run's `config` without its name and description: equal for runs of one solution under
    different names. Fields that an earlier version did not write are at their defaults."""
    default = json.loads(json.dumps(asdict(Solution("default"))))  # lists, where a Solution has tuples
    solution = {**default, **config["solution"]}
    return {key: value for key, value in solution.items() if key not in ("name", "description")}


def _read_run(run: Path, study: Path, first: Mapping | None) -> tuple[dict, dict]:
    """The row of `StudyResults.runs` of the run in the folder `run`, and what its files hold, by name.

    first: the files of the study's first run, which must have the same classes and views.
    """
    number = "(0|[1-9][0-9]{0,9})"
    place = re.fullmatch(f"fold={number}/seed={number}", "/".join(run.parts[-2:]))
    if not place:
        raise ValueError(f"{run}: expected fold=<number>/seed=<number>")
    try:
        name = check_folder_name(run.parts[-3], "solution")
    except ValueError as error:
        raise ValueError(f"{run}: {error}") from None
    key = dict(zip(KEYS, (name, *map(int, place.groups())), strict=True))
    files = {name: schema.read_values(run, name, study) for name in schema.MODELS}
    config, metrics = files["config"], files["metrics"]
    config["environment"] = files.pop("environment")
    if first and any(config[name] != first["config"][name] for name in ("classes", "views")):
        raise ValueError(f"{run / 'config.json'}: has other classes or views than the study's first run")
    classes, views = len(config["classes"]), len(config["views"])
    files["predictions"] = schema.read_predictions(run, classes, views, study)
    if not files["predictions"]:
        raise ValueError(f"{run / 'predictions.json'}: has no test frame")
    for name in TABLES:
        table = schema.read_table(run, name, study)
        if table.empty and name in schema.NEVER_EMPTY:
            raise ValueError(f"{run / name}.csv: has no rows")
        if not table.empty:
            files[name] = pd.concat([pd.DataFrame(key, table.index), table], axis=1)
    pairs = files.get("pairs", pd.DataFrame(columns=["class", "view"]))
    if not (pairs["class"].isin(range(classes)) & pairs["view"].isin(range(views))).all():
        raise ValueError(f"{run / 'pairs.csv'}: has a class or a view that config.json lacks")
    solution = solution_key(config)
    row = {**key, "path": run.relative_to(study).as_posix()}
    row |= {"branch": solution["branch"], "balancer": solution["balancer"]}
    row |= {"split": config.get("split", "patients")}
    scores = {**metrics["test"], **metrics["cost"]}
    scores = {name: math.nan if value is None else value for name, value in scores.items()}
    return row | {name: value for name, value in scores.items() if name not in (*row, "ap50")}, files


def load_model(folder: str | Path) -> "MultiTaskYOLO":
    """The network of a finished run, in eval mode, from the run's folder. Raises FileNotFoundError, or
    ValueError in one line, where the folder holds none."""
    import torch

    from gradlib.model.tensor_files import check_tensors, load_tensors
    from gradlib.model.yolo import MultiTaskYOLO

    path = Path(folder) / "model.pt"
    if not path.is_file():
        cure = "give the folder of a finished run, runs/<study>/<solution>/fold=<k>/seed=<s>"
        raise FileNotFoundError(f"{path}: not found; {cure}")
    config = schema.read_values(path.parent, "config")
    weights = load_tensors(path, cure="take it from the run again")
    if not isinstance(weights, dict):
        raise ValueError(f"{path}: holds no weights by name; give the folder of a finished run")
    try:
        solution = find_solution(config["solution"])
        sizes = config["size"], len(config["classes"]), len(config["views"])
        with torch.device("meta"):  # names and shapes, no memory
            expected = MultiTaskYOLO(*sizes, solution.tasks, solution.branch, solution.width).state_dict()
    except (KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else f"describes no network ({error})"
        text = f"{path.parent / 'config.json'}: {one_line(reason)[:200]}"
        raise ValueError(f"{text}; take it from the run again") from None
    weights = check_tensors(path, weights, expected)
    model = MultiTaskYOLO(*sizes, solution.tasks, solution.branch, solution.width)
    model.load_state_dict(weights)
    return model.eval()
