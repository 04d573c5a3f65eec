"""The processes of a training beside the one that was asked: started, watched, ended.

They meet over a file in a private folder, and talk over loopback.
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from gradlib.team import Team

__all__ = ["Lost", "Others"]

LONG = timedelta(days=1)  # a training that rests may rest long; who dies is noticed at once
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
WORK = "from gradlib import processes; processes._work()"


class Lost(RuntimeError):
    """A process of a training has ended before it."""


class Others:
    """The processes 1 to size - 1, each at `work(team)`; this one is process 0.

    work: what `pickle` can take, as the partial of a function of a module. One process has at most one such
    group: where there is another, it is ended.
    """

    _latest: "Others | None" = None

    def __init__(self, size: int, work: Callable[[Team], None]):
        if Others._latest:
            Others._latest.end()
        Others._latest = self
        self.team = Team(0, size)
        self._folder = tempfile.TemporaryDirectory(prefix="gradlib-", ignore_cleanup_errors=True)
        store = str(Path(self._folder.name) / "store")
        threads = str(max(1, torch.get_num_threads() // size))  # on a CPU they share the cores
        environment = os.environ | {
            "OMP_NUM_THREADS": threads,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        self._processes = []
        try:
            content = io.BytesIO()
            torch.save((os.getpid(), size, store, work), content)
            for rank in range(1, size):
                self._start(rank, content.getbuffer(), environment)
            _join(self.team, store, self.look)
        except BaseException:
            self.end()
            raise

    def _start(self, rank: int, content: memoryview, environment: dict[str, str]) -> None:
        with self._said(rank).open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", WORK, str(rank)],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                env=environment,
                start_new_session=True,  # an interrupt is for the first, which ends its step
            )
        self._processes.append(process)
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # one that is dead is seen later
            stdin.write(content)

    def _said(self, rank: int) -> Path:
        return Path(self._folder.name) / f"said-{rank}"

    @property
    def ended(self) -> bool:
        """Whether this group is no more."""
        return Others._latest is not self

    def look(self, seconds: float = 0.0) -> None:
        """Raise Lost where another process has ended in an error, or does within so many seconds."""
        if self.ended:
            raise Lost("the other processes were ended for another training's: make a new trainer")
        until = time.monotonic() + seconds
        while True:
            for rank, process in enumerate(self._processes, 1):
                if process.poll():
                    raise Lost(f"process {rank + 1} of {self.team.size} {self._how(rank)}")
            if time.monotonic() >= until:
                return
            time.sleep(0.05)

    def _how(self, rank: int) -> str:
        code = self._processes[rank - 1].returncode
        if code < 0:
            name = signal.Signals(-code).name
            return f"was killed by {name}" + (" (for want of memory?)" if name == "SIGKILL" else "")
        said = self._said(rank).read_text(errors="replace").strip()
        return f"ended: {said.splitlines()[-1] if said else f'exit status {code}'}"

    def __enter__(self) -> "Others":
        return self

    def __exit__(self, *_) -> None:
        self.end()

    def end(self) -> None:
        """End the others, and leave their group."""
        if self.ended:
            return
        Others._latest = None
        for process in self._processes:
            process.kill()
            process.wait()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        self._folder.cleanup()


def _join(team: Team, path: str, look: Callable[[], None] = lambda: None) -> None:
    """Meet the others at the file `path`; `look` raises where one will not come."""
    store = distributed.FileStore(path, team.size)
    store.set(f"{team.rank} is here", "")
    while not store.check([f"{rank} is here" for rank in range(team.size)]):
        look()
        time.sleep(0.05)
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    try:
        # Tensors of CUDA go by NCCL, all others by gloo.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(
            backend, store=store, rank=team.rank, world_size=team.size, timeout=LONG
        )
    finally:
        if before is None:
            del os.environ["GLOO_SOCKET_IFNAME"]
        else:
            os.environ["GLOO_SOCKET_IFNAME"] = before


def _work() -> None:
    """The life of one of the others. What it is to do comes from the process that started it."""
    starter, size, store, work = torch.load(io.BytesIO(sys.stdin.buffer.read()), weights_only=False)
    threading.Thread(target=_end_with, args=(starter,), daemon=True).start()
    team = Team(int(sys.argv[1]), size)
    _join(team, store)
    work(team)


def _end_with(starter: int) -> None:
    """End this process when the one that started it has ended, whatever this one waits for."""
    while os.getppid() == starter:
        time.sleep(0.5)
    os._exit(1)
