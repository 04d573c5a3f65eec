"""A study: many runs, their comparison and their analysis, each an executed notebook.

The runs go out to the workers of a Dask cluster. What is complete is not run again; what fails is kept,
named, and does not stop the others. A search comes after the runs.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from distributed import Client
from tqdm import tqdm

from gradlib.runs import locks
from gradlib.study import executor, pages, trials
from gradlib.study import search as searching
from gradlib.study.kernels import Result
from gradlib.study.spec import SOLUTION, Job, Study
from gradlib.study.status import FILE, Progress, clock

__all__ = ["run"]


def run(study: Study, workers: int | None = None, scheduler: str | None = None) -> int:
    """Run `study` and return 0 if nothing failed, else 1. Trials of its search may fail, but not all of them.

    workers: processes on this machine (default: one a GPU, or one a core where there is none).
    scheduler: the address of a Dask scheduler whose workers to use instead.

    Runs that are complete are not run again. A failed notebook is kept and named, the others are
    finished all the same. Raises `executor.Refused` where the study runs already, or the scheduler or its
    workers cannot be used.
    """
    study.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.held(study.folder, seconds=0.5))  # `--status` looks for a moment
        except BlockingIOError:
            raise executor.Refused(
                f"study {study.name} runs already in another process: see how far it is with --status"
            ) from None
        if study.search:
            try:
                trials.standing(study.search)
            except ValueError as error:
                raise executor.Refused(str(error)) from None
        progress = Progress(study)
        progress.write(at_once=True)
        todo = [job for job in study.runs if job.label not in study.complete]
        print(
            f"study {study.name}: {len(todo)} runs to do, {len(study.complete)} already complete", flush=True
        )
        search = study.search
        trial = search.jobs("trial", {}) if search else []
        most = max(1 + len(todo), len(study.reports), len(trial) * search.trials if search else 0)
        asked = [job.parameters for job in [*todo, *trial]]
        accelerated = any(values.get("device", "auto") != "cpu" for values in asked)
        client = stack.enter_context(
            executor.existing(scheduler, study.folder / FILE)
            if scheduler
            else executor.local(workers, most, accelerated)
        )
        writers = stack.enter_context(ThreadPoolExecutor(2))  # what takes long is the browser's
        results = {label: Result(job, "already complete") for label, job in study.complete.items()}
        written = {}

        def go(jobs: Sequence[Job]) -> None:
            for result in _watch(client, jobs, progress):
                results[result.job.label] = result
                if result.status == "done" and result.job.notebook != SOLUTION:
                    written[result.job.label] = writers.submit(pages.write, result.job, study.project)

        go([study.data, *todo])
        if any(results[job.label].status != "failed" for job in study.runs):
            go(study.reports)
        if search:
            specialists = search.specialists()
            go([job for jobs in specialists.values() for job in jobs if not search.complete(job)])
            if all(search.complete(job) for jobs in specialists.values() for job in jobs):
                searching.run(search, client, progress, specialists)
                go([search.report])
        progress.write(at_once=True)
        ended = [results[label] for label in progress.jobs if label in results]
        status = _summary(ended, written, study.project)
        if search:
            print(trials.progress(search))
        return int(status or bool(search and not trials.standing(search).complete))


def _watch(client: Client, jobs: Sequence[Job], progress: Progress) -> Iterator[Result]:
    """Execute `jobs`, show a bar with what is running, and yield each result as it comes."""
    progress.add(jobs)
    with tqdm(total=len(jobs), unit="run", disable=None, leave=False) as bar:
        pool = executor.Pool(client, progress.study.project, say=bar.write)
        pool.submit(jobs)
        done = 0
        try:
            while pool.busy:
                for result in pool.ended():
                    done += 1
                    progress.end(result)
                    bar.update()
                    text = f"{result.job.label}: {result.status} in {clock(result.seconds)}"
                    bar.write(f"[{done}/{len(jobs)}] {text}")
                    yield result
                progress.update(pool.running, pool.workers)
                bar.set_postfix_str(", ".join(_bar(pool, progress)))
        except KeyboardInterrupt:
            if client.cluster is None:  # these workers would go on; ours end with this process
                pool.stop()
            raise


def _bar(pool: executor.Pool, progress: Progress) -> Iterator[str]:
    """What is running, each with the number of its finished epochs, and how long is left."""
    if not pool.workers:
        yield "waiting for a worker"
    left = progress.left()
    if left:
        yield f"about {clock(left)} left"
    for label in pool.running:
        done = progress.states[label]["epochs"][0]
        yield f"{label} epoch {done}" if done else label


def _summary(results: list[Result], written: Mapping[str, Future], project: Path) -> int:
    """Print how each notebook ended and where its pages are, and return the exit status."""
    width = max(len(result.job.label) for result in results)
    print(f"\n{'':{width}}  time     status")
    for result in results:
        print(f"{result.job.label:{width}}  {clock(result.seconds):7}  {result.status}")
    print()
    notes = {}  # each once, in order
    for result in results:
        if result.status == "failed":
            print(f"failed: {result.job.output}: {result.error}")
        elif result.job.label in written:
            files, lacking = written[result.job.label].result()
            print(f"{result.job.label}: {', '.join(file.relative_to(project).as_posix() for file in files)}")
            notes |= dict.fromkeys(lacking)
    for note in notes:
        print(note)
    return int(any(result.status == "failed" for result in results))
