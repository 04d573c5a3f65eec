"""Real trainings and studies that are killed at random moments, meet a full disk or lose their data, and are
started again: they end as if nothing had been.

GRADLIB_KILLS: how many times a training is killed (1); a study half as often, at least once. Where there are
several, the training is longer, so that more of them fall amid it.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
import torch

from gradlib.data import phantom
from gradlib.runs import lock
from gradlib.runs.schema import TABLES
from gradlib.runs.write import WRITTEN, RunFolder

NOTEBOOK = Path(__file__).parents[2] / "notebooks/01_solution.ipynb"
KILLS = int(os.environ.get("GRADLIB_KILLS", "1"))
PARAMETERS = {"image_size": 64, "epochs": 6 if KILLS == 1 else 60, "probe_every": 3}
STUDY = f"name: NAME\nsolutions: [gradnorm, dual]\ndata: data.yaml\nparameters: {json.dumps(PARAMETERS)}\n"
TIMEOUT_S = 300


@pytest.fixture(scope="module")
def project(tmp_path_factory, write_notebooks):
    """A project folder with a small phantom and the real notebook of a training."""
    folder = tmp_path_factory.mktemp("project") / "set"
    phantom.write(folder, patients=12, videos=1, frames=4, size=(96, 72))
    write_notebooks(folder / "notebooks", "00_data", "02_compare", "03_analysis", "04_search")
    shutil.copy(NOTEBOOK, folder / "notebooks")
    return folder


def given(study: str) -> dict:
    """What 01_solution is given as parameters."""
    return PARAMETERS | {"data": "data.yaml", "study": study, "interactive": False}


def notebook(project: Path, study: str) -> subprocess.Popen:
    """01_solution as papermill runs it."""
    command = ["papermill", "notebooks/01_solution.ipynb", f"{study}.ipynb", "-k", "python3", "--cwd", "."]
    command += [word for name, value in given(study).items() for word in ("-p", name, str(value))]
    return start(project, *command)


def driver(project: Path, study: str) -> subprocess.Popen:
    """The study driver."""
    (project / f"{study}.yaml").write_text(STUDY.replace("NAME", study))
    return start(project, "gradlib", "study", f"{study}.yaml", "--workers", "2")


def start(project: Path, *command: str) -> subprocess.Popen:
    with (project / "said.txt").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=project,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
            stdout=said,
            stderr=said,
        )


def end(project: Path, process: subprocess.Popen) -> None:
    assert process.wait(TIMEOUT_S) == 0, (project / "said.txt").read_text()[-2000:]


def kill(process: subprocess.Popen, with_children: bool) -> None:
    """SIGKILL, which nobody hears coming; what it started is told nothing, or killed too."""
    victims = [psutil.Process(process.pid)]
    victims += victims[0].children(recursive=True) if with_children else []
    for victim in reversed(victims):
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def kept(run: Path) -> int:
    """How many epochs of a run would not have to be trained again. Fails if any file is half written."""
    epochs = 0
    for file in run.glob("*.json"):
        json.loads(file.read_text())
    for file in run.glob("*.csv"):
        assert file.read_text().endswith("\n")
    for file in run.glob("*.pt"):
        state = torch.load(file, weights_only=True)
        epochs = len(state["history"]["epochs"]) if file.name == "checkpoint.pt" else PARAMETERS["epochs"]
    for file in run.glob("[!.]*.ipynb"):
        nbformat.read(file, as_version=4)
    if (run / "metrics.json").is_file():
        assert (run / "model.pt").is_file() and (run / "predictions.json").is_file()
    return epochs


def same(run: Path, undisturbed: Path) -> None:
    """Weights, tables, predictions and metrics are equal to the last bit; what they cost in time is not."""
    files = [{file.name for file in folder.iterdir()} - {"notebook.ipynb"} for folder in (run, undisturbed)]
    assert files[0] == files[1]
    one, other = (torch.load(folder / "model.pt", weights_only=True) for folder in (run, undisturbed))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    tables = (f"{name}.csv" for name in TABLES if name != "epochs")
    for name in (*tables, "predictions.json"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes()
    one, other = (pd.read_csv(folder / "epochs.csv", dtype=str) for folder in (run, undisturbed))
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"))
    one, other = (json.loads((folder / "metrics.json").read_text()) for folder in (run, undisturbed))
    assert {**one, "cost": 0} == {**other, "cost": 0}


def disturb(begin, runs: list[Path], times: int, seconds: float, with_children: bool) -> None:
    """Start, kill at a random moment, start again, and so on: nothing is lost that had been kept."""
    rng, before, killed, resumed = random.Random(times), dict.fromkeys(runs, 0), 0, 0
    while killed < times:
        process = begin()
        time.sleep(rng.uniform(0, seconds))
        if process.poll() is None:
            kill(process, with_children)
            killed += 1
        now = {run: kept(run) for run in runs}
        assert all(now[run] >= before[run] for run in runs)
        resumed += any(0 < epochs < PARAMETERS["epochs"] for epochs in now.values())
        if all((run / "metrics.json").is_file() for run in runs):  # nothing is left to kill
            shutil.rmtree(runs[0].parents[2])
            now = dict.fromkeys(runs, 0)
        before = now
    print(f"\n{times} kills in {seconds:.0f} s; {resumed} times amid a training, after an epoch's end")


@pytest.fixture(scope="module")
def calm(project):
    """The undisturbed runs of a study by solution, and how long they took."""
    runs = {name: project / f"runs/calm/{name}/fold=0/seed=0" for name in ("gradnorm", "dual")}
    began, process = time.monotonic(), driver(project, "calm")
    until(lambda: all((run / "notebook.ipynb").is_file() for run in runs.values()) or process.poll())
    seconds = time.monotonic() - began
    kill(process, with_children=True)  # nothing but pages would be made
    assert all((run / "metrics.json").is_file() for run in runs.values()), (project / "said.txt").read_text()
    return runs, seconds


def test_a_training_killed_at_any_moment_ends_as_one_that_was_not(project, calm, capsys):
    killed = project / "runs/killed/gradnorm/fold=0/seed=0"
    with capsys.disabled():
        disturb(lambda: notebook(project, "killed"), [killed], KILLS, calm[1], with_children=True)
    end(project, notebook(project, "killed"))
    same(killed, calm[0]["gradnorm"])  # alone or beside others


def test_a_study_whose_driver_is_killed_ends_as_one_that_was_not(project, calm, capsys):
    killed = project / "runs/killed-study"
    runs = {name: killed / f"{name}/fold=0/seed=0" for name in calm[0]}
    begin = partial(driver, project, killed.name)
    with capsys.disabled():
        disturb(begin, [*runs.values()], max(KILLS // 2, 1), calm[1], with_children=False)
    begun = next(run for run in runs.values() if not (run / "metrics.json").is_file())
    for half in (begun / ".checkpoint.pt.1", killed / "pages/.data.html.1"):
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(b"killed over")
    end(project, begin())
    for name, run in runs.items():
        same(run, calm[0][name])
    made = {f"{name}.{kind}" for name in ("data", "compare") for kind in ("ipynb", "html")}
    for name in ("analysis", "analysis.zh-Hant"):
        made |= {name + kind for kind in (".ipynb", ".html", ".md", "_files")}
    assert {file.name for file in killed.iterdir()} == {"gradnorm", "dual", ".lock", "pages"}
    assert {file.name for file in (killed / "pages").iterdir()} == made


@pytest.fixture
def train(project, monkeypatch, run_notebook):
    """Executes the cells of 01_solution in this process, and then releases the folder."""
    monkeypatch.chdir(project)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as `start` has it

    def execute(run: Path) -> None:
        try:
            run_notebook("01_solution", **given(run.parents[2].name))
        finally:
            lock._locks.pop(run.resolve() / lock.FILE).release(force=True)

    yield execute
    torch.set_num_threads(threads)


@pytest.fixture
def disk(project):
    """A folder for runs on a disk of 45 MiB: enough for a state of a run, but not for the next beside it."""
    folder = project / "runs/small"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=45m", "gradlib", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_or_one_not_to_be_written_costs_nothing_that_was_kept(calm, disk, train):
    run = disk / "gradnorm/fold=0/seed=0"
    change = ["mount", "-o", "OPTION", str(disk)]
    for option, said in (("", "No space left on device"), ("remount,ro", "Read-only file system")):
        if option:
            subprocess.run([option if word == "OPTION" else word for word in change], check=True)
        with pytest.raises(OSError) as caught:
            train(run)
        assert re.fullmatch(
            rf".*: cannot be written \({said}\); what was there before is kept. .*", str(caught.value)
        )
        assert kept(run) == 1
        assert not [file for file in run.iterdir() if file.name.startswith(".") and file.name != ".lock"]
    roomy = "remount,rw,size=200m"
    subprocess.run([roomy if word == "OPTION" else word for word in change], check=True)
    train(run)
    same(run, calm[0]["gradnorm"])


def test_data_that_are_gone_amid_a_run_cost_nothing_that_was_kept(project, calm, train, monkeypatch):
    run, images = project / "runs/gone/gradnorm/fold=0/seed=0", project / "test/images"
    after_epoch = RunFolder.after_epoch

    def remove(*arguments) -> None:
        after_epoch(*arguments)
        if images.exists():
            images.rename(project / "elsewhere")

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "after_epoch", remove)
        with pytest.raises(ValueError) as caught:
            train(run)
    assert re.fullmatch(r".*test/images/.*: not found; put it there, or correct the link", str(caught.value))
    assert kept(run) == PARAMETERS["epochs"]
    (project / "elsewhere").rename(images)
    train(run)
    same(run, calm[0]["gradnorm"])


@pytest.mark.parametrize("wrong", [{"batch_size": 1000}, {"device": "mps"}])
def test_a_start_that_is_refused_leaves_the_run_that_is_there(project, monkeypatch, run_notebook, wrong):
    run = project / "runs/complete/gradnorm/fold=0/seed=0"
    run.mkdir(parents=True, exist_ok=True)
    for name in (*WRITTEN, "config.json"):
        (run / name).write_text(name)
    monkeypatch.chdir(project)
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
        run_notebook("01_solution", **given("complete") | wrong)
    assert {file.name: file.read_text() for file in run.iterdir()} == {
        n: n for n in (*WRITTEN, "config.json")
    }


def until(said) -> None:
    ends = time.monotonic() + TIMEOUT_S
    while not said():
        assert time.monotonic() < ends
        time.sleep(0.05)
