"""How well the runs of a study determine a value: levels and differences with 95 % intervals, and verdicts.

With several folds their means are what is repeated: folds differ in test patients, in what they train on and
in chance, and an interval over folds has all three. With one fold two things make a value uncertain: other
patients, which are resampled (all solutions alike, so differences are paired), and another training, which
the seeds tell. How much repetitions vary is pooled over the solutions of a study, see `pooling`.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import pandas as pd
from scipy import special, stats

from gradlib.checks import closest
from gradlib.config import TASKS
from gradlib.evidence.bootstrap import Tally, bootstrap_weights
from gradlib.evidence.controls import VIRTUAL
from gradlib.evidence.pooling import combined_df, spread
from gradlib.evidence.tables import COST, METRICS, RUN, SCORES, numbers

LEVEL = 0.95
POWER = 0.80
# With fewer, even a difference of one sign in every patient has p > 0.05 (sign test: 2 / 2^5).
MIN_PATIENTS = 6
RESAMPLES = 1000
MAX_N = 10_000  # patients or runs that a study could have

_SCORES = dict(zip(TASKS, SCORES, strict=True))
#: The metrics against the specialists, each by its tasks and their scores.
DELTA_M = {"delta_m": _SCORES, **{f"delta_{task}": {task: score} for task, score in _SCORES.items()}}


@dataclass(frozen=True)
class Estimate:
    """A mean over repetitions, and how well it is known.

    variance, df: of `value` over other patients and other trainings, and its degrees of freedom; NaN where
    unknown. of_runs: the part of it that more trainings would bring down. insufficient_reason: why there is
    no verdict ("" where there may be one): `runs` (one training: its variance is unknown), `patients` (fewer
    than `MIN_PATIENTS`), `values` (none), `signal` (too weak to be told from noise).
    margin: a smaller difference counts as none. p: that the value is 0, two-sided; p_above, p_below: that it
    is the margin or more, minus the margin or less; p_equivalent: either; all at the level `alpha`, see
    `holm` where several are tested.
    """

    value: float
    variance: float = np.nan
    df: float = np.nan
    of_runs: float = np.nan
    patients: int = 0
    runs: int = 0
    insufficient_reason: str = ""
    margin: float = np.nan
    p: float = np.nan
    p_equivalent: float = np.nan
    p_above: float = np.nan
    p_below: float = np.nan
    alpha: float = 1 - LEVEL

    @property
    def standard_error(self) -> float:
        return float(np.sqrt(self.variance))

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

    def __neg__(self) -> "Estimate":
        """The difference the other way round."""
        return replace(self, value=-self.value, p_above=self.p_below, p_below=self.p_above)

    @property
    def decided(self) -> bool:
        """Whether there is a verdict, and it is not `undecided`."""
        return not self.insufficient_reason and self.verdict() != "undecided"

    def verdict(self, higher: bool = True) -> str:
        """`equivalent` (within the margin), `better`, `worse`, `no gain that matters` or `no loss that
        matters` (the 95 % interval ends before the margin), `undecided`, or the `insufficient_reason`."""
        if self.insufficient_reason:
            return self.insufficient_reason
        if self.p_equivalent < 1 - LEVEL:
            return "equivalent"
        if self.p < 1 - LEVEL:
            return "better" if (self.value > 0) == higher else "worse"
        if (above := self.p_above < (1 - LEVEL) / 2) or self.p_below < (1 - LEVEL) / 2:
            return f"no {'gain' if above == higher else 'loss'} that matters"
        return "undecided"

    def detectable_difference(self) -> float:
        """The smallest difference that so many patients and runs would show at the level `alpha` with a power
        of 0.8; NaN where nothing varied."""
        quantiles = special.stdtrit(self.df, 1 - self.alpha / 2) + special.stdtrit(self.df, POWER)
        return float(quantiles * self.standard_error) if self.variance else np.nan

    def required_n(self, what: str) -> float:
        """How many `patients`, or `runs` of each solution, would show a difference as large as the margin
        with a power of 0.8, the other as it is; infinite where even `MAX_N` would not, NaN where unknown."""
        had, of_runs = getattr(self, what), self.of_runs
        part = of_runs if what == "runs" else self.variance - np.nan_to_num(of_runs)

        def enough(count: int) -> bool:
            fewer = self.variance - part + part * had / count
            changed = replace(self, variance=fewer, df=self.df * count / had)
            return changed.detectable_difference() <= self.margin

        if not (had and np.isfinite(part + self.margin)):
            return np.nan
        return float(had + bisect_left(range(had, MAX_N), True, key=enough)) if enough(MAX_N) else np.inf


NO_ESTIMATE = Estimate(np.nan, insufficient_reason="values")


def across_runs(values: Sequence[float]) -> Estimate:
    """Mean of a value that has no patients (a cosine, a time), with Student's interval over the runs."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    n = len(values)
    if n < 2:
        return Estimate(float(values[0]), runs=1, insufficient_reason="runs") if n else NO_ESTIMATE
    variance = float(values.var(ddof=1) / n)
    return with_p(Estimate(float(values.mean()), variance, n - 1, of_runs=variance, runs=n))


def proportion_interval(count: int, of: int) -> tuple[float, float]:
    """The exact 95 % interval of a proportion (Clopper and Pearson 1934)."""
    low, high = stats.binomtest(count, of).proportion_ci(LEVEL)
    return float(low), float(high)


def holm(estimates: Mapping) -> dict:
    """The estimates of one family, with their p corrected for how many there are (Holm 1979): the k-th
    smallest of n counts (n - k + 1) times, and none less than the one before. Likewise the p against
    the margin; `alpha` is the level of the smallest."""
    out = dict(estimates)
    for name in ("p", "p_equivalent", "p_above", "p_below"):
        known = {key: p for key, one in estimates.items() if np.isfinite(p := getattr(one, name))}
        before = 0.0
        for k, key in enumerate(sorted(known, key=known.get)):
            before = max(before, min(1.0, (len(known) - k) * known[key]))
            out[key] = replace(out[key], **{name: before}, alpha=(1 - LEVEL) / len(known))
    return out


def with_p(estimate: Estimate, margin: float = np.nan) -> Estimate:
    """`estimate` with its p, where it may have a verdict: of Student's t, and of two one-sided tests against
    the margin (Schuirmann 1987), each and the larger."""
    if estimate.insufficient_reason:
        return estimate
    size, error, df = abs(estimate.value), estimate.standard_error, estimate.df
    if not error:  # nothing varied
        return replace(estimate, margin=margin, p=float(not size), p_equivalent=float(not size <= margin))
    p = float(2 * special.stdtr(df, -size / error))
    above, below = (float(special.stdtr(df, (v - margin) / error)) for v in (estimate.value, -estimate.value))
    sides = {"p_equivalent": max(above, below), "p_above": above, "p_below": below}
    return replace(estimate, margin=margin, p=p, **sides)


class Evidence:
    """The runs of a study with resampled patients: levels and differences of metrics as `Estimate`s.

    A metric is one of `tables.PERFORMANCE` or `tables.COST`, or `delta_m`: the multi-task gain in per cent
    (Maninis et al. 2019), the mean over tasks of the relative change against the single-task specialist of
    the same fold and seed, by mAP@0.5 and balanced accuracy; `delta_detection`, `delta_classification`: of
    one task. study: a `StudyResults`. Everything is computed once, on first use.
    """

    def __init__(
        self, study, resamples: int = RESAMPLES, seed: int = 0, margins: Mapping[str, float] | None = None
    ):
        self.study, self.resamples, self.seed = study, resamples, seed
        self.margins = {name: one.margin for name, one in METRICS.items() if one.margin > 0}
        for name, margin in (margins or {}).items():
            if name not in self.margins or not margin >= 0:
                raise ValueError(f"margin {name!r}: {margin!r}{closest(name, self.margins)}; 0 or more")
            self.margins[name] = margin
        for name in ("points", "level", "difference"):
            setattr(self, name, cache(getattr(self, name)))

    def points(self, metric: str) -> pd.DataFrame:
        """A metric of every run: one row a (fold, seed), one column a solution; NaN where it has none."""
        if metric in DELTA_M:
            changes = []
            for task, score in DELTA_M[metric].items():
                table = self.points(score)
                special = table.get(f"{task}-only", pd.Series(np.nan, table.index)).where(lambda v: v > 0)
                changes.append(100 * table.sub(special, axis=0).div(special, axis=0))
            return sum(changes) / len(changes)
        runs = pd.concat([self.study.runs[RUN], numbers(self.study.runs, [metric])], axis=1)
        return runs.set_index([*RUN[1:], RUN[0]])[metric].unstack()  # noqa: PD010

    def level(self, solution: str, metric: str) -> Estimate:
        """A metric of a solution, mean over its folds and seeds."""
        return self._estimate(metric, {solution: 1})

    def difference(self, a: str, b: str, metric: str) -> Estimate:
        """`b` minus `a`, mean over the folds and seeds that both have."""
        return self._estimate(metric, {b: 1, a: -1})

    def _estimate(self, metric: str, contrast: Mapping[str, int]) -> Estimate:
        table = self.points(metric)
        if not {*contrast} <= {*table} or (table := table.dropna(subset=[*contrast])).empty:
            return NO_ESTIMATE
        # What is tested or costed in the same repetitions is pooled, if it was trained.
        table = table.drop(columns={*VIRTUAL} - {*contrast}, errors="ignore").dropna(axis=1)
        runs, several = len(table), table.index.unique("fold").size > 1
        pooled = metric not in COST and {*VIRTUAL}.isdisjoint(contrast)
        seeds = _between_seeds(table, contrast, pooled)
        repeated = table.groupby(level="fold").mean() if several else table
        value = float(sum(weight * repeated[name].mean() for name, weight in contrast.items()))
        if metric in COST and COST[metric].analytic:  # the same in every run
            return with_p(Estimate(value, 0.0, np.inf, 0.0, runs=runs))
        # Folds differ in how hard they are; what is relative to another solution of the fold does not.
        relative = len(contrast) > 1 or metric in DELTA_M
        variance, df = spread(repeated, contrast, pooled and (relative or not several))
        estimate = Estimate(value, variance, df, np.minimum(seeds, variance), runs=runs)
        if metric in COST:
            return with_p(replace(estimate, insufficient_reason="" if variance >= 0 else "runs"))
        patients = sum(len(self.images_by_fold[fold]) for fold in table.index.unique("fold"))
        few = "patients" if patients < MIN_PATIENTS else "" if variance >= 0 else "runs"
        estimate = replace(estimate, patients=patients, insufficient_reason=few)
        if not several:
            estimate = self._with_patients(estimate, metric, contrast, table.index)
        return with_p(estimate, self.margins.get(metric, np.nan) if relative else np.nan)

    def _with_patients(self, estimate: Estimate, metric: str, contrast: Mapping, runs) -> Estimate:
        """The estimate with the variance of other patients beside that of other trainings."""
        resampled = [sum(w * self._resample(one, run, metric) for one, w in contrast.items()) for run in runs]
        by_patient = of_patients(np.mean(resampled, axis=0), self.images_by_fold[runs[0][0]])
        parts = [(v, d) for v, d in (by_patient, (estimate.variance, estimate.df)) if np.isfinite(v)]
        variances, dfs = zip(*parts, strict=True) if parts else ((np.nan,), (0,))
        return replace(estimate, variance=sum(variances), df=combined_df(variances, dfs))

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

    def _resample(self, solution: str, run: tuple[int, int], metric: str) -> np.ndarray:
        """A metric of one run in each of R resamples: [R]."""
        if metric not in DELTA_M:
            return self._resampled[solution, *run][metric]
        changes = []
        for task, score in DELTA_M[metric].items():
            special = self._resampled[f"{task}-only", *run][score]
            with np.errstate(divide="ignore", invalid="ignore"):
                changes.append(100 * (self._resampled[solution, *run][score] / special - 1))
        return np.mean(changes, axis=0)


def of_patients(resampled: np.ndarray, images: np.ndarray) -> tuple[float, float]:
    """The variance that other patients would bring, from values in resamples of them, and its degrees of
    freedom. images: how many each patient has."""
    known = resampled[np.isfinite(resampled)]
    # Few patients with most of the frames know less than as many even ones (Kish 1965).
    df = max(images.sum() ** 2 / np.square(images).sum() - 1, 1)
    return (float(known.var(ddof=1)) if len(known) > 1 else np.nan), df


def _between_seeds(table: pd.DataFrame, contrast: Mapping, pooled: bool) -> float:
    """The part of the variance of a mean over folds that other trainings would bring; NaN where no fold has
    two seeds."""
    folds = [spread(own, contrast, pooled)[0] for _, own in table.groupby(level="fold") if len(own) > 1]
    return float(np.mean(folds)) / table.index.unique("fold").size if folds else np.nan
