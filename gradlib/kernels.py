"""One notebook executed in a kernel of its own, wherever a worker runs."""

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from traitlets.config import Config

from gradlib.names import printable
from gradlib.studyfile import SOLUTION, Job

__all__ = ["Result", "execute", "last_line"]


@dataclass(frozen=True)
class Result:
    """How a job ended: `status` is done, failed or already complete; `error` is one line."""

    job: Job
    status: str
    seconds: float = 0.0
    error: str = ""


def execute(job: Job, project: str) -> Result:
    """Execute one notebook in the folder `project` and keep it, with its traceback if it fails.

    The working folder and the environment of this process change meanwhile: a worker has one thread.
    """
    started = time.monotonic()
    # Paths relative to the project folder keep this machine's out of the executed notebook.
    with contextlib.chdir(project), _surroundings() as private:
        output = Path(job.output)
        # What papermill writes after every cell is half a file now and then.
        partial = output.with_name(f".{output.name}")
        output.parent.mkdir(parents=True, exist_ok=True)
        if job.notebook == SOLUTION:  # left by a run that failed after it
            (output.parent / "metrics.json").unlink(missing_ok=True)
        error = ""
        try:
            papermill.execute_notebook(
                job.notebook,
                str(partial),
                dict(job.parameters),
                kernel_name="python3",
                progress_bar=False,
                start_timeout=180,
                config=_settings(private),
            )
        except papermill.PapermillExecutionError as caught:
            error = f"{caught.ename}: {last_line(caught.evalue)}"
        except Exception as caught:  # the kernel died or never started: the other runs go on
            error = f"{type(caught).__name__}: {last_line(str(caught))}"
        with contextlib.suppress(OSError, ValueError):  # none was begun, or the disk is full
            nbformat.read(partial, as_version=4)
            os.replace(partial, output)
        partial.unlink(missing_ok=True)
    return Result(job, "failed" if error else "done", time.monotonic() - started, error)


def last_line(text: str) -> str:
    """What an error says, in one line."""
    return printable((text.strip().splitlines() or ["(no message)"])[-1])


@contextlib.contextmanager
def _surroundings() -> Iterator[str]:
    """The environment that a kernel needs, with a private folder for its files; gives that folder."""
    # A socket's path has at most 104 bytes on some systems, and their temporary folders are long.
    short = "/tmp" if os.path.isdir("/tmp") else None
    with tempfile.TemporaryDirectory(prefix="gradlib-", dir=short, ignore_cleanup_errors=True) as private:
        environment = {
            "JUPYTER_RUNTIME_DIR": private,
            "IPYTHONDIR": f"{private}/ipython",  # no start-up files of the user, no shared history
            "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one of the user's
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            # Dask has workers hand memory back to the system at once. A training step takes the
            # same blocks again and again, and faulting them in anew costs it half as much again.
            "MALLOC_TRIM_THRESHOLD_": str(2**33),
            "MALLOC_MMAP_THRESHOLD_": str(2**25),  # glibc's largest
        }
        # One thread a kernel, unless this process was told otherwise: the runs share the cores.
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[name] = os.environ.get(name, "1")
        with _environment(environment):
            yield private


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _settings(private: str) -> Config:
    """Of the kernel. It talks over sockets in the file system, where there are such, with names of its own.

    A kernel over TCP is given ports that were free a moment ago. Kernels that start at the same
    time in several processes are now and then given the same ones, and hang; with the default name
    of the sockets, likewise.
    """
    # That its parent has died, a kernel tells as a warning before it ends: `Pool` has said so.
    settings = {"NotebookClient": {"extra_arguments": ["--log-level=40"]}}
    if os.name != "nt":
        name = f"{private}/{uuid.uuid4().hex}.json"
        settings["KernelManager"] = {"transport": "ipc", "connection_file": name}
    return Config(settings)
