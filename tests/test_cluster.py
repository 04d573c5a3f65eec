"""Where runs go, and what happens when something there dies."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed import LocalCluster

from gradlib.__main__ import main
from gradlib.runs import locks, write
from gradlib.study import executor

WAITING = "solutions: [dual, baseline]\nparameters: {epochs: 23}\n"


def study_file(project: Path, text: str) -> str:
    (project / "notebooks/demo.yaml").write_text(text)
    return "notebooks/demo.yaml"


def patient(condition) -> None:
    """Wait until `condition()`; a minute is far more than anything here takes."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def lives(pid: int) -> bool:
    """Whether this process runs; one that has ended and that nobody asked for does not."""
    try:
        if Path("/proc").is_dir():
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        os.kill(pid, 0)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _interrupts_heeded():
    """Processes started meanwhile can be interrupted: a shell has what it starts in the background, as tests
    may be, ignore that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def started(project: Path, file: str, *options: str):
    """`gradlib study` in a process of its own, once its first run waits to be told to go on; and the
    processes of that run: its kernel and its worker."""
    command = [sys.executable, "-m", "gradlib", "study", file, *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with _interrupts_heeded(), subprocess.Popen(command, cwd=project, **pipes) as driver:
        try:
            pids = project / "runs/demo/dual/fold=0/seed=0/pids"
            patient(lambda: pids.is_file() and len(pids.read_text().split()) == 2)
            yield driver, [int(pid) for pid in pids.read_text().split()]
        finally:
            driver.kill()


def status(project: Path, file: str, capsys) -> list[str]:
    """The lines that `--status` prints."""
    capsys.readouterr()
    assert main(["study", file, "--status"]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_a_run_whose_worker_dies_is_tried_once_more(project, capsys):
    file = study_file(project, "solutions: [dual, baseline]\nparameters: {epochs: 21}\n")
    assert main(["study", file, "--workers", "2"]) == 0
    printed = capsys.readouterr().out
    assert "dual fold=0 seed=0: its process was killed; it is tried once more" in printed
    assert "dual fold=0 seed=0: done" in printed
    assert len(list((project / "runs").rglob("metrics.json"))) == 2


def test_a_run_whose_worker_dies_twice_has_failed_and_the_others_go_on(project, capsys):
    file = study_file(project, "solutions: [dual, baseline]\nparameters: {epochs: 22}\n")
    assert main(["study", file, "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert "failed: runs/demo/dual/fold=0/seed=0/notebook.ipynb: its process was killed, twice" in printed
    assert "baseline fold=0 seed=0: done" in printed
    assert (project / "runs/demo/analysis.html").exists()
    lines = status(project, file, capsys)
    assert "failed dual fold=0 seed=0 its process was killed, twice; is there too little memory?" in lines


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_killed_study_ends_everywhere_and_goes_on_where_it_was(project, capsys):
    file = study_file(project, WAITING)
    assert status(project, file, capsys)[0] == "study demo: never started"
    with started(project, file, "--workers", "2") as (driver, pids):
        folder = project / "runs/demo"
        patient((folder / "baseline/fold=0/seed=0/metrics.json").is_file)
        patient(lambda: "done baseline fold=0 seed=0" in "\n".join(status(project, file, capsys)))
        lines = status(project, file, capsys)
        assert lines[0].startswith("study demo: running since ") and "2 workers" in lines[0]
        assert any(line.startswith("running dual fold=0 seed=0 2 of 23 epochs, about ") for line in lines)
        assert "waiting compare" in lines

        assert main(["study", file]) == 2
        assert capsys.readouterr().err == (
            "gradlib: study demo runs already in another process: see how far it is with --status\n"
        )
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        patient(lambda: not any(lives(pid) for pid in pids))
    lines = status(project, file, capsys)
    assert lines[0] == "study demo: not running: start it again to go on"
    assert "waiting dual fold=0 seed=0" in lines and "done baseline fold=0 seed=0 0:07" in lines

    (project / "go").touch()
    assert main(["study", file]) == 0
    assert "1 runs to do, 1 already complete" in capsys.readouterr().out
    assert status(project, file, capsys)[0] == "study demo: not running: every run is complete"


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_an_interrupt_is_one_line_and_ends_everything(project):
    with started(project, study_file(project, WAITING), "--workers", "1") as (driver, pids):
        driver.send_signal(signal.SIGINT)
        printed = driver.communicate(timeout=60)[0].decode()
        assert driver.returncode == 130
        assert printed.splitlines()[-1] == "gradlib: stopped; complete runs are kept, start again to go on"
        assert "Traceback" not in printed
        patient(lambda: not any(lives(pid) for pid in pids))


def test_workers_do_not_see_interrupts():
    if not hasattr(signal, "pthread_sigmask"):
        pytest.skip("no signal masks")
    with executor.local(1, jobs=1) as client:
        masks = client.run(signal.pthread_sigmask, signal.SIG_BLOCK, [])
    assert all(signal.SIGINT in mask for mask in masks.values())


def test_an_existing_cluster_does_the_same(project, capsys):
    file = study_file(project, "solutions: [dual, baseline]\nparameters: {epochs: 21}\n")
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as others:
        assert main(["study", file, "--scheduler", others.scheduler_address]) == 0
    printed = capsys.readouterr().out
    assert "dual fold=0 seed=0: its process was killed; it is tried once more" in printed
    assert len(list((project / "runs").rglob("metrics.json"))) == 2
    metrics = [json.loads(path.read_text())["test"] for path in (project / "runs").rglob("metrics.json")]
    assert {found["threads"] for found in metrics} == {1}


def test_a_cluster_that_cannot_do_it_is_refused_in_one_line(project, capsys):
    file = study_file(project, "solutions: [dual]\n")
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as others:
        assert main(["study", file, "--scheduler", others.scheduler_address]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and "has 2 threads" in line and "dask worker --nthreads 1" in line
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as others:
        # A file that is not the same there.
        elsewhere = Path("/proc/self/stat")
        if elsewhere.is_file():
            with pytest.raises(executor.Refused, match="does not see /proc/self/stat: it must share"):
                executor.existing(others.scheduler_address, elsewhere).__enter__()


def test_a_scheduler_that_is_not_there_is_one_line(project, capsys, monkeypatch):
    monkeypatch.setattr(executor, "PATIENCE", 1.0)
    file = study_file(project, "solutions: [dual]\n")
    for address in ("tcp://127.0.0.1:9", "nowhere://x"):
        assert main(["study", file, "--scheduler", address]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and line.startswith(f"gradlib: no scheduler answers at {address}")


def test_workers_and_a_scheduler_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        main(["study", "x.yaml", "--workers", "2", "--scheduler", "tcp://x:1"])
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [(None, 2, ["0", "1"]), ("3,5", 2, ["3", "5"]), ("", 0, []), (None, 0, [])],
)
def test_gpus_are_those_that_this_process_may_use(monkeypatch, visible, count, expected):
    import torch

    monkeypatch.setattr(executor.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert executor.accelerators() == expected


def test_each_worker_sees_one_gpu(monkeypatch):
    monkeypatch.setattr(executor, "accelerators", lambda: ["4", "7"])
    with executor.local(3, jobs=5) as client:
        seen = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
    assert sorted(seen.values()) == ["4", "4", "7"]
    with executor.local(None, jobs=5) as client:
        assert len(client.nthreads()) == 2
    with executor.local(None, jobs=1, use_accelerators=False) as client:
        assert list(client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()) == [None]


@pytest.mark.parametrize(
    ("devices", "seen"), [(2, ["4,7", "5,6"]), (3, ["4,7,5"]), (8, ["4,7,5,6"])], ids=["2", "3", "too many"]
)
def test_a_worker_whose_runs_take_several_devices_sees_so_many(monkeypatch, devices, seen):
    monkeypatch.setattr(executor, "accelerators", lambda: ["4", "7", "5", "6"])
    with executor.local(None, jobs=5, devices=devices) as client:
        assert sorted(client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()) == seen


def test_a_run_that_another_process_writes_is_refused(tmp_path, monkeypatch):
    if locks.fcntl is None:
        pytest.skip("no locks")
    folder = tmp_path / "runs/demo/dual/fold=0/seed=0"
    folder.mkdir(parents=True)
    hold = f"from gradlib import locks, runs; import pathlib; locks.keep(pathlib.Path({str(folder)!r}), 0)"
    command = [sys.executable, "-c", f"{hold}; print(flush=True); input()"]
    keep = locks.keep
    monkeypatch.setattr(locks, "keep", lambda folder, seconds: keep(folder, 0.2))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert locks.is_held(folder)
        with pytest.raises(RuntimeError, match="another process writes the run in demo/dual/fold=0/seed=0"):
            write.begin(folder, {}, None, None, {})
        other.communicate(b"\n")
    assert locks.is_held(folder) is False
    keep(folder, 0)
    keep(folder, 0)  # again in the same process
    assert locks.is_held(folder)
