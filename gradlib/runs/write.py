"""The run folder, the only thing that passes between notebooks: written here, read by `read` into pandas.

    runs/<study>/<solution>/fold=<k>/seed=<s>/
        config.json        the parameters, the solution in full, class and view names
        environment.json   versions, git revision, device, the data's fingerprint
        steps.csv          one row a training step: losses, weights, gradient norms, learning rates
        probes.csv         one row a probe, stage and kind of parameter: inner products of the gradients on
                           two halves; cosine, norms and conflict of both together
        parts.csv          one row a fifth probe: the same between detection's parts and classification
        pairs.csv          one row a fifth probe, class and view: cosine between their gradients
        affinity.csv       one row a probe and two tasks: what a step for one does to the other's loss
        batches.csv        one row a probe and frame: which frames its batches had (before augmentation)
        epochs.csv         one row an epoch: losses of both parts, metrics of the validation part
        predictions.json   one entry a test image: truth, detections, view scores, the view guessed from jets
        model.pt           the averaged weights, a plain state dict
        metrics.json       the final metrics; written last, so a run that has it is complete
        checkpoint.pt      until then: all that the next epoch needs, written after every epoch

Every file is written whole or not at all.
"""

import contextlib
import copy
import io
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import Timeout

from gradlib.checks import check_folder_name
from gradlib.config import Parameters, Training, find_solution
from gradlib.data.files import check_inside, project_folder
from gradlib.runs.lock import hold
from gradlib.runs.resolve import resolve
from gradlib.runs.schema import TABLES, is_complete, read_values

if TYPE_CHECKING:  # they bring PyTorch, which this module loads only when a run begins
    from gradlib.data.dataset import Dataset
    from gradlib.train.trainer import Trainer

STOP = "stop"  # a file in a run's folder: the run ends after its present epoch, for the reason in it
CHECKPOINT = "checkpoint.pt"
LOCK_TIMEOUT_S = 15  # the kernel of a run that was killed may live on for some seconds
# The parameters of a run that its config.json keeps.
RECORDED = (*(one.name for one in fields(Training)), "data", "split", "fold", "folds", "pretrained")
# What a run writes after its beginning.
WRITTEN = ("metrics.json", CHECKPOINT, *(f"{name}.csv" for name in TABLES), "predictions.json", "model.pt")
PACKAGES = ("gradlib", "torch", "numpy", "pandas", "lightning-fabric", "faster-coco-eval")


class RunFolder:
    """The folder of one run (`path`) and what it trains (`solution`, as `resolve` completes it).

    Raises ValueError where there is no such solution, FileNotFoundError where it starts from a run that is
    not complete.
    """

    def __init__(self, parameters: Parameters):
        self.parameters, solution = parameters, find_solution(parameters.solution)
        self.project, fold, seed = project_folder(), parameters.fold, parameters.seed
        study = self.project / parameters.runs / parameters.study
        self.path = study / check_folder_name(solution.name, "solution") / f"fold={fold}" / f"seed={seed}"
        check_inside(self.path, study)  # a stranger's study may hold links
        self.solution = resolve(solution, study, fold, seed)

    def begin(self, dataset: "Dataset", parts: dict) -> dict | None:
        """Lock the folder until this process ends, and write what is trained, how, and on what.

        parts: the frames of each part by name. Where an earlier start of the same run did not reach its end,
        returns the state after its last epoch, for `Trainer.load_state_dict`. A run that is complete, or was
        made otherwise, begins anew. RuntimeError if another process writes it.
        """
        with _one_line_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            hold(self.path, LOCK_TIMEOUT_S)
        except Timeout:
            run = "/".join(self.path.parts[-4:])  # no path of this machine in the executed notebook
            raise RuntimeError(
                f"another process writes the run in {run}: let it end, or end it, and start this again"
            ) from None
        remove_unfinished(self.path)
        self._parts, self._views = parts, len(dataset.views)
        config = {
            **{name: getattr(self.parameters, name) for name in RECORDED},
            "solution": asdict(self.solution),
            "classes": list(dataset.classes),
            "views": list(dataset.views),
            "frames": {part: len(frames) for part, frames in parts.items()},
            "patients": {part: len({f.patient for f in frames}) for part, frames in parts.items()},
            "problems": len(dataset.problems),
            "skipped": dataset.skipped,
        }
        environment = _environment(dataset.fingerprint, self.parameters)
        state = self._resumable(config, dataset.fingerprint)
        if state is None:
            with _one_line_errors(self.path):
                for name in WRITTEN:
                    (self.path / name).unlink(missing_ok=True)
        else:
            first = read_values(self.path, "environment")
            again = {"epochs": len(state["history"].get("epochs", ())), **environment}
            environment = first | {"resumed": [*first.get("resumed", []), again]}
        self._write_json("config.json", config)
        self._write_json("environment.json", environment)
        (self.path / STOP).unlink(missing_ok=True)
        return state

    def after_epoch(self, trainer: "Trainer") -> None:
        """Write the tables so far, then the state from which a killed run goes on. Raises Stopped where the
        run is told to end."""
        for name, table in trainer.history.tables().items():
            write_whole(self.path / f"{name}.csv", table.to_csv(index=False))
        save_weights(self.path / CHECKPOINT, trainer.state_dict())
        if (self.path / STOP).is_file():
            from gradlib.train.trainer import Stopped

            (self.path / CHECKPOINT).unlink()  # it will not go on
            raise Stopped((self.path / STOP).read_text(encoding="utf-8"))

    def finish(self, model, predictions: list[dict], metrics: dict) -> None:
        """Write weights, predictions and final metrics: the run is complete. Each prediction keeps the view
        that `views_from_jets` guesses, which takes the data to have."""
        from gradlib.data.tables import views_from_jets

        save_weights(self.path / "model.pt", model.state_dict())
        guesses = views_from_jets(self._parts["train"], self._parts["test"], self._views)
        entries = [{**p, "view_from_jet": g} for p, g in zip(predictions, guesses, strict=True)]
        self._write_json("predictions.json", entries, indent=None)
        self._write_json("metrics.json", metrics)
        (self.path / CHECKPOINT).unlink(missing_ok=True)

    def _resumable(self, config: Mapping, fingerprint: str) -> dict | None:
        """The state that an unfinished run of this `config` on this data left."""
        from gradlib.model.tensor_files import load_tensors

        file = self.path / CHECKPOINT
        if is_complete(self.path) or not file.is_file():
            return None
        try:
            same = read_values(self.path, "config") == json.loads(json.dumps(config))  # lists for tuples
            same &= read_values(self.path, "environment").get("data_fingerprint") == fingerprint
        except ValueError:  # no file of this version
            same = False
        if not same:
            return None
        cure = "remove it, and the run begins anew"
        # A copy: tensors that lie in the file keep its room on the disk when the next epoch replaces it.
        state = copy.deepcopy(load_tensors(file, cure=cure))
        if not isinstance(state, dict) or not isinstance(state.get("history"), dict):
            raise ValueError(f"{file}: expected the state of a training; {cure}")
        return state

    def _write_json(self, name: str, content: object, indent: int | None = 1) -> None:
        text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
        write_whole(self.path / name, text)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that nobody ever sees half of it. Raises OSError with the cure, and keeps the earlier
    file, where it cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with _one_line_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
                file.flush()
                os.fsync(file.fileno())  # before it takes the name, also where the power fails
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what `write_whole` was killed over in `folder`, whose lock this process holds."""
    for left in folder.glob(".*.*.[0-9]*"):
        left.unlink(missing_ok=True)


def save_weights(path: Path, content: Mapping) -> None:
    """Write tensors and plain values by name, to be read with `weights_only=True`."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_whole(path, buffer.getvalue())


@contextlib.contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """An error of the file system about `path` is one line, with the cure."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: cannot be written ({error.strerror}); what was there before is kept. Make room, or the "
            "folder writable, and start this again"
        ) from None


def _environment(fingerprint: str, training: Training) -> dict:
    import torch

    from gradlib.train.devices import fabric_for, precision_of

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None  # installed from a package, or no git

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in PACKAGES},
        "git": {"revision": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)},
        "data_fingerprint": fingerprint,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "precision": precision_of(training, fabric_for(training).device.type),
    }
