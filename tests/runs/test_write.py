"""A run folder is written whole or not at all, by one process, and goes on where it was left."""

import errno
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from gradlib.config import Parameters
from gradlib.data.files import project_folder
from gradlib.runs import lock, write
from gradlib.runs.schema import is_complete
from gradlib.runs.write import STOP, RunFolder, write_whole
from gradlib.train.trainer import Stopped

DATASET = SimpleNamespace(classes=("AR",), views=(), problems=(), skipped={}, fingerprint="")


def trainer(state=None, **tables):
    """What `after_epoch` asks of a trainer."""
    history = SimpleNamespace(tables=lambda: {name: pd.DataFrame(rows) for name, rows in tables.items()})
    return SimpleNamespace(history=history, state_dict=lambda: state or {})


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(Parameters(runs=str(tmp_path), study="demo"))
    run.path.mkdir(parents=True)
    return run


def test_the_view_guessed_is_kept_with_each_prediction(folder):
    network = SimpleNamespace(state_dict=dict)
    frames = [SimpleNamespace(view=i, classes=[i], patient=str(i)) for i in (0, 1)]
    test = [SimpleNamespace(view=0, classes=classes, patient="2") for classes in ([0], [])]
    dataset = SimpleNamespace(**{**vars(DATASET), "views": ("A", "B")})
    folder.begin(dataset, {"train": frames, "test": test})
    found = [{"image": f"set/{name}.png", "view": 0} for name in "ab"]
    folder.finish(network, found, {"test": {}, "cost": {}})
    assert json.loads((folder.path / "predictions.json").read_text()) == [
        {"image": "set/a.png", "view": 0, "view_from_jet": [1.0, 0.0]},
        {"image": "set/b.png", "view": 0, "view_from_jet": [0.5, 0.5]},
    ]
    assert is_complete(folder.path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_whole(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write.os, "replace", full)
    with pytest.raises(OSError, match=r"file\.json: cannot be written \(No space left on device\); what was"):
        write_whole(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_half_written_goes(folder):
    folder.begin(DATASET, {})
    (folder.path / ".checkpoint.pt.999").write_text("half")
    (folder.path / ".notebook.ipynb").write_text("papermill's, which writes it now")
    folder.begin(DATASET, {})
    assert {file.name for file in folder.path.glob(".*")} == {".lock", ".notebook.ipynb"}


def test_the_project_folder_is_found_from_inside(tmp_path, monkeypatch):
    inside = tmp_path / "runs" / "demo"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert project_folder() == inside
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_solution.ipynb").touch()
    assert project_folder() == tmp_path
    assert (
        RunFolder(Parameters(study="demo", solution="dual", fold=1, seed=2)).path
        == tmp_path / "runs/demo/dual/fold=1/seed=2"
    )


def test_what_an_interrupted_run_kept_is_taken_up_or_named(folder):
    def begin(epochs):
        folder.parameters = replace(folder.parameters, epochs=epochs)
        return folder.begin(DATASET, {})

    assert begin(epochs=3) is None
    kept = {"history": {"epochs": [{"epoch": 0}]}, "order": torch.arange(1000)}
    folder.after_epoch(trainer(kept))
    found = begin(epochs=3)
    assert found["history"] == kept["history"] and torch.equal(found["order"], kept["order"])
    whole = (folder.path / "checkpoint.pt").read_bytes()
    for content, said in (
        (whole[:2000], "is cut short"),
        (b"", "is no PyTorch checkpoint"),
        (whole.replace(b"history", b"hist-ry"), "expected the state of a training"),
    ):
        (folder.path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(ValueError, match=rf"checkpoint\.pt: {said}.*remove it, and the run begins anew$"):
            begin(epochs=3)
        assert (folder.path / "checkpoint.pt").read_bytes() == content
    assert begin(epochs=4) is None and not (folder.path / "checkpoint.pt").exists()


def test_a_run_that_is_told_to_end_does_and_the_next_begins_anew(folder):
    rows = {"epochs": [{"epoch": 0}]}
    folder.after_epoch(trainer(**rows))
    write_whole(folder.path / STOP, "pruned by the search")
    with pytest.raises(Stopped, match="pruned by the search"):
        folder.after_epoch(trainer(**rows, steps=[{"step": 0}]))
    assert (folder.path / "steps.csv").is_file()  # what it has done is kept
    assert folder.begin(DATASET, {}) is None
    folder.after_epoch(trainer(**rows))


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", "a/b"])
def test_a_run_folder_lies_in_its_study(name):
    with pytest.raises(ValueError, match="no path"):
        RunFolder(Parameters(solution={"name": name, "branch": "p3"}))


def test_a_run_is_not_written_through_a_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs/linked").mkdir(parents=True)
    (tmp_path / "runs/linked/dual").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"seed=0: is outside the folder it belongs to \(.*elsewhere"):
        RunFolder(Parameters(solution="dual", study="linked"))
    assert RunFolder(Parameters(solution="baseline", study="linked"))


def test_a_run_that_another_process_writes_is_refused(folder, monkeypatch):
    path = folder.path
    assert lock.is_held(path) is False and not list(path.iterdir())  # asking leaves nothing behind
    hold = f"from gradlib.runs import lock; import pathlib; lock.hold(pathlib.Path({str(path)!r}), 0)"
    command = [sys.executable, "-c", f"{hold}; print(flush=True); input()"]
    monkeypatch.setattr(write, "LOCK_TIMEOUT_S", 0.2)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert lock.is_held(path)
        with pytest.raises(
            RuntimeError, match="another process writes the run in demo/baseline/fold=0/seed=0"
        ):
            folder.begin(DATASET, {})
        assert not (path / "config.json").exists()
        other.kill()
    assert lock.is_held(path) is False
    for _ in range(2):  # again in the same process
        folder.begin(DATASET, {})
    ask = f"from gradlib.runs import lock; import pathlib; print(lock.is_held(pathlib.Path({str(path)!r})))"
    assert subprocess.check_output([sys.executable, "-c", ask], text=True) == "True\n"


def test_a_folder_that_was_removed_is_locked_anew(tmp_path):
    (tmp_path / "run").mkdir()
    lock.hold(tmp_path / "run", 0)
    (tmp_path / "run" / lock.FILE).unlink()
    with lock.hold(tmp_path / "run", 0):
        assert (tmp_path / "run" / lock.FILE).is_file()


def test_where_no_lock_can_be_had_there_is_none(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(lock.FileLock, "acquire", refuse)
    with lock.hold(tmp_path, 0):
        assert lock.is_held(tmp_path) is False
