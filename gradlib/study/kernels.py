"""One notebook executed in a kernel of its own, wherever a worker runs."""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill

from gradlib.data.files import printable
from gradlib.study.spec import SOLUTION, Job

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
    with contextlib.chdir(project):
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
                engine_name="gradlib",
                kernel_name="python3",
                progress_bar=False,
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
