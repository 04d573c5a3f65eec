"""Where jobs run: the workers of a Dask cluster, one of this machine's own or one that exists.

A worker is a process with one thread that executes one notebook at a time.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import dask
from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, Nanny, Scheduler, Security, SpecCluster, wait

from gradlib.study.kernels import Result, execute, last_line
from gradlib.study.spec import Job

__all__ = ["Pool", "Refused", "accelerators", "existing", "local"]

PATIENCE = 8.0  # seconds until a scheduler that does not answer is given up
KILLED = "its process was killed, twice; is there too little memory?"


def accelerators() -> list[str]:
    """The GPUs that PyTorch may use, as CUDA_VISIBLE_DEVICES names them; none is started."""
    if shutil.which("nvidia-smi") is None and not Path("/dev/nvidia0").exists():
        return []  # without PyTorch, which takes seconds to import
    import torch

    count = torch.cuda.device_count()  # asks the driver's management library
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return named[:count] if named[0] else [str(number) for number in range(count)]


class Refused(Exception):
    """What was asked for cannot be had; one line says why."""


@contextlib.contextmanager
def local(workers: int | None, jobs: int, use_accelerators: bool = True) -> Iterator[Client]:
    """Workers on this machine: `workers` of them, or one a GPU, or one a core where there is none.

    There are no more than `jobs`. Where there are GPUs, each worker sees one. Whoever speaks to a scheduler
    has it run any code: all listen on this machine alone, and speak TLS with certificates made for this once,
    which nobody else on a shared machine has.
    """
    gpus = accelerators() if use_accelerators else []
    workers = max(1, min(workers or len(gpus) or CPU_COUNT, jobs))
    short = "/tmp" if os.path.isdir("/tmp") else None
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gradlib-", dir=short))
        # Each also serves pages about itself, to anyone: none.
        pages = {f"distributed.{part}.http.routes": [] for part in ("scheduler", "worker")}
        stack.enter_context(dask.config.set(pages))
        security = Security.temporary()
        secure = {"host": "127.0.0.1", "protocol": "tls", "security": security}
        options = {
            **secure,
            "nthreads": 1,
            "memory_limit": 0,  # the memory is the kernel's, which Dask does not see
            "local_directory": folder,
            "dashboard": False,
            "silence_logs": 50,
        }
        specification = {}
        for number in range(workers):
            environment = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
            specification[number] = {"cls": Nanny, "options": {**options, "env": environment}}
        scheduler = {
            **secure,
            "port": 0,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",  # any port: two studies may run at once
            "allowed_failures": 0,  # `Pool` tries again, where it can say so
        }
        with _without_interrupts():
            cluster = SpecCluster(
                workers=specification,
                scheduler={"cls": Scheduler, "options": scheduler},
                security=security,
                silence_logs=50,
            )
            stack.enter_context(cluster)
        client = stack.enter_context(Client(cluster))
        try:
            yield client
        except BaseException:
            # A worker that is asked to close in the middle of a notebook complains; these just end.
            for nanny in cluster.workers.values():
                nanny.auto_restart = False
            client.run(os._exit, 1, wait=False, on_error="ignore")
            raise


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C is for the process that was started, which ends its workers: not for these themselves.

    Threads and processes that start meanwhile inherit it, and so do those that they start: a worker
    in place of one that died too.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it would lift the mask in the thread that starts a worker
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def existing(address: str, shared: Path) -> Iterator[Client]:
    """The workers of the scheduler at `address`. All must see the file `shared` as it is here.

    Dask's configuration says how they are spoken to: by TLS (`distributed.comm.tls`), or else plainly, and
    then whoever reaches the scheduler can have it run anything.

    Raises Refused where there is no such scheduler or a worker cannot do what is asked.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": PATIENCE}))
        try:
            client = stack.enter_context(Client(address, timeout=PATIENCE))
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise Refused(
                f"no scheduler answers at {address} ({last_line(str(error))}); "
                "start one with `dask scheduler`, and give its address as tcp://host:8786"
            ) from None
        threads = client.nthreads()
        for worker, number in threads.items():
            if number != 1:
                raise Refused(
                    f"worker {worker} has {number} threads, and a run takes a process of its own: "
                    "start it with `dask worker --nthreads 1`"
                )
        try:
            seen = client.run(_read, str(shared)) if threads else {}
        except ImportError as error:
            raise Refused(
                f"a worker of {address} lacks what is needed: {error}; install gradlib there"
            ) from None
        for worker, text in seen.items():
            if text != shared.read_text(encoding="utf-8"):
                raise Refused(f"worker {worker} does not see {shared}: it must share this file system")
        yield client


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return None


class Pool:
    """Jobs on the workers of `client`, one a worker at a time, in the folder `project`.

    A job whose worker dies is tried once more. Workers may come and go.
    """

    def __init__(self, client: Client, project: Path, say: Callable[[str], None] = print):
        self.client, self.project, self.say = client, project, say
        self.waiting: list[Job] = []
        self.running: dict[str, tuple[Job, float]] = {}  # with the time each began, by label
        self.workers = 0
        self._futures: dict[Future, tuple[str, str]] = {}  # label and worker
        self._deaths: Counter[str] = Counter()

    def submit(self, jobs: Iterable[Job]) -> None:
        """Have `jobs` run when a worker is free and the jobs that each comes after have ended."""
        self.waiting += jobs

    @property
    def busy(self) -> bool:
        """Whether anything is waiting or running."""
        return bool(self.waiting or self.running)

    def ended(self, seconds: float = 1.0) -> list[Result]:
        """The jobs that have ended, after a wait of at most `seconds` for the next one."""
        try:
            alive = {worker for worker, threads in self.client.nthreads().items() if threads == 1}
        except OSError:  # Dask's CommClosedError is one
            address = self.client.scheduler.address
            raise Refused(f"the scheduler at {address} is gone; start again to go on") from None
        self.workers = len(alive)
        taken = {worker for _, worker in self._futures.values()}
        for worker in sorted(alive - taken):
            self._start(worker)
        if self._futures:
            with contextlib.suppress(TimeoutError):
                # A list: of a dictionary, Dask would look for futures among the values.
                wait(list(self._futures), timeout=seconds, return_when="FIRST_COMPLETED")
        else:
            time.sleep(seconds)  # until there is a worker
        results = []
        for future, (label, worker) in list(self._futures.items()):
            if future.done() or worker not in alive:
                results += self._end(future, label)
        return results

    def stop(self) -> None:
        """End what is running by restarting its workers, which need a nanny for that."""
        workers = [worker for _, worker in self._futures.values()]
        if workers:
            self.client.restart_workers(workers, timeout=PATIENCE, raise_for_error=False)

    def _start(self, worker: str) -> None:
        to_come = {*self.running, *(job.label for job in self.waiting)}
        job = next((job for job in self.waiting if to_come.isdisjoint(job.after)), None)
        if job is None:
            return
        self.waiting.remove(job)
        self.running[job.label] = job, time.time()
        # On this worker and no other: what waited inside one that is killed would fail with it.
        future = self.client.submit(execute, job, str(self.project), pure=False, workers=[worker])
        self._futures[future] = job.label, worker

    def _end(self, future: Future, label: str) -> list[Result]:
        del self._futures[future]
        job, began = self.running.pop(label)
        if future.status == "finished":
            return [future.result()]
        error = future.exception() if future.status == "error" else None
        if error is not None and not isinstance(error, KilledWorker):
            text = f"{type(error).__name__}: {last_line(str(error))}"
        elif self._deaths[label]:
            text = KILLED
        else:
            future.cancel()
            self._deaths[label] += 1
            self.waiting.insert(0, job)
            self.say(f"{label}: its process was killed; it is tried once more")
            return []
        return [Result(job, "failed", time.time() - began, text)]
