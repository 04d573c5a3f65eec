"""A study: many runs, their comparison and their analysis, each an executed notebook; then its search.

What is complete is not run again; what fails is kept, named, and does not stop the others.
"""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from gradlib.checks import PAGES_FOLDER, SEARCH_FOLDER
from gradlib.data.faults import counted
from gradlib.runs import lock
from gradlib.runs.write import remove_unfinished
from gradlib.study import pages
from gradlib.study.executor import Pool, Refused, Result, open_pool
from gradlib.study.spec import ANALYSIS, SOLUTION, Job, StudySpec, check_data
from gradlib.study.status import clock, describe_status, epochs_done


def run_study(spec: StudySpec, workers: int | None = None, scheduler: str | None = None) -> int:
    """Run a study and return 0 if nothing failed, else 1. Trials of its search may fail, but not all of them.

    workers: runs at a time on this machine (default: one a GPU, or one a core where there is none).
    scheduler: the address of a Dask scheduler, whose workers execute the runs.
    Raises Refused where the study runs already or the scheduler cannot be used.
    """
    search, failed, written, found, ended = spec.search, {}, {}, True, ""
    todo = [job for job in spec.runs if job.label not in spec.complete]
    trained = [*todo, *(search.jobs("trial", {}) if search else ())]
    use_gpus = any(job.parameters.get("device", "auto") != "cpu" for job in trained)
    spec.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.hold(spec.folder, timeout=0.5))  # `--status` takes it for a moment
        except lock.Timeout:
            text = f"study {spec.name} runs already in another process: see how far it is with --status"
            raise Refused(text) from None
        for name in (PAGES_FOLDER, SEARCH_FOLDER):
            remove_unfinished(spec.folder / name)
        if search:
            from gradlib.study import trials
            from gradlib.study.search import run_search

            trials.progress(search)  # raises where they cannot be read
        check_data(spec)
        pool = open_pool(spec.folder, spec.project, workers, scheduler, use_gpus)
        pool, writer = stack.enter_context(pool), stack.enter_context(ThreadPoolExecutor(1))
        print(f"study {spec.name}: {len(todo)} runs to do, {len(spec.complete)} already complete", flush=True)

        def run(jobs: Sequence[Job]) -> None:
            for result in _run(pool, jobs, spec.project):
                if result.error:
                    failed[result.job.label] = result
                elif result.job.notebook != SOLUTION:
                    written[result.job.label] = writer.submit(pages.write, result.job, spec.project)

        run([spec.data, *todo])
        while spec.keys.precision and not failed:
            from gradlib.study.rounds import progress

            ended, line = progress(spec)
            print(f"{counted(len(spec.seeds), 'seeds')}: {line}", flush=True)
            if ended:
                break
            run(spec.add_round())
        if any(job.label not in failed for job in spec.runs):
            told = {ANALYSIS: {"ended": ended}} if ended else {}
            given = [{**job.parameters, **told.get(job.notebook, {})} for job in spec.reports]
            run([replace(job, parameters=own) for job, own in zip(spec.reports, given, strict=True)])
        if search:
            specialists = search.specialists()
            run([job for jobs in specialists.values() for job in jobs if not search.complete(job)])
            if all(search.complete(job) for jobs in specialists.values() for job in jobs):
                found = run_search(search, pool, specialists)
                run([search.report])
    print(f"\n{describe_status(spec)}\n")
    for result in failed.values():
        print(f"failed: {result.job.output}: {result.error}")
    for label, paths in written.items():
        print(f"{label}: {', '.join(paths.result())}")
    return int(bool(failed) or not found)


def _run(pool: Pool, jobs: Sequence[Job], project: Path) -> Iterator[Result]:
    """Execute `jobs`, show a bar with what is running, and yield each result as it comes."""
    pool.waiting += jobs
    n_ended, total = 0, sum(max(1, job.epochs) for job in jobs)
    with tqdm(total=total, unit="epoch", disable=None, leave=False) as bar:
        while pool.waiting or pool.running:
            for result in pool.ended():
                n_ended += 1
                line = f"{result.job.label}: {result.status} in {clock(result.seconds)}"
                bar.write(f"[{n_ended}/{len(jobs)}] {line}")
                yield result
            epochs = {job.label: epochs_done(job, project) for job in pool.running.values()}
            left = sum(max(1, job.epochs) for job in [*pool.running.values(), *pool.waiting])
            bar.n = total - left + sum(epochs.values())
            bar.set_postfix_str(", ".join(f"{label} epoch {number}" for label, number in epochs.items()))
