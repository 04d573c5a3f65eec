"""The driver of a search: asks for trials, has their runs executed, tells what they scored.

Each trial is a solution with values of its own on every fold and seed of the study. What is running is looked
at after every epoch, and a trial that is behind is ended early.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna
from distributed import Client
from optuna.trial import TrialState
from tqdm import tqdm

from gradlib.runs import write
from gradlib.study import executor, trials
from gradlib.study.kernels import Result
from gradlib.study.objective import Objective, text
from gradlib.study.search_spec import Search, decoded
from gradlib.study.spec import Job
from gradlib.study.status import Progress, clock

__all__ = ["run"]


@dataclass
class Attempt:
    """A trial under way. left: its runs that have not ended. ending: why they are to end early; error: of the
    run that failed. told: the epochs that Optuna knows of."""

    trial: optuna.Trial
    name: str
    jobs: Sequence[Job]
    left: set[str]
    ending: str = ""
    error: str = ""
    told: int = 0
    curve: list[float] = field(default_factory=list)


def run(search: Search, client: Client, progress: Progress, specialists: Mapping[str, Sequence[Job]]) -> None:
    """Search until the trials that were asked for have ended; those that ended before count.

    specialists: by task the complete runs that `delta_m` compares with. A trial whose run fails has failed,
    with the run's error, and the search goes on.
    """
    with tqdm(total=search.trials, unit="trial", disable=None, leave=False) as bar:
        driver = Driver(
            search, executor.Pool(client, progress.study.project, bar.write), progress, specialists
        )
        try:
            for done, line in driver.go():
                if line:
                    bar.write(f"[{done}/{search.trials}] {line}")
                bar.n = done
                bar.set_postfix_str(", ".join(driver.underway()))
        except KeyboardInterrupt:
            if client.cluster is None:  # these workers would go on; ours end with this process
                driver.pool.stop()
            raise


class Driver:
    """The trials of `search` on the workers of `pool`."""

    def __init__(
        self,
        search: Search,
        pool: executor.Pool,
        progress: Progress,
        specialists: Mapping[str, Sequence[Job]],
    ):
        self.search, self.pool, self.progress = search, pool, progress
        self.project = progress.study.project
        folders = {task: self._folders(jobs) for task, jobs in specialists.items()}
        self.objective = Objective(search.objective, folders)
        if not self.objective.judges:
            raise executor.Refused(
                f"search of {search.study}: the specialists end at 0 on the validation part, and delta_m is "
                "in per cent of that: train longer, or give another objective"
            )
        example = search.jobs("trial", {})
        self.epochs, self.runs = example[0].epochs, len(example)
        self.study = trials.begin(search, self.objective.direction, self.epochs)
        self.space = trials.distributions(search.space)
        self.attempts: list[Attempt] = []

    def go(self) -> Iterator[tuple[int, str]]:
        """Run to the end; yields the number of trials that have ended, with a line on each that does."""
        done = len(trials.ended(self.study))
        while True:
            while done + len(self.attempts) < self.search.trials and self._idle():
                self._ask()
            if not self.attempts:
                return
            for result in self.pool.ended() if self.pool.busy else ():
                self._end(result)
            for attempt in list(self.attempts):
                self._look(attempt)
                if not attempt.left:
                    self.attempts.remove(attempt)
                    done += 1
                    yield done, self._tell(attempt)
            self.progress.to_come = self.runs * (self.search.trials - done - len(self.attempts))
            self.progress.update(self.pool.running, self.pool.workers)
            yield done, ""

    def underway(self) -> Iterator[str]:
        """How long is left, and which trials run, each with the epochs of its last run."""
        left = self.progress.left()
        if left:
            yield f"about {clock(left)} left"
        for attempt in self.attempts:
            yield f"{attempt.name} epoch {len(attempt.curve)}" if attempt.curve else attempt.name

    def _idle(self) -> bool:
        """Whether a worker has nothing to do."""
        return len(self.pool.running) + len(self.pool.waiting) < max(1, self.pool.workers)

    def _folders(self, jobs: Sequence[Job]) -> list[Path]:
        return [self.project / job.folder for job in jobs]

    def _ask(self) -> None:
        """Begin the next trial; of one that is asked for again, the complete runs stand."""
        trial = self.study.ask(self.space)
        name = trials.name_of(trial)
        jobs = self.search.jobs(name, decoded(self.search.space, trial.params))
        todo = [job for job in jobs if not self.search.complete(job)]
        for job in todo:  # left by a driver that died: it would be taken for what this one's run scored
            (self.project / job.folder / "epochs.csv").unlink(missing_ok=True)
        self.attempts.append(Attempt(trial, name, jobs, {job.label for job in todo}))
        self.progress.add(jobs, {job.label for job in jobs} - self.attempts[-1].left)
        self.pool.submit(todo)

    def _end(self, result: Result) -> None:
        """Note how a run ended; where it failed, its trial has."""
        label = result.job.label
        attempt = next(attempt for attempt in self.attempts if label in attempt.left)
        attempt.left.discard(label)
        if result.status == "failed" and attempt.ending:
            result = replace(result, status="pruned", error=attempt.ending)
        elif result.status == "failed":
            attempt.error = f"{label}: {result.error}"
            attempt.ending = "ended by the search: another run of the same trial failed"
        self.progress.end(result)

    def _look(self, attempt: Attempt) -> None:
        """Tell Optuna of the epochs that all runs of a trial have finished, and end it if it is behind."""
        attempt.curve = self.objective.curve(self._folders(attempt.jobs))
        while attempt.told < len(attempt.curve) and not attempt.ending:
            value = attempt.curve[attempt.told]
            if math.isfinite(value):
                attempt.trial.report(value, attempt.told)
            attempt.told += 1
            if attempt.left and attempt.told < self.epochs and attempt.trial.should_prune():
                scored = text(self.objective.name, value)
                attempt.ending = (
                    f"pruned by the search after epoch {attempt.told}: {scored} is behind the median"
                )
        if attempt.ending:
            self._end_early(attempt)

    def _end_early(self, attempt: Attempt) -> None:
        """Have the runs of a trial end. Done at every look, for a run that is tried again would not know."""
        for job in [job for job in self.pool.waiting if job.label in attempt.left]:
            self.pool.waiting.remove(job)
            self._end(Result(job, "failed"))
        for job in attempt.jobs:
            folder = self.project / job.folder
            if job.label in attempt.left and not (folder / write.STOP).is_file():
                write.write_whole(folder / write.STOP, attempt.ending)

    def _tell(self, attempt: Attempt) -> str:
        """Tell Optuna how a trial ended; the line that says so."""
        trial, value = attempt.trial, attempt.curve[-1] if attempt.curve else math.nan
        trial.set_user_attr("epochs", len(attempt.curve))
        line = f"{attempt.name} ({trials.values_text(trial.params)})"
        if not (attempt.error or attempt.ending or math.isfinite(value)):
            attempt.error = f"the validation part gives no {self.objective.name} after the last epoch"
        if attempt.error:
            trial.set_user_attr("error", attempt.error)
            self.study.tell(trial, state=TrialState.FAIL)
            return f"{line}: failed: {attempt.error}"
        if attempt.ending:
            self.study.tell(trial, state=TrialState.PRUNED)
            return f"{line}: {attempt.ending}"
        self.study.tell(trial, value)
        return f"{line}: {text(self.objective.name, value)}"
