"""The run folder, the only thing that passes between notebooks: written here, read here as pandas.

    runs/<study>/<solution>/fold=<k>/seed=<s>/
        config.json        the parameters, the solution in full, class and view names
        environment.json   versions, git revision, device, the data's fingerprint
        steps.csv          one row a training step: losses, weights, gradient norms, learning rates
        probes.csv         one row a probe, stage and kind of parameter: cosine, norms, conflict
        pairs.csv          one row a fifth probe, class and view: cosine between their gradients
        batches.csv        one row a probe and frame: which frames its batch had (before augmentation)
        epochs.csv         one row an epoch: losses of both parts, metrics of the validation part
        predictions.json   one entry a test image: truth, detections, view scores, the view guessed from jets
        model.pt           the averaged weights, a plain state dict
        metrics.json       the final metrics; written last, so a run that has it is complete
        checkpoint.pt      until then: all that the next epoch needs, written after every epoch

Every file is written whole or not at all.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gradlib import locks
from gradlib.config import Solution
from gradlib.problems import skipped

if TYPE_CHECKING:  # it brings PyTorch, which reading runs does without
    from gradlib.data import Dataset

__all__ = [
    "STOP",
    "Stopped",
    "Study",
    "after_epoch",
    "asked",
    "begin",
    "finish",
    "is_complete",
    "load",
    "peak_memory_mb",
    "project_folder",
    "run_folder",
    "save_tables",
    "save_weights",
    "write_whole",
]

STOP = "stop"  # a file in a run's folder: the run ends after its present epoch, for the reason in it
CHECKPOINT = "checkpoint.pt"
# The tables of a run, and what a reader may ask of one that no run has: without shared layers, no probe.
TABLES = {
    "steps": (),
    "probes": ("step", "stage", "kind", "cosine"),
    "pairs": ("cosine",),
    "batches": ("step", "image"),
    "epochs": (),
}
# What a run writes after its beginning.
WRITTEN = ("metrics.json", CHECKPOINT, *(f"{name}.csv" for name in TABLES), "predictions.json", "model.pt")
KEYS = ("solution", "fold", "seed")
PACKAGES = ("gradlib", "torch", "numpy", "pandas", "lightning-fabric", "faster-coco-eval", "kornia")


def project_folder() -> Path:
    """The nearest folder, from the working folder upwards, that holds the notebooks; else the working
    folder. Relative paths in a notebook's parameters start here, wherever its kernel runs."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks" / "01_solution.ipynb").is_file():
            return folder
    return here


def run_folder(runs: str | Path, study: str, solution: str, fold: int, seed: int) -> Path:
    """Where a run lives."""
    return project_folder() / runs / study / solution / f"fold={fold}" / f"seed={seed}"


def is_complete(folder: Path) -> bool:
    """Whether the run in `folder` has reached its end."""
    return (folder / "metrics.json").is_file()


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that nobody ever sees half of it. OSError with the cure where that cannot be done;
    what was there before stays."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
                file.flush()
                os.fsync(file.fileno())  # before the name changes hands, also where the power fails
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path}: cannot be written ({error.strerror}); what was there before is kept. Make room, or the "
            "folder writable, and start this again",
        ) from None


def begin(
    folder: Path,
    parameters: Mapping,
    solution: Solution,
    dataset: "Dataset",
    split: Mapping[str, Sequence],
) -> dict | None:
    """Open a run: who, with what, on what.

    Where an earlier start of the same run did not reach its end, returns what it kept after its last epoch,
    for `Trainer.load_state_dict`. A run that is complete, or was made otherwise, is begun anew.

    The folder is this process's until it ends. Raises RuntimeError if another one writes there: the
    kernel of a run that was killed may live on for some seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = "/".join(folder.parts[-4:])  # no path of this machine in the executed notebook
    try:
        locks.keep(folder, seconds=15)
    except BlockingIOError:
        raise RuntimeError(
            f"another process writes the run in {run}: let it end, or end it, and start this again"
        ) from None
    config = {
        **parameters,
        "solution": asdict(solution),
        "classes": list(dataset.classes),
        "views": list(dataset.views),
        "frames": {part: len(frames) for part, frames in split.items()},
        "patients": {part: len({f.patient for f in frames}) for part, frames in split.items()},
        "problems": len(dataset.problems),
        "skipped": skipped(dataset.problems),
    }
    environment = _environment(dataset.fingerprint)
    state = _left_by(folder, config, dataset.fingerprint)
    if state is None:
        for name in WRITTEN:
            (folder / name).unlink(missing_ok=True)
    else:
        first = _read_json(folder / "environment.json")
        again = {"epochs": len(state["history"]["epochs"]), **environment}
        environment = first | {"resumed": [*first.get("resumed", []), again]}
    (folder / STOP).unlink(missing_ok=True)
    _write_json(folder / "config.json", config)
    _write_json(folder / "environment.json", environment)
    return state


def _left_by(folder: Path, config: Mapping, fingerprint: str) -> dict | None:
    """What a run of this `config` on this data, killed or stopped before its end, kept in `folder`."""
    import pickle

    import torch

    file = folder / CHECKPOINT
    if is_complete(folder) or not file.is_file():
        return None
    asked = json.loads(json.dumps(config))  # as a file holds it: lists for tuples
    if _read_json(folder / "config.json") != asked:
        return None
    if _read_json(folder / "environment.json")["data_fingerprint"] != fingerprint:
        return None
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file}: cannot be read ({reason}); remove it, and the run begins anew") from None


def save_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write the tables of a `History` as CSV."""
    for name, table in tables.items():
        write_whole(folder / f"{name}.csv", table.to_csv(index=False))


class Stopped(Exception):
    """A run was told to end before its last epoch; the message says by whom and why."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: nothing went wrong."""
        return [str(self)]


def after_epoch(folder: Path, tables: Mapping[str, pd.DataFrame], state: Mapping) -> None:
    """Write the tables so far, then the `Trainer`'s state, from which the run goes on should it be killed.
    Raises Stopped where the run was told to end."""
    save_tables(folder, tables)
    save_weights(folder / CHECKPOINT, state)
    if (folder / STOP).is_file():
        (folder / CHECKPOINT).unlink()  # it will not go on
        raise Stopped((folder / STOP).read_text(encoding="utf-8"))


def finish(
    folder: Path,
    model,
    predictions: Sequence[Mapping],
    metrics: Mapping,
    view_from_jet: Sequence[Sequence[float]],
) -> None:
    """Close a run: weights, predictions, final metrics.

    view_from_jet: of `controls.views_from_jets`, kept with each prediction, for it takes the data to have.
    """
    save_weights(folder / "model.pt", model.state_dict())
    entries = [{**p, "view_from_jet": g} for p, g in zip(predictions, view_from_jet, strict=True)]
    _write_json(folder / "predictions.json", entries, indent=None)
    _write_json(folder / "metrics.json", metrics)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def save_weights(path: Path, content: Mapping) -> None:
    """Write tensors and plain values by name, to be read with `weights_only=True`."""
    import io

    import torch

    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_whole(path, buffer.getvalue())


def peak_memory_mb(device: str) -> float:
    """The most memory this process (on an accelerator: its tensors) has held, in MiB."""
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource  # not on Windows, where nothing else needs it

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@dataclass(frozen=True)
class Study:
    """All complete runs of a study.

    runs: one row a run (solution, fold, seed, path, branch, balancer, split, the test metrics, the cost).
    steps, probes, pairs, batches, epochs: the runs' tables, with solution, fold and seed in front.
    incomplete: folders of runs that have begun and not ended.
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

    def predictions(self, solution: str, fold: int = 0, seed: int = 0) -> list[dict]:
        """The test predictions of one run."""
        entries = _read_json(self._folder(solution, fold, seed) / "predictions.json")
        if solution not in self.guessed:
            return entries
        key = self.guessed[solution]
        return [{**entry, "detections": [], "view_scores": entry[key]} for entry in entries]

    def config(self, solution: str, fold: int = 0, seed: int = 0) -> dict:
        """The parameters of one run, with its environment under "environment"."""
        folder = self._folder(solution, fold, seed)
        return _read_json(folder / "config.json") | {"environment": _read_json(folder / "environment.json")}

    def metrics(self, solution: str, fold: int = 0, seed: int = 0) -> dict:
        """The final metrics of one run, as its metrics.json has them."""
        if solution in self.guessed:
            return {"test": self._row(solution, fold, seed)[["accuracy", "balanced_accuracy"]].to_dict()}
        return _read_json(self._folder(solution, fold, seed) / "metrics.json")

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
    cure where it holds no complete run."""
    folder = project_folder() / folder
    begun = sorted(path.parent for path in folder.glob("*/fold=*/seed=*/config.json"))
    complete = [run for run in begun if is_complete(run)]
    if not complete:
        raise FileNotFoundError(
            f"{folder}: no complete run; run `python -m gradlib study FILE` or 01_solution.ipynb first"
        )
    rows, solutions, tables = [], [], {name: [] for name in TABLES}
    for run in complete:
        key = {
            "solution": run.parts[-3],
            "fold": int(run.parts[-2].removeprefix("fold=")),
            "seed": int(run.parts[-1].removeprefix("seed=")),
        }
        config, metrics = _read_json(run / "config.json"), _read_json(run / "metrics.json")
        solutions.append(asked(config))
        test = {name: value for name, value in metrics["test"].items() if name != "ap50"}
        rows.append(
            {
                **key,
                "path": run.relative_to(folder).as_posix(),
                "branch": config["solution"]["branch"],
                "balancer": config["solution"]["balancer"],
                "split": config.get("split", "patients"),
                **test,
                **metrics["cost"],
            }
        )
        for name in TABLES:
            file = run / f"{name}.csv"
            if file.is_file() and file.read_text(encoding="utf-8").strip():
                table = pd.read_csv(file)
                for at, (column, value) in enumerate(key.items()):
                    table.insert(at, column, value)
                tables[name].append(table)
    runs = pd.DataFrame(rows).infer_objects()
    # A metric that a whole study lacks comes as None, and would make its column one of objects.
    numbers = [c for c in runs if c not in ("solution", "path", "branch", "balancer", "split")]
    runs[numbers] = runs[numbers].apply(pd.to_numeric)
    joined = {
        name: pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*KEYS, *TABLES[name]])
        for name, parts in tables.items()
    }
    study = Study(folder, runs, **joined, incomplete=[run for run in begun if run not in complete])
    leaking = runs["split"] == "published"
    return _set_apart(study, leaking, solutions) if leaking.any() and not leaking.all() else study


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


def _environment(fingerprint: str) -> dict:
    import torch

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None  # installed from a package, or no git: nothing to say

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in PACKAGES},
        "git": {
            "revision": git("rev-parse", "HEAD"),
            "dirty": None if changes is None else bool(changes),
        },
        "data_fingerprint": fingerprint,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def _write_json(path: Path, content, indent: int | None = 1) -> None:
    write_whole(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False))


def _read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))
