"""Running a search: asks Optuna for trials, has their runs executed, tells what they scored.

A trial is a solution trial-<number> with values of its own, run on every fold and seed of the study. One that
is behind ends early. A search that was killed goes on with the trials that were running.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import TrialState
from tqdm import tqdm

from gradlib.checks import SEARCH_FOLDER
from gradlib.runs.write import STOP, write_whole
from gradlib.study.executor import Pool, Refused
from gradlib.study.objective import curve, is_defined, maximises, text
from gradlib.study.search_spec import ASKED, SearchSpec, decoded, label
from gradlib.study.spec import Job
from gradlib.study.study_file import Range
from gradlib.study.trials import JOURNAL, best_first, ended, load_search, name_of, storage, values_text

MIN_JUDGES = 5  # complete trials before one is judged by them
WARM_UP = 0.25  # the part of the epochs in which no trial is ended


@dataclass
class Attempt:
    """A trial that is running. left: labels of its runs that have not ended. reported: the epochs that Optuna
    knows of. ending: why its runs are to end early. error: of a run that failed. scores: after each epoch."""

    trial: optuna.Trial
    jobs: Sequence[Job]
    left: set[str]
    reported: int
    ending: str = ""
    error: str = ""
    scores: Sequence[float] = ()


def run_search(search: SearchSpec, pool: Pool, specialists: Mapping[str, Sequence[Job]]) -> bool:
    """Search until the trials that were asked for have ended; whether any is complete.

    specialists: by task the complete runs that `delta_m` compares with. A trial whose run fails has failed,
    with the run's error, and the search goes on. Raises Refused where the objective is not defined.
    """
    project = search.folder.parents[2]
    folders = {task: [project / job.folder for job in jobs] for task, jobs in specialists.items()}
    if not is_defined(search.objective, folders):
        raise Refused(
            f"search of {search.spec.name}: the specialists end at 0 on the validation part, and delta_m is "
            "in per cent of that: train longer, or give another objective"
        )
    study, attempts = _begin(search), []
    done = len(ended(study))
    with tqdm(total=search.trials, initial=done, unit="trial", disable=None, leave=False) as bar:
        while True:
            while done + len(attempts) < search.trials and pool.is_idle():
                attempts.append(_next(study, search, attempts, project))
                pool.waiting += [job for job in attempts[-1].jobs if job.label in attempts[-1].left]
            if not attempts:
                return bool(best_first(study))
            for result in pool.ended():
                attempt = next(attempt for attempt in attempts if result.job.label in attempt.left)
                attempt.left.remove(result.job.label)
                if result.status == "failed" and not attempt.ending:
                    attempt.error = f"{result.job.label}: {result.error}"
                    attempt.ending = "ended by the search: another run of the same trial failed"
            for attempt in list(attempts):
                runs = [project / job.folder for job in attempt.jobs]
                attempt.scores = curve(search.objective, runs, folders)
                _report(attempt, search.objective)
                if attempt.ending:
                    _end_early(attempt, pool, project)
                if not attempt.left:
                    attempts.remove(attempt)
                    done += 1
                    bar.update()
                    bar.write(f"[{done}/{search.trials}] {_tell(study, attempt, search.objective)}")
            bar.set_postfix_str(", ".join(f"{name_of(a.trial)} epoch {len(a.scores)}" for a in attempts))


def _begin(search: SearchSpec) -> optuna.Study:
    """The trials of `search`, none or those there are. Raises ValueError as `load_search`.

    Values are sampled by TPE (Bergstra et al. 2011). A trial is pruned where its best epoch so far is worse
    than the median of the other trials at this epoch.
    """
    write_whole(search.folder / ASKED, json.dumps(search.asked, indent=1, ensure_ascii=False))
    if (search.folder / JOURNAL).is_file():
        load_search(search.folder)  # raises
    direction = "maximize" if maximises(search.objective) else "minimize"
    study = optuna.create_study(
        study_name=SEARCH_FOLDER, storage=storage(search.folder), direction=direction, load_if_exists=True
    )
    # Begun again from the same seed, the sampler would draw the first trials' values once more.
    seed = search.seed + len(study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    epochs, pruners = search.jobs("trial", {})[0].epochs, optuna.pruners
    median = pruners.MedianPruner(MIN_JUDGES, round(WARM_UP * epochs))
    study.pruner = median if search.pruner else pruners.NopPruner()
    return study


def _next(study: optuna.Study, search: SearchSpec, attempts: Sequence[Attempt], project: Path) -> Attempt:
    """The next trial: one that was running when the search was killed, else a new one."""
    taken = {attempt.trial.number for attempt in attempts}
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    left = next((trial for trial in running if trial.number not in taken), None)
    trial = optuna.Trial(study, left._trial_id) if left else study.ask()
    jobs = search.jobs(name_of(trial), decoded(search.space, suggest(trial, search.space)))
    todo = [job for job in jobs if not search.complete(job)]
    for job in todo:  # no score of this trial, until its run has gone on
        (project / job.folder / "epochs.csv").unlink(missing_ok=True)
    return Attempt(trial, jobs, {job.label for job in todo}, len(left.intermediate_values) if left else 0)


def suggest(trial: optuna.Trial, space: Mapping[str, Range | Sequence]) -> dict:
    """The values of a trial, as Optuna takes them; those that it has already stay."""
    for name, part in space.items():
        if not isinstance(part, Range):
            trial.suggest_categorical(name, [label(value) for value in part])
        elif isinstance(part.low, int):
            trial.suggest_int(name, part.low, part.high, step=part.step or 1, log=part.log)
        else:
            trial.suggest_float(name, part.low, part.high, step=part.step, log=part.log)
    return trial.params


def _report(attempt: Attempt, objective: str) -> None:
    """Tell Optuna of the epochs that all runs of a trial have finished, and end it if it is behind."""
    while attempt.reported < len(attempt.scores) and not attempt.ending:
        value = attempt.scores[attempt.reported]
        if math.isfinite(value):
            attempt.trial.report(value, attempt.reported)
        attempt.reported += 1
        unfinished = attempt.left and attempt.reported < attempt.jobs[0].epochs
        if unfinished and attempt.trial.should_prune():
            attempt.ending = f"pruned by the search after epoch {attempt.reported}: "
            attempt.ending += f"{text(objective, value)} is behind the median"


def _end_early(attempt: Attempt, pool: Pool, project: Path) -> None:
    """Have the runs of a trial end; again at every look, for a run that is tried again does not know."""
    attempt.left -= {job.label for job in pool.waiting}
    pool.waiting = [job for job in pool.waiting if job not in attempt.jobs]
    for job in attempt.jobs:
        file = project / job.folder / STOP
        if job.label in attempt.left and not file.is_file():
            write_whole(file, attempt.ending)


def _tell(study: optuna.Study, attempt: Attempt, objective: str) -> str:
    """Tell Optuna how a trial ended; the line that says so."""
    trial, value = attempt.trial, attempt.scores[-1] if len(attempt.scores) else math.nan
    if not (attempt.error or attempt.ending or math.isfinite(value)):
        attempt.error = f"the validation part gives no {objective} after the last epoch"
    if attempt.error:
        trial.set_user_attr("error", attempt.error)
        study.tell(trial, state=TrialState.FAIL)
        said = f"failed: {attempt.error}"
    elif attempt.ending:
        study.tell(trial, state=TrialState.PRUNED)
        said = attempt.ending
    else:
        study.tell(trial, value)
        said = text(objective, value)
    return f"{name_of(trial)} ({values_text(trial.params)}): {said}"
