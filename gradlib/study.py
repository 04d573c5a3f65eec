"""A study: many runs, their comparison and their analysis, each an executed notebook.

The runs go out through a local Dask cluster, one kernel with one thread a core. What is complete is
not run again; what fails is kept, named, and does not stop the others.
"""

import contextlib
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dask
import papermill
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, wait
from jupyter_core.paths import jupyter_runtime_dir
from nbconvert import HTMLExporter
from tqdm import tqdm
from traitlets.config import Config

from gradlib.runs import write_whole
from gradlib.studyfile import ANALYSIS, COMPARE, SOLUTION, Job, Study

__all__ = ["Result", "execute", "run"]


@dataclass(frozen=True)
class Result:
    """How a job ended: `status` is done, failed or already complete; `error` is one line."""

    job: Job
    status: str
    seconds: float = 0.0
    error: str = ""


def execute(job: Job, project: str) -> Result:
    """Execute one notebook in the folder `project` and keep it, with its traceback if it fails."""
    # Paths relative to the project folder keep this machine's out of the executed notebook.
    with contextlib.chdir(project):
        started = time.monotonic()
        output = Path(job.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        if job.notebook == SOLUTION:  # left by a run that failed after it
            (output.parent / "metrics.json").unlink(missing_ok=True)
        error = ""
        try:
            papermill.execute_notebook(
                job.notebook,
                job.output,
                dict(job.parameters),
                kernel_name="python3",
                progress_bar=False,
                start_timeout=180,
                config=_transport(),
            )
        except papermill.PapermillExecutionError as caught:
            error = f"{caught.ename}: {_last_line(caught.evalue)}"
        except Exception as caught:  # the kernel died or never started: the other runs go on
            error = f"{type(caught).__name__}: {_last_line(str(caught))}"
        return Result(job, "failed" if error else "done", time.monotonic() - started, error)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["(no message)"])[-1]


def _transport() -> Config:
    """Kernels talk over sockets in the file system, where there are such, with names of their own.

    A kernel over TCP is given ports that were free a moment ago. Kernels that start at the same
    time in several processes are now and then given the same ones, and hang; with the default name
    of the sockets, likewise.
    """
    if os.name == "nt":
        return Config()
    name = f"{jupyter_runtime_dir()}/{uuid.uuid4().hex}.json"
    return Config({"KernelManager": {"transport": "ipc", "connection_file": name}})


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[Client]:
    """A Dask client with one single-threaded process for each of `workers` kernels."""
    # A socket's path has at most 104 bytes on some systems, and their temporary folders are long.
    short = "/tmp" if os.path.isdir("/tmp") else None
    with tempfile.TemporaryDirectory(prefix="gradlib-", dir=short) as private:
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
        # A run that kills its worker is reported, not tried again.
        settings = {"distributed.scheduler.allowed-failures": 0}
        with contextlib.ExitStack() as stack:
            stack.enter_context(dask.config.set(settings))
            # The workers inherit this: Ctrl-C is for the process that was started, which ends them.
            interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address="127.0.0.1:0",  # any port: two studies may run at once
                    scheduler_kwargs={"dashboard": False},
                    memory_limit=0,  # the memory is the kernel's, which Dask does not see
                    local_directory=private,
                    env=environment,
                    silence_logs=50,
                )
                stack.enter_context(cluster)
            finally:
                signal.signal(signal.SIGINT, interrupt)
            yield stack.enter_context(Client(cluster))


def _watch(client: Client, jobs: list[Job], project: Path) -> Iterator[Result]:
    """Execute `jobs`, show a bar with what is running, and yield each result as it comes."""
    # One job a worker at a time: what waited inside a worker that is killed would fail with it.
    waiting, running, done = list(jobs), {}, 0
    with tqdm(total=len(jobs), unit="run", disable=None, leave=False) as bar:
        while waiting or running:
            while len(running) < len(client.cluster.workers):
                to_come = {job.label for job in (*waiting, *(entry[0] for entry in running.values()))}
                job = next((job for job in waiting if to_come.isdisjoint(job.after)), None)
                if job is None:
                    break
                waiting.remove(job)
                running[client.submit(execute, job, str(project), pure=False)] = (job, time.time())
            with contextlib.suppress(TimeoutError):
                # A list: of a dictionary, Dask would look for futures among the values.
                wait(list(running), timeout=1, return_when="FIRST_COMPLETED")
            for future in [future for future in running if future.done()]:
                job, began = running.pop(future)
                if future.status == "finished":
                    result = future.result()
                else:
                    why = "its process was killed; is there too little memory?"
                    result = Result(job, "failed", time.time() - began, why)
                done += 1
                bar.update()
                text = f"{job.label}: {result.status} in {_clock(result.seconds)}"
                bar.write(f"[{done}/{len(jobs)}] {text}")
                yield result
            bar.set_postfix_str(", ".join(_epoch(*entry, project) for entry in running.values()))


def _epoch(job: Job, since: float, project: Path) -> str:
    """The label of a running job and the number of its finished epochs."""
    epochs = project / Path(job.output).parent / "epochs.csv"
    if not epochs.is_file() or epochs.stat().st_mtime < since:
        return job.label
    return f"{job.label} epoch {max(0, len(epochs.read_text().splitlines()) - 1)}"


def _html(job: Job, project: Path, with_code: bool) -> str:
    """Write the executed notebook of `job` as an HTML page next to it; the path of the page."""
    page = Path(job.output).with_suffix(".html")
    exporter = HTMLExporter(
        exclude_input=not with_code, exclude_input_prompt=True, exclude_output_prompt=True
    )
    body, _ = exporter.from_filename(str(project / job.output))
    write_whole(project / page, body)
    return page.as_posix()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def run(study: Study, workers: int | None = None) -> int:
    """Run `study` on `workers` processes (one a core by default); 0 if nothing failed, else 1.

    Runs that are complete are not run again. A failed notebook is kept and named, the others are
    finished all the same.
    """
    results = {label: Result(job, "already complete") for label, job in study.complete.items()}
    todo = [job for job in study.runs if job.label not in results]
    print(f"study {study.name}: {len(todo)} runs to do, {len(results)} already complete", flush=True)
    others = []
    with _cluster(max(1, min(workers or CPU_COUNT, len(todo)))) as client:
        others += _watch(client, [study.data], study.project)
        results |= {result.job.label: result for result in _watch(client, todo, study.project)}
        if any(result.status != "failed" for result in results.values()):
            for notebook, output in ((COMPARE, "compare"), (ANALYSIS, "analysis")):
                others += _watch(client, [study.report(notebook, output)], study.project)
    return _summary([others[0], *(results[job.label] for job in study.runs), *others[1:]], study.project)


def _summary(results: list[Result], project: Path) -> int:
    """Write the HTML pages, print how each notebook ended, and return the exit status."""
    width = max(len(result.job.label) for result in results)
    print(f"\n{'':{width}}  time   status")
    for result in results:
        print(f"{result.job.label:{width}}  {_clock(result.seconds):5}  {result.status}")
    print()
    for result in results:
        if result.status == "failed":
            print(f"failed: {result.job.output}: {result.error}")
        elif result.job.notebook != SOLUTION:
            page = _html(result.job, project, with_code=result.job.notebook != ANALYSIS)
            print(f"{result.job.label}: {page}")
    return int(any(result.status == "failed" for result in results))
