"""What a search maximises or minimises: a score of the validation part, after each epoch of some runs.

The test part has no say: what is chosen on it could not be judged on it any more.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gradlib.config import TASKS
from gradlib.evidence.tables import PERFORMANCE, SCORES
from gradlib.runs.schema import read_table

DELTA_M = "delta_m"
OBJECTIVES = (DELTA_M, *PERFORMANCE)


def tasks_of(objective: str) -> tuple[str, ...]:
    """The tasks that a solution must have to be judged by this."""
    classification = objective in ("accuracy", "balanced_accuracy")
    return TASKS if objective == DELTA_M else TASKS[1:] if classification else TASKS[:1]


def maximises(objective: str) -> bool:
    """Whether more is better."""
    return objective == DELTA_M or PERFORMANCE[objective].higher


def text(objective: str, value: float) -> str:
    """The value with the objective's name and unit."""
    if objective == DELTA_M:
        return f"delta_m {value:+.1f} %"
    return f"{objective} {value:.{PERFORMANCE[objective].digits}f}"


def curve(objective: str, runs: Sequence[Path], specialists: Mapping[str, Sequence[Path]]) -> np.ndarray:
    """The objective after each epoch that all `runs` (folders) have finished, mean over them: [E].

    delta_m (Maninis et al. 2019): the change of each task's score against the specialist of the same
    fold and seed *after the same epoch*, in per cent of it; the mean of both tasks. Runs whose specialist
    has scored nothing yet are left out. NaN where nothing is left, or a run has no such metric.
    specialists: by task the specialist's folder for each run.
    """
    if objective != DELTA_M:
        return _scores(runs, [objective])[..., 0].mean(0)
    own, best = _scores(runs, SCORES), _specialist_scores(specialists)  # [R, E, 2]
    epochs = min(own.shape[1], best.shape[1])
    own, best = own[:, :epochs], best[:, :epochs]
    valid = (best > 0).all(-1)  # [R, E]
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = (100 * (own / best - 1)).mean(-1)
        return np.where(valid, gain, 0).sum(0) / valid.sum(0)


def is_defined(objective: str, specialists: Mapping[str, Sequence[Path]]) -> bool:
    """Whether there is something to compare with: for `delta_m`, specialists that end above 0."""
    return objective != DELTA_M or bool((_specialist_scores(specialists)[:, -1] > 0).all(-1).any())


def _specialist_scores(specialists: Mapping[str, Sequence[Path]]) -> np.ndarray:
    """Each task's score of its specialists: [R, E, 2]."""
    scores = [_scores(specialists[task], [score]) for task, score in zip(TASKS, SCORES, strict=True)]
    epochs = min(part.shape[1] for part in scores)
    return np.concatenate([part[:, :epochs] for part in scores], -1)


def _scores(runs: Sequence[Path], names: Sequence[str]) -> np.ndarray:
    """Scores on the validation part after each epoch that all runs have finished: [R, E, N]."""
    tables = [read_table(run, "epochs").reindex(columns=names).to_numpy(float) for run in runs]
    return np.stack([table[: min(map(len, tables))] for table in tables])
