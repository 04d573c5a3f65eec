"""Where runs go, and what happens when something there dies."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from gradlib.__main__ import main
from gradlib.study import executor
from gradlib.study.spec import SOLUTION, Job

WAITING = "solutions: [dual, baseline]\nparameters: {epochs: 23}\n"


def study_file(project: Path, text: str) -> str:
    (project / "notebooks/demo.yaml").write_text(text)
    return "notebooks/demo.yaml"


def wait_until(condition) -> None:
    """Wait until `condition()`; three minutes are far more than anything here takes."""
    until = time.monotonic() + 180
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
def started(project: Path, file: str, *options: str):
    """`gradlib study` in a process of its own, once its first run waits to be told to go on; and the
    processes of that run: its kernel and that which started it."""
    command = [sys.executable, "-m", "gradlib", "study", file, *options]
    # A shell has what it starts in the background, as tests may be, ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        signal.signal(signal.SIGINT, before)
        try:
            pids = project / "runs/demo/dual/fold=0/seed=0/pids"
            wait_until(lambda: pids.is_file() and len(pids.read_text().split()) == 2)
            yield driver, [int(pid) for pid in pids.read_text().split()]
        finally:
            driver.kill()


def status(project: Path, file: str, capsys) -> list[str]:
    """The lines that `--status` prints."""
    capsys.readouterr()
    assert main(["study", file, "--status"]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_a_run_that_is_killed_is_tried_once_more(project, capsys, execute_here):
    execute_here(SOLUTION)
    file = study_file(project, "solutions: [dual, baseline]\nparameters: {epochs: 21}\n")
    assert main(["study", file, "--workers", "2"]) == 0
    assert "dual fold=0 seed=0: done" in capsys.readouterr().out
    assert (project / "killed").exists()
    assert len(list((project / "runs").rglob("metrics.json"))) == 2


def test_a_run_that_is_killed_twice_has_failed_and_the_others_go_on(project, capsys, execute_here):
    execute_here(SOLUTION)
    file = study_file(project, "solutions: [dual, baseline]\nparameters: {epochs: 22}\n")
    assert main(["study", file, "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert f"failed: runs/demo/dual/fold=0/seed=0/notebook.ipynb: {executor.KILLED}" in printed
    assert "baseline fold=0 seed=0: done" in printed
    assert (project / "runs/demo/pages/analysis.html").exists()
    notebook = "runs/demo/dual/fold=0/seed=0/notebook.ipynb"
    assert f"failed dual fold=0 seed=0 {notebook}: killed; out of memory?" in status(project, file, capsys)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_killed_study_ends_everywhere_and_goes_on_where_it_was(project, capsys, execute_here):
    file = study_file(project, WAITING)
    assert status(project, file, capsys)[0] == "study demo: never started"
    with started(project, file, "--workers", "2") as (driver, pids):
        folder = project / "runs/demo"
        wait_until((folder / "baseline/fold=0/seed=0/notebook.ipynb").is_file)
        lines = status(project, file, capsys)
        assert lines[0] == "study demo: running" and "done baseline fold=0 seed=0 0:07" in lines
        assert "running dual fold=0 seed=0 2 of 23 epochs" in lines
        assert "waiting compare" in lines
        tree = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
        assert len(tree) >= 3 and {*pids} <= {process.pid for process in tree}
        for process in tree:  # ipykernel has one port of its own, for what child processes print
            kernel = "ipykernel_launcher" in process.cmdline()
            found = [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            assert {one.laddr.ip for one in found} <= ({"127.0.0.1"} if kernel else set())
            assert len(found) <= kernel

        assert main(["study", file]) == 2
        assert capsys.readouterr().err == (
            "gradlib: study demo runs already in another process: see how far it is with --status\n"
        )
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        wait_until(lambda: not any(lives(pid) for pid in pids))
    lines = status(project, file, capsys)
    assert lines[0] == "study demo: not running: start it again to go on"
    assert (
        "waiting dual fold=0 seed=0 2 of 23 epochs" in lines and "done baseline fold=0 seed=0 0:07" in lines
    )

    (project / "go").touch()
    execute_here(SOLUTION)
    assert main(["study", file]) == 0
    assert "1 runs to do, 1 already complete" in capsys.readouterr().out
    assert status(project, file, capsys)[0] == "study demo: not running: every run is complete"
    assert not list(folder.glob(".driver-*"))


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_one_line_and_ends_everything(project, number):
    with started(project, study_file(project, WAITING), "--workers", "1") as (driver, pids):
        driver.send_signal(number)
        printed = driver.communicate(timeout=180)[0].decode()
        assert not any(lives(pid) for pid in pids)
    assert driver.returncode == 130
    assert printed.splitlines()[-1] == "gradlib: stopped; complete runs are kept, start again to go on"
    assert "Traceback" not in printed
    assert not list((project / "runs/demo/dual/fold=0/seed=0").glob("*notebook.ipynb"))


def test_a_dask_cluster_does_the_same(project, capsys):
    distributed = pytest.importorskip("distributed")
    file = study_file(project, "solutions: [dual, baseline]\nparameters: {epochs: 21}\n")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as others:
        assert main(["study", file, "--scheduler", others.scheduler_address]) == 0
        assert (project / "killed").exists()
        metrics = [json.loads(path.read_text())["test"] for path in (project / "runs").rglob("metrics.json")]
        assert [found["threads"] for found in metrics] == [1, 1]

        # A run on a cluster ends with its study too.
        shutil.rmtree(project / "runs")
        file = study_file(project, WAITING.replace(", baseline", ""))
        with started(project, file, "--scheduler", others.scheduler_address) as (driver, pids):
            driver.send_signal(signal.SIGINT)
            assert driver.wait(180) == 130
            wait_until(lambda: not any(lives(pid) for pid in pids))

        # A folder that the worker does not see.
        with pytest.raises(executor.Refused, match=r"does not see .*elsewhere: it must share"):
            executor._client(others.scheduler_address, project / "elsewhere/token").__enter__()


def test_a_scheduler_that_is_not_there_is_one_line(project, capsys, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(executor, "TIMEOUT_S", 1.0)
    file = study_file(project, "solutions: [dual]\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        addresses = ["tcp://127.0.0.1:9", "nowhere://x", "ucx://x:1", "tls://127.0.0.1:9", ""]
        for address in (*addresses, f"tcp://127.0.0.1:{silent.getsockname()[1]}"):
            assert main(["study", file, "--scheduler", address]) == 2
            line = capsys.readouterr().err
            assert line.count("\n") == 1 and line.startswith(f"gradlib: no scheduler answers at {address}")


def test_without_dask_one_line_says_how_to_install_it(project, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["study", study_file(project, "solutions: [dual]\n"), "--scheduler", "tcp://x:1"]) == 2
    assert capsys.readouterr().err == "gradlib: --scheduler needs Dask: pip install 'gradlib[cluster]'\n"


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
    assert executor.visible_gpus() == expected


@pytest.mark.parametrize(
    ("workers", "use_gpus", "expected"),
    [(3, True, ["4", "4", "7"]), (None, True, ["4", "7"]), (2, False, [None, None])],
)
def test_each_run_has_one_gpu(tmp_path, monkeypatch, workers, use_gpus, expected):
    everyone = threading.Barrier(len(expected))

    def execute(job, project, token, environment):
        everyone.wait(timeout=30)  # all run at the same time
        return executor.Result(job, "done", error=environment.get("CUDA_VISIBLE_DEVICES"))

    monkeypatch.setattr(executor, "execute", execute)
    monkeypatch.setattr(executor, "visible_gpus", lambda: ["4", "7"])
    with executor.open_pool(tmp_path, tmp_path, workers, None, use_gpus) as pool:
        pool.waiting += [Job(f"{number}", SOLUTION, "x.ipynb", {}) for number in range(2 * len(expected))]
        results = []
        while pool.waiting or pool.running:
            results += [result.error for result in pool.ended()]
    assert sorted(results, key=str) == sorted(2 * expected, key=str)
