"""A study: all its runs, read from their folders as pandas tables.

A run folder that cannot be read is named and left out; the others are read all the same.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from gradlib.config import Solution
from gradlib.data import names
from gradlib.runs import schema
from gradlib.runs.schema import KEYS, TABLES, is_complete, project_folder

__all__ = ["Study", "asked", "load"]

CURE = "copy the run again, or remove its folder"


@dataclass(frozen=True)
class Study:
    """All complete runs of a study.

    runs: one row a run (solution, fold, seed, path, branch, balancer, split, the test metrics, the cost).
    steps, probes, pairs, batches, epochs: the runs' tables, with solution, fold and seed in front.
    incomplete: folders of runs that have begun and not ended.
    unreadable: a line for each run that has ended and cannot be read: its file, what is wrong, the cure.
    published: where a study splits by patient and as published, the rows of the latter, which are then in no
        other table: what they score is memory. `of`: the solution that such a run repeats, or None.
    guessed: solutions that have no network and name views only: under which key of the entries of the run at
        their `path` their view scores are (see `controls.with_controls`).
    """

    folder: Path
    runs: pd.DataFrame
    steps: pd.DataFrame
    probes: pd.DataFrame
    pairs: pd.DataFrame
    batches: pd.DataFrame
    epochs: pd.DataFrame
    incomplete: list[Path]
    published: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*KEYS, "path", "of"]))
    guessed: Mapping[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def predictions(self, solution: str, fold: int = 0, seed: int = 0) -> list[dict]:
        """The test predictions of one run."""
        entries = _predictions(self._folder(solution, fold, seed), self.folder)
        if solution not in self.guessed:
            return entries
        key = self.guessed[solution]
        return [{**entry, "detections": [], "view_scores": entry[key]} for entry in entries]

    def config(self, solution: str, fold: int = 0, seed: int = 0) -> dict:
        """The parameters of one run, with its environment under "environment"."""
        folder = self._folder(solution, fold, seed)
        return _config(folder, self.folder)

    def metrics(self, solution: str, fold: int = 0, seed: int = 0) -> dict:
        """The final metrics of one run, as its metrics.json has them."""
        if solution in self.guessed:
            return {"test": self._row(solution, fold, seed)[["accuracy", "balanced_accuracy"]].to_dict()}
        return schema.metrics(self._folder(solution, fold, seed), self.folder)

    def _folder(self, solution: str, fold: int, seed: int) -> Path:
        return self.folder / self._row(solution, fold, seed)["path"]

    def _row(self, solution: str, fold: int, seed: int) -> pd.Series:
        for table in (self.runs, self.published):
            found = (table[[*KEYS]] == [solution, fold, seed]).all(axis=1)
            if found.any():
                return table[found].iloc[0]
        raise ValueError(f"{self.folder}: no complete run of {solution!r}, fold {fold}, seed {seed}")


def load(folder: str | Path) -> Study:
    """Read the study in `folder` (relative: from the project folder). Raises FileNotFoundError with the
    cure where it holds no complete run, ValueError where it can read none."""
    folder = project_folder() / folder
    begun = sorted(path.parent for path in folder.glob("*/fold=*/seed=*/config.json"))
    complete = [run for run in begun if is_complete(run)]
    if not complete:
        raise FileNotFoundError(
            f"{folder}: no complete run; run `python -m gradlib study FILE` or 01_solution.ipynb first"
        )
    rows, solutions, unreadable, tables = [], [], [], {name: [] for name in TABLES}
    labels = {}
    for run in complete:
        try:
            row, solution, own = _run(run, folder, labels)
        except (FileNotFoundError, ValueError) as error:
            # In the study's folder: no path of this machine in the executed notebook.
            unreadable.append(f"{str(error).removeprefix(f'{folder}{os.sep}')}; {CURE}")
            continue
        rows.append(row)
        solutions.append(solution)
        for name, table in own.items():
            tables[name].append(table)
    if not rows:
        raise ValueError(f"{folder}: none of {len(complete)} complete runs can be read: {unreadable[0]}")
    runs = pd.DataFrame(rows).infer_objects()
    # A metric that a whole study lacks comes as None, and would make its column one of objects.
    numbers = [c for c in runs if c not in ("solution", "path", "branch", "balancer", "split")]
    runs[numbers] = runs[numbers].apply(pd.to_numeric)
    joined = {
        name: pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*KEYS, *TABLES[name]])
        for name, parts in tables.items()
    }
    incomplete = [run for run in begun if run not in complete]
    study = Study(folder, runs, **joined, incomplete=incomplete, unreadable=unreadable)
    leaking = runs["split"] == "published"
    return _set_apart(study, leaking, solutions) if leaking.any() and not leaking.all() else study


def _run(run: Path, folder: Path, labels: dict) -> tuple[dict, dict, dict[str, pd.DataFrame]]:
    """The run in the folder `run` of the study in `folder`: its row, what it `asked`, its tables.

    labels: the classes and views that all runs of a study have, of the first one. Also what is read later is
    looked at. Raises FileNotFoundError or ValueError.
    """
    try:
        key = {"solution": names.checked(run.parts[-3], "solution")}
    except ValueError as error:
        raise ValueError(f"{run}: {error}") from None
    for name, part in zip(KEYS[1:], run.parts[-2:], strict=True):
        number = re.fullmatch(rf"{name}=(0|[1-9][0-9]{{0,9}})", part)
        if not number:
            raise ValueError(f"{run}: {part!r} is no {name}=<number>")
        key[name] = int(number[1])
    config, metrics = _config(run, folder), schema.metrics(run, folder)
    schema.predictions(run, len(config["classes"]), len(config["views"]), folder)
    own = {name: config[name] for name in ("classes", "views")}
    if {**own, **labels} != own:
        raise ValueError(f"{run / 'config.json'}: has other classes or views than the study's first run")
    row = {
        **key,
        "path": run.relative_to(folder).as_posix(),
        "branch": config["solution"]["branch"],
        "balancer": config["solution"]["balancer"],
        "split": config.get("split", "patients"),
    }
    numbers = {**metrics["test"], **metrics["cost"]}
    row |= {name: value for name, value in numbers.items() if name != "ap50" and name not in row}
    tables = {}
    for name in TABLES:
        table = schema.table(run, name, folder)
        if len(table):
            for at, (column, value) in enumerate(key.items()):
                table.insert(at, column, value)
            tables[name] = table
    pairs = tables.get("pairs", pd.DataFrame(columns=["class", "view"]))
    if not (
        pairs["class"].isin(range(len(own["classes"]))) & pairs["view"].isin(range(len(own["views"])))
    ).all():
        raise ValueError(f"{run / 'pairs.csv'}: has a class or a view that config.json has not")
    labels.update(own)
    return row, asked(config), tables


def _config(run: Path, folder: Path) -> dict:
    found = schema.config(run, folder) | {"environment": schema.environment(run, folder)}
    for name in ("data", "classes", "views"):
        if name not in found:
            raise ValueError(f"{run / 'config.json'}: lacks {name}")
    return found


def _predictions(run: Path, folder: Path) -> list[dict]:
    config = _config(run, folder)
    return schema.predictions(run, len(config["classes"]), len(config["views"]), folder)


def asked(config: Mapping) -> dict:
    """The solution of a run's `config`, but its name and description: what tells two runs of one solution
    by different names. What a run made earlier does not say is at its default."""
    default = json.loads(json.dumps(asdict(Solution("default"))))  # lists, where a Solution has tuples
    solution = {**default, **config["solution"]}
    return {key: value for key, value in solution.items() if key not in ("name", "description")}


def _set_apart(study: Study, leaking: pd.Series, solutions: Sequence[dict]) -> Study:
    """`study` with the runs that are `leaking` in `published` alone; `solutions`: what each run `asked`."""
    rows = list(zip(study.runs["solution"], leaking, solutions, strict=True))
    own = [(name, solution) for name, leaks, solution in rows if not leaks]
    of = [
        next((name for name, other in own if other == solution), None) for _, leaks, solution in rows if leaks
    ]
    published = study.runs[leaking].reset_index(drop=True).assign(of=pd.Series(of, dtype=object))
    gone = set(published[[*KEYS]].itertuples(index=False, name=None))

    def rest(table: pd.DataFrame) -> pd.DataFrame:
        kept = [key not in gone for key in table[[*KEYS]].itertuples(index=False, name=None)]
        return table[np.array(kept, bool)].reset_index(drop=True)  # an empty list would choose no column

    tables = {name: rest(getattr(study, name)) for name in ("runs", *TABLES)}
    return replace(study, **tables, published=published)
