"""How much a contrast of solutions varies from repetition to repetition, pooled over a study's solutions.

Two trainings of one solution say next to nothing of how much trainings vary (t = 12.7). The other solutions'
trainings say as much, so the variance is that of the whole layout, repetition x solution.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

# Brown and Forsythe's test of a solution's spread against the others'; of fewer repetitions it says nothing.
ODD, MIN_REPETITIONS = 0.05, 4


def spread(table: pd.DataFrame, contrast: Mapping[str, float], pooled: bool = True) -> tuple[float, float]:
    """The variance of a contrast's mean over repetitions, and its degrees of freedom.

    table: values [N, S], one row a repetition (a seed, or a fold), one column a solution; NaN where it was
    not run. contrast: the weight of each solution, {"b": 1, "a": -1} for b minus a; none of them is NaN.

    Of a two-way layout y = solution + repetition + residual a contrast c varies by sum(c^2) of the residual's
    variance and sum(c)^2 of the repetitions', whose mean squares have (S - 1)(N - 1) and N - 1 degrees of
    freedom (Satterthwaite 1946 for their sum). With solutions of another spread (`odd_ones`) in it, alone, or
    not `pooled`: from its own values. (nan, 0) of one repetition.
    """
    own = sum(weight * table[name] for name, weight in contrast.items())
    pool = table.dropna(axis=1)
    pool = pool.drop(columns=odd_ones(pool))
    n, count = pool.shape
    if n < 2:
        return np.nan, 0
    if not pooled or count < 2 or not {*contrast} <= {*pool}:
        return float(own.var()) / n, n - 1
    centred = pool - pool.mean()
    repetition = centred.mean(axis=1)
    df = (count - 1) * (n - 1), n - 1
    squares = np.square(centred.sub(repetition, axis=0)).to_numpy().sum(), count * np.square(repetition).sum()
    weights = np.array([*contrast.values()])
    of_repetition = weights.sum() ** 2 / count
    parts = [
        factor * square / own_df
        for factor, square, own_df in zip(
            (np.square(weights).sum() - of_repetition, of_repetition), squares, df, strict=True
        )
    ]
    return float(sum(parts)) / n, combined_df(parts, df)


def combined_df(variances, df) -> float:
    """The degrees of freedom of a sum of variances with `df` each (Satterthwaite 1946); infinite where it is
    0."""
    uncertain = sum(variance**2 / own for variance, own in zip(variances, df, strict=True) if variance > 0)
    return float(sum(variances) ** 2 / uncertain) if uncertain else np.inf


def odd_ones(table: pd.DataFrame) -> list[str]:
    """The columns whose values spread clearly otherwise than all the others' (Brown and Forsythe 1974)."""
    if len(table) < MIN_REPETITIONS or table.shape[1] < 3:
        return []
    residual = table - table.mean()
    residual = residual.sub(residual.mean(axis=1), axis=0)
    spreads = (residual - residual.median()).abs()
    p = {name: stats.ttest_ind(spreads[name], spreads.drop(columns=name), axis=None).pvalue for name in table}
    return [name for name, value in p.items() if value * len(p) < ODD]  # Bonferroni
