"""What a search maximises or minimises: a figure of the validation part, after each epoch of some runs.

The test part has no say: what is chosen on it could not be judged on it any more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gradlib.config import TASKS
from gradlib.evidence.tables import PERFORMANCE, SCORES
from gradlib.runs import schema

__all__ = ["DELTA_M", "OBJECTIVES", "Objective", "tasks_of", "text", "validation"]

DELTA_M = "delta_m"
OBJECTIVES = (DELTA_M, *PERFORMANCE)
OF_VIEWS = ("accuracy", "balanced_accuracy")


def tasks_of(objective: str) -> tuple[str, ...]:
    """The tasks that a solution must have to be judged by this."""
    return TASKS if objective == DELTA_M else TASKS[1:] if objective in OF_VIEWS else TASKS[:1]


def text(objective: str, value: float) -> str:
    """The value with the objective's name and unit."""
    return (
        f"delta_m {value:+.1f} %"
        if objective == DELTA_M
        else f"{objective} {value:.{PERFORMANCE[objective].digits}f}"
    )


def validation(run: Path) -> list[dict[str, float]]:
    """What the run in this folder scored on the validation part, epoch by epoch; NaN where it has none."""
    return schema.table(run, "epochs").astype(float).to_dict("records")


@dataclass(frozen=True)
class Objective:
    """One of `OBJECTIVES`. specialists: for `delta_m`, by task the specialist's run folder for each run."""

    name: str
    specialists: Mapping[str, Sequence[Path]] = field(default_factory=dict)

    @property
    def direction(self) -> str:
        """As Optuna names it."""
        higher = self.name == DELTA_M or PERFORMANCE[self.name].higher
        return "maximize" if higher else "minimize"

    @property
    def judges(self) -> bool:
        """Whether there is something to compare with: for `delta_m`, specialists that end above 0."""
        runs = zip(*(self.specialists[task] for task in self.specialists), strict=True)
        ends = [[validation(run)[-1] for run in of_run] for of_run in runs]
        return self.name != DELTA_M or any(_gain({}, *rows) is not None for rows in ends)

    def curve(self, runs: Sequence[Path]) -> list[float]:
        """The objective after each epoch that all `runs` (folders) have finished, mean over them.

        delta_m (Maninis et al. 2019): the change of each task's score against the specialist of the same
        fold and seed *after the same epoch*, in per cent of it; the mean of both tasks. Runs whose specialist
        has scored nothing yet are left out. NaN where nothing is left, or a run has no such metric.
        """
        tables = [validation(run) for run in runs]
        epochs = min(map(len, tables))
        if self.name != DELTA_M:
            values = [[row.get(self.name, math.nan) for row in table] for table in tables]
            return [_mean([of_run[epoch] for of_run in values]) for epoch in range(epochs)]
        gains = []
        for at, own in enumerate(tables):
            others = [validation(self.specialists[task][at]) for task in TASKS]
            epochs = min(epochs, *map(len, others))
            gains.append([_gain(*rows) for rows in zip(own, *others, strict=False)])
        return [_mean([g[epoch] for g in gains if g[epoch] is not None]) for epoch in range(epochs)]


def _gain(own: Mapping, *specialists: Mapping) -> float | None:
    """delta_m of one run; None where a specialist's score is not above 0."""
    parts = []
    for score, special in zip(SCORES, specialists, strict=True):
        if not special.get(score, math.nan) > 0:
            return None
        parts.append(100 * (own.get(score, math.nan) / special[score] - 1))
    return _mean(parts)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
