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

import contextlib
import copy
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from gradlib.config import Solution
from gradlib.data.faults import skipped
from gradlib.runs import locks, schema
from gradlib.runs.read import Study, asked, load
from gradlib.runs.schema import KEYS, TABLES, is_complete, project_folder, run_folder

if TYPE_CHECKING:  # it brings PyTorch, which reading runs does without
    from gradlib.data.tables import Dataset

__all__ = [
    "KEYS",
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
# What a run writes after its beginning.
WRITTEN = ("metrics.json", CHECKPOINT, *(f"{name}.csv" for name in TABLES), "predictions.json", "model.pt")
PACKAGES = ("gradlib", "torch", "numpy", "pandas", "lightning-fabric", "faster-coco-eval", "kornia")


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[None]:
    """An error of the file system about `path` is one line, with the cure."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: cannot be written ({error.strerror}); what was there before is kept. Make room, or the "
            "folder writable, and start this again"
        ) from None


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that nobody ever sees half of it. OSError with the cure where that cannot be done;
    what was there before stays."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with _changing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
                file.flush()
                os.fsync(file.fileno())  # before the name changes hands, also where the power fails
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


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
    with _changing(folder):
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
        with _changing(folder):
            for name in WRITTEN:
                (folder / name).unlink(missing_ok=True)
    else:
        first = schema.environment(folder)
        again = {"epochs": len(state["history"].get("epochs", ())), **environment}
        environment = first | {"resumed": [*first.get("resumed", []), again]}
    _write_json(folder / "config.json", config)
    _write_json(folder / "environment.json", environment)
    (folder / STOP).unlink(missing_ok=True)
    return state


def _left_by(folder: Path, config: Mapping, fingerprint: str) -> dict | None:
    """What a run of this `config` on this data, killed or stopped before its end, kept in `folder`."""
    from gradlib.model import tensor_files

    file = folder / CHECKPOINT
    if is_complete(folder) or not file.is_file():
        return None
    wanted = json.loads(json.dumps(config))  # as a file holds it: lists for tuples
    if schema.config(folder) != wanted:
        return None
    if schema.environment(folder).get("data_fingerprint") != fingerprint:
        return None
    cure = "remove it, and the run begins anew"
    # A copy: tensors that lie in the file keep its room on the disk when the next epoch replaces it.
    state = copy.deepcopy(tensor_files.load(file, cure=cure))
    if not isinstance(state, dict) or not isinstance(state.get("history"), dict):
        raise ValueError(f"{file}: holds no state of a training; {cure}")
    return state


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
