"""How well the runs of a study determine a value: levels and differences with 95 % intervals, and verdicts.

Two things make a value uncertain: other patients, and another training. Patients are resampled (within the
test part of each fold, all solutions alike, so differences are paired); the variance of training comes from
the seeds. An estimate is its value, the two variances, and Student's t with the degrees of freedom that they
leave (Satterthwaite 1946): the variance of a few seeds is itself uncertain, and the interval includes that.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import pandas as pd
from scipy import special, stats

from gradlib.config import TASKS
from gradlib.evidence.bootstrap import Tally, bootstrap_weights
from gradlib.evidence.tables import COST, RUN, SCORES, numbers, per_cent

LEVEL = 0.95
POWER = 0.80
# With fewer, even a difference of one sign in every patient has p > 0.05 (sign test: 2 / 2^5).
MIN_PATIENTS = 6
RESAMPLES = 1000
MAX_N = 10_000  # patients or runs that a study could have

_SCORES = dict(zip(TASKS, SCORES, strict=True))
#: The metrics against the specialists, each by its tasks and their scores.
DELTA_M = {"delta_m": _SCORES, **{f"delta_{task}": {task: score} for task, score in _SCORES.items()}}

#: By (fold, seed) of a run: [1 + R], a value and, after it, its value in each of R resamples.
Values = Mapping[tuple[int, int], np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A mean over runs, and how well it is known.

    between_patients, between_runs: the variances of `value` that other patients and other trainings would
    bring; df_*: their degrees of freedom; NaN where unknown. insufficient_reason: why there is no verdict
    ("" where there may be one): `runs` (one training: its variance is unknown), `patients` (fewer than
    `MIN_PATIENTS`), `values` (none), `signal` (too weak to be told from noise).
    """

    value: float
    between_patients: float = np.nan
    between_runs: float = np.nan
    df_patients: float = np.nan
    df_runs: float = np.nan
    patients: int = 0
    runs: int = 0
    insufficient_reason: str = ""
    p: float = np.nan  # that the value is 0; two-sided, see `holm` where several are tested

    @property
    def standard_error(self) -> float:
        """The standard error from the variances that are known; NaN where none is."""
        known = [v for v in (self.between_patients, self.between_runs) if np.isfinite(v)]
        return float(np.sqrt(sum(known))) if known else np.nan

    @property
    def df(self) -> float:
        """The degrees of freedom of `standard_error` (Satterthwaite 1946); infinite where it is 0."""
        parts = ((self.between_patients, self.df_patients), (self.between_runs, self.df_runs))
        spread = sum(variance**2 / df for variance, df in parts if variance > 0)
        return self.standard_error**4 / spread if spread else np.inf

    @property
    def margin_of_error(self) -> float:
        """Half the width of the 95 % interval; NaN where there is none."""
        return float(special.stdtrit(self.df, (1 + LEVEL) / 2) * self.standard_error)

    @property
    def low(self) -> float:
        return self.value - self.margin_of_error

    @property
    def high(self) -> float:
        return self.value + self.margin_of_error

    def verdict(self, higher: bool = True) -> str:
        """`better`, `worse`, `none` (no difference shown), or the `insufficient_reason`."""
        if self.insufficient_reason or not self.p < 1 - LEVEL:
            return self.insufficient_reason or "none"
        return "better" if (self.value > 0) == higher else "worse"

    def detectable_difference(self) -> float:
        """The smallest difference that so many patients and runs would show with a power of 0.8; NaN where
        nothing varied."""
        error = self.standard_error
        return self.margin_of_error + float(special.stdtrit(self.df, POWER) * error) if error else np.nan

    def required_n(self, what: str) -> float:
        """How many `patients`, or `runs` of each solution, would show a difference of this size with a power
        of 0.8, the other as it is; infinite where even `MAX_N` would not."""
        had, variance, df = (getattr(self, f"{prefix}{what}") for prefix in ("", "between_", "df_"))

        def enough(count: int) -> bool:
            changed = {f"between_{what}": variance * had / count, f"df_{what}": df * count / had}
            return replace(self, **changed).detectable_difference() <= abs(self.value)

        return float(had + bisect_left(range(had, MAX_N), True, key=enough)) if enough(MAX_N) else np.inf


NO_ESTIMATE = Estimate(np.nan, insufficient_reason="values")


def across_runs(values: Sequence[float]) -> Estimate:
    """Mean of a value that has no patients (a cosine, a time), with Student's interval over the runs."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    n = len(values)
    if n < 2:
        return Estimate(float(values[0]), runs=1, insufficient_reason="runs") if n else NO_ESTIMATE
    between_runs = float(values.var(ddof=1) / n)
    return tested(Estimate(float(values.mean()), between_runs=between_runs, df_runs=n - 1, runs=n))


def proportion_interval(count: int, of: int) -> tuple[float, float]:
    """The exact 95 % interval of a proportion (Clopper and Pearson 1934)."""
    low, high = stats.binomtest(count, of).proportion_ci(LEVEL)
    return float(low), float(high)


def holm(estimates: Mapping) -> dict:
    """The estimates with their p corrected for how many there are (Holm 1979): the k-th smallest of n counts
    (n - k + 1) times, and none less than the one before."""
    tested = sorted((key for key in estimates if np.isfinite(estimates[key].p)), key=lambda k: estimates[k].p)
    out, before = dict(estimates), 0.0
    for k, key in enumerate(tested):
        before = max(before, min(1.0, (len(tested) - k) * estimates[key].p))
        out[key] = replace(estimates[key], p=before)
    return out


def tested(estimate: Estimate) -> Estimate:
    """`estimate` with its p, where it may have a verdict."""
    if estimate.insufficient_reason:
        return estimate
    value, error = estimate.value, estimate.standard_error
    p = 2 * special.stdtr(estimate.df, -abs(value) / error) if error else value == 0
    return replace(estimate, p=float(p))


class Evidence:
    """The runs of a study with resampled patients: levels and differences of metrics as `Estimate`s.

    A metric is one of `tables.PERFORMANCE` or `tables.COST`, or `delta_m`: the multi-task gain in per cent
    (Maninis et al. 2019), the mean over tasks of the relative change against the single-task specialist of
    the same fold and seed, by mAP@0.5 and balanced accuracy; `delta_detection`, `delta_classification`: of
    one task. study: a `StudyResults`. Everything is computed once, on first use.
    """

    def __init__(self, study, resamples: int = RESAMPLES, seed: int = 0):
        self.study, self.resamples, self.seed = study, resamples, seed
        for name in ("values", "level", "difference"):
            setattr(self, name, cache(getattr(self, name)))

    @cached_property
    def _tallies(self) -> dict[tuple[str, int, int], Tally]:
        out = {}
        for row in self.study.runs.to_dict("records"):
            run = tuple(row[key] for key in RUN)
            config = self.study.config(*run)
            tasks = [task for task, score in _SCORES.items() if np.isfinite(float(row[score]))]
            sizes = len(config["classes"]), len(config["views"])
            out[run] = Tally(self.study.predictions(*run), *sizes, row.get("confidence"), tasks)
        return out

    @cached_property
    def _resampled(self) -> dict[tuple[str, int, int], dict[str, np.ndarray]]:
        """Every metric of every run in every resample; all runs of a fold see the same patients."""
        weights = {}
        for i, part in enumerate(dict.fromkeys(tally.patients for tally in self._tallies.values())):
            generator = np.random.default_rng([self.seed, i])
            weights[part] = bootstrap_weights(len(part), self.resamples, generator)
        return {run: tally.metrics(weights[tally.patients]) for run, tally in self._tallies.items()}

    @cached_property
    def images_by_fold(self) -> dict[int, np.ndarray]:
        """How many test images each patient has, by fold."""
        return {fold: tally.n_images for (_, fold, _), tally in self._tallies.items()}

    def values(self, solution: str, metric: str) -> Values:
        """A metric of every run of a solution, and in each resample."""
        if metric in DELTA_M:
            changes = []
            for task, score in DELTA_M[metric].items():
                special = {run: v for run, v in self.values(f"{task}-only", score).items() if v[0] > 0}
                changes.append(_paired(per_cent, special, self.values(solution, score)))
            return _paired(lambda *tasks: np.mean(tasks, axis=0), *changes)
        points = self._by_run(solution, metric).dropna()
        return {
            run: np.append(point, self._resampled[solution, *run][metric]) for run, point in points.items()
        }

    def _by_run(self, solution: str, column: str) -> pd.Series:
        runs = self.study.runs[self.study.runs["solution"] == solution]
        return numbers(runs.set_index(["fold", "seed"]), [column])[column]

    def level(self, solution: str, metric: str) -> Estimate:
        """A metric of a solution, mean over its runs."""
        if metric in COST:
            return across_runs(self._by_run(solution, metric))
        return self._estimate(self.values(solution, metric))

    def difference(self, a: str, b: str, metric: str) -> Estimate:
        """`b` minus `a`, mean over the folds and seeds that both have."""
        if metric in COST:
            return across_runs((self._by_run(b, metric) - self._by_run(a, metric)).dropna())
        return self._estimate(_paired(np.subtract, self.values(b, metric), self.values(a, metric)))

    def _estimate(self, values: Values) -> Estimate:
        if not values:
            return NO_ESTIMATE
        points = pd.Series({run: one[0] for run, one in values.items()}).groupby(level=0)  # by fold
        images = [self.images_by_fold[fold] for fold in points.groups]
        resampled = np.mean([one[1:] for one in values.values()], axis=0)
        known = resampled[np.isfinite(resampled)]
        by_patient = float(known.var(ddof=1)) if len(known) > 1 else np.nan
        by_run, df_runs = _between_runs(points, by_patient)
        patients = sum(map(len, images))
        few = "patients" if patients < MIN_PATIENTS else "runs" if np.isnan(by_run) else ""
        return tested(
            Estimate(
                value=float(points.obj.mean()),
                between_patients=by_patient,
                between_runs=by_run,
                # Few patients with most of the frames know less than as many even ones (Kish 1965).
                df_patients=max(sum(n.sum() ** 2 / np.square(n).sum() - 1 for n in images), 1),
                df_runs=df_runs,
                patients=patients,
                runs=len(values),
                insufficient_reason=few,
            )
        )


def _paired(function: Callable, *values: Values) -> Values:
    """What a function makes of the values of every (fold, seed) that all have."""
    runs = sorted(set.intersection(*map(set, values)))
    return {run: function(*(each[run] for each in values)) for run in runs}


def _between_runs(folds, by_patient: float) -> tuple[float, float]:
    """The variance of the mean that other trainings would bring, and its degrees of freedom.

    folds: the values, grouped by fold. With one seed a fold, folds differ by their patients and by training:
    what their variance exceeds the patients' by is training's. With one run both are unknown.
    """
    values = folds.obj
    repeated = len(values) - folds.ngroups
    if repeated:
        return float(np.square(values - folds.transform("mean")).sum()) / repeated / len(values), repeated
    if len(values) == 1:
        return np.nan, 0
    return max(0.0, float(values.var()) / len(values) - np.nan_to_num(by_patient)), len(values) - 1
