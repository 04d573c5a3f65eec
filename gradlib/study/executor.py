"""One notebook in a process of its own (`execute`), and many on a `concurrent.futures.Executor` (`Pool`).

The executor is a pool of threads, each of which waits for one process, or the workers of a Dask cluster.
"""

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import nbformat

from gradlib.study.engine import last_line
from gradlib.study.spec import SOLUTION, Job

TIMEOUT_S = 8  # until a scheduler that does not answer is given up
KILLED = "its process was killed, twice; out of memory?"


class Refused(ValueError):
    """What was asked for cannot be had; one line says why."""


@dataclass(frozen=True)
class Result:
    """How a job ended: `status` is done, failed or already complete; `error` is one line."""

    job: Job
    status: str
    seconds: float = 0.0
    error: str = ""


def execute(job: Job, project: str, token: str = "", environment: Mapping | None = None) -> Result:
    """Execute a notebook in the folder `project`, in a process of its own, and keep it with its error.

    A process that is killed is started once more. It ends when this process does, and when the file `token`
    is removed. environment: variables of the new process.
    """
    started, output, error = time.monotonic(), Path(project, job.output), None
    partial = output.with_name(f".{output.name}")  # papermill writes it after every cell
    output.parent.mkdir(parents=True, exist_ok=True)
    for left in (output, output.with_name("metrics.json")) if job.notebook == SOLUTION else ():
        left.unlink(missing_ok=True)
    # Paths relative to the project folder keep this machine's out of the executed notebook.
    request = {"input_path": job.notebook, "output_path": os.path.relpath(partial, project)}
    request |= {"parameters": dict(job.parameters)}
    for _ in range(2):
        if error is None and _is_wanted(token):
            error = _run(request, project, token, environment or {})
    with contextlib.suppress(OSError, ValueError):  # killed while it was written; the disk is full
        nbformat.read(partial, as_version=4)
        if error is not None or _is_wanted(token):
            os.replace(partial, output)
    partial.unlink(missing_ok=True)
    error = KILLED if error is None else error
    return Result(job, "failed" if error else "done", time.monotonic() - started, error)


def _is_wanted(token: str) -> bool:
    return not token or os.path.exists(token)


def _run(request: Mapping, project: str, token: str, environment: Mapping) -> str | None:
    """The error of one execution, "" where there was none, None where its process was killed."""
    with subprocess.Popen(
        [sys.executable, "-m", "gradlib.study.engine"],
        cwd=project,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,  # it ends when this closes, with this process at the latest
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the study
    ) as process, contextlib.suppress(BrokenPipeError):  # fmt: skip
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        while process.poll() is None and _is_wanted(token):
            time.sleep(0.1)
        answer = process.communicate()[0]
        return json.loads(answer) if answer else None


class Pool:
    """Jobs on an executor, each started once the jobs that it depends on have ended.

    start: hands a job to the executor. count: how many it executes at a time, now.
    """

    def __init__(self, start: Callable[[Job], Future], count: Callable[[], int]):
        self._start, self._count, self.slots = start, count, 1
        self.waiting: list[Job] = []
        self.running: dict[Future, Job] = {}

    def is_idle(self) -> bool:
        """Whether it could execute more jobs."""
        return len(self.waiting) + len(self.running) < self.slots

    def ended(self, seconds: float = 1.0) -> list[Result]:
        """Start what can be started; the jobs that have ended after a wait of at most `seconds`."""
        self.slots = self._count()
        unfinished = {job.label for job in [*self.waiting, *self.running.values()]}
        for job in list(self.waiting):
            if len(self.running) < self.slots and unfinished.isdisjoint(job.depends_on):
                self.waiting.remove(job)
                self.running[self._start(job)] = job
        if not self.running:
            time.sleep(seconds)  # until there is a worker
        results = []
        for future in wait(self.running, seconds, FIRST_COMPLETED).done:
            job = self.running.pop(future)
            try:
                results.append(future.result())
            except Exception as error:  # of a worker of the cluster
                results.append(Result(job, "failed", error=f"{type(error).__name__}: {last_line(error)}"))
        return results


@contextlib.contextmanager
def open_pool(
    folder: Path, project: Path, workers: int | None, scheduler: str | None, use_gpus: bool
) -> Iterator[Pool]:
    """A pool for the study in `folder`: of the Dask cluster at the address `scheduler`, or on this machine.

    workers: runs at a time here; default one a GPU, which it has alone, else one a core. When the block ends,
    so do the runs, wherever they are. Raises Refused where the cluster cannot be used.
    """
    for left in folder.glob(".driver-*"):  # by a driver that was killed: its runs on a cluster end now
        left.unlink()
    token = folder / f".driver-{uuid.uuid4().hex}"
    token.touch()
    with contextlib.ExitStack() as stack:
        stack.callback(token.unlink, missing_ok=True)
        if scheduler is not None:
            client = stack.enter_context(_client(scheduler, token))
            submit = client.get_executor(pure=False).submit
            yield Pool(lambda job: submit(execute, job, str(project), str(token)), lambda: _threads(client))
            return
        gpus = visible_gpus() if use_gpus else []
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        number = workers or len(gpus) or cores
        free = queue.SimpleQueue()  # the environments of runs
        for place in range(number):
            free.put({"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {})

        def run(job: Job) -> Result:
            environment = free.get()
            try:
                return execute(job, str(project), str(token), environment)
            finally:
                free.put(environment)

        threads = stack.enter_context(ThreadPoolExecutor(number))  # waits for its runs, so they must end
        stack.callback(token.unlink, missing_ok=True)
        yield Pool(lambda job: threads.submit(run, job), lambda: number)


def visible_gpus() -> list[str]:
    """The GPUs that PyTorch may use, as CUDA_VISIBLE_DEVICES names them; none is started."""
    if shutil.which("nvidia-smi") is None and not Path("/dev/nvidia0").exists():
        return []  # without PyTorch, which takes seconds to import
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return named[:count] if named[0] else [str(number) for number in range(count)]


@contextlib.contextmanager
def _client(address: str, token: Path) -> Iterator:
    """A client of the Dask scheduler at `address`, whose workers must see the file `token`."""
    try:
        from distributed import Client
    except ImportError:
        raise Refused("--scheduler needs Dask: pip install 'gradlib[cluster]'") from None
    connected = Future()

    def connect() -> None:
        try:
            connected.set_result(Client(address, timeout=TIMEOUT_S))
        except Exception as error:  # Dask raises whatever comes of a wrong address or answer
            connected.set_exception(error)

    # In a thread: what accepts and stays silent is waited for without an end.
    threading.Thread(target=connect, daemon=True).start()
    try:
        client = connected.result(TIMEOUT_S)
    except Exception as error:
        reason = last_line(error) if str(error) else "no answer"
        raise Refused(
            f"no scheduler answers at {address} ({reason}); start one with `dask scheduler`, and give its "
            "address as tcp://host:8786"
        ) from None
    with client:
        for worker, found in client.run(os.path.exists, str(token)).items():
            if not found:
                raise Refused(f"worker {worker} does not see {token.parent}: it must share this file system")
        yield client


def _threads(client) -> int:
    """How many threads the workers of a Dask cluster have together; they may come and go."""
    try:
        return sum(client.nthreads().values())
    except OSError:  # Dask's CommClosedError is one
        raise Refused(f"the scheduler at {client.scheduler.address} is gone; start again to go on") from None
