"""Variance pooled over solutions: exact by hand, and intervals made of it cover the truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gradlib.evidence.pooling import combined_df, odd_ones, spread

DIFFERENCE, LEVEL = {"b": 1, "a": -1}, {"a": 1}


def test_a_layout_of_two_repetitions_by_hand():
    # Means a 2, b 4, c 6; centred a (-1, 1), b (-1, 1), c (-2, 2); repetitions (-4/3, 4/3); residuals +-1/3,
    # +-1/3, +-2/3: squares 2 (1/9 + 1/9 + 4/9) = 4/3 with 2 degrees of freedom; repetitions 3 x 2 x 16/9 =
    # 32/3 with 1.
    table = pd.DataFrame({"a": [1.0, 3.0], "b": [3.0, 5.0], "c": [4.0, 8.0]})
    assert spread(table, DIFFERENCE) == pytest.approx((2 * (2 / 3) / 2, 2))
    parts = (1 - 1 / 3) * 2 / 3, 1 / 3 * 32 / 3
    assert spread(table, LEVEL) == pytest.approx(
        (sum(parts) / 2, sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2))
    )
    assert spread(table, LEVEL, pooled=False) == pytest.approx((2 / 2, 1))
    assert np.isnan(spread(table[:1], LEVEL)[0])
    table["c"] = [4.0, np.nan]  # was not run: a and b alone always differ by 2
    assert spread(table, DIFFERENCE) == (0, np.inf)


def test_two_solutions_alone_have_students_paired_t():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 2)), columns=["a", "b"])
    variance, df = spread(table, DIFFERENCE)
    t = (table["b"] - table["a"]).mean() / variance**0.5
    known = stats.ttest_rel(table["b"], table["a"])
    assert (2 * stats.t.sf(abs(t), df), df) == pytest.approx((known.pvalue, known.df), abs=1e-12)


def test_a_solution_of_another_spread_is_named_and_has_its_own():
    table = pd.DataFrame(np.random.default_rng(1).normal(size=(8, 5)), columns=[*"abcde"])
    assert odd_ones(table) == []
    table["b"] *= 30
    assert odd_ones(table) == ["b"]
    own = (table["b"] - table["a"]).var() / 8
    assert spread(table, DIFFERENCE) == pytest.approx((own, 7))
    variance, df = spread(table, {"c": 1, "a": -1})
    assert variance < 1 and df == 3 * 7  # of the other four
    assert odd_ones(table[:3]) == []  # too few to tell


def test_degrees_of_freedom_are_those_of_the_larger_variance():
    # (3 + 1)^2 / (3^2 / 3 + 1^2 / 30) = 16 / 3.0333; one variance alone: its own.
    assert combined_df((1.0, 3.0), (30, 3)) == pytest.approx(16 / (3 + 1 / 30))
    assert combined_df((1.0, 0.0), (30, 3)) == pytest.approx(30)
    assert combined_df((0.0, 0.0), (30, 3)) == np.inf


@pytest.mark.parametrize(
    ("repetitions", "common", "sizes"),
    [
        (2, 0.0, 1),
        (2, 1.0, 1),
        (4, 1.0, 1),
        (8, 0.0, 1),
        (3, 2.0, 1),
        (5, 2.0, 1),
        (5, 1.0, (5, 1.3, 3, 5, 4)),
    ],
)
def test_intervals_cover_the_truth(repetitions, common, sizes):
    """Repetitions have `common` effects (of a fold, a seed, a specialist), and variances 1 / `sizes`."""
    generator, inside, n = np.random.default_rng([repetitions, int(common)]), np.zeros(2), 400
    scale = 1 / np.sqrt(np.broadcast_to(sizes, repetitions))[:, None]
    for _ in range(n):
        values = generator.normal(0, 1, (repetitions, 6)) + generator.normal(0, common**0.5, (repetitions, 1))
        table = pd.DataFrame(values * scale, columns=[*"abcdef"])
        for i, contrast in enumerate((DIFFERENCE, LEVEL)):
            variance, df = spread(table, contrast)
            value = sum(weight * table[name].mean() for name, weight in contrast.items())
            inside[i] += abs(value) <= stats.t.ppf(0.975, df) * variance**0.5
    # Of 400 intervals that hold in 95 %, 366 to 392 do in all but 1 of 500 such tests; of levels from two
    # repetitions that have common effects a little fewer hold (0.94).
    low, high = stats.binom.ppf([0.001, 0.999], n, 0.95)
    assert low <= inside[0] <= high and low - 8 <= inside[1] <= high


def test_one_solutions_own_two_repetitions_tell_far_less():
    generator = np.random.default_rng(0)
    tables = [pd.DataFrame(generator.normal(size=(2, 7)), columns=[*"abcdefg"]) for _ in range(100)]
    pooled, own = (
        np.median(
            [
                stats.t.ppf(0.975, df) * variance**0.5
                for variance, df in (spread(t, DIFFERENCE, kind) for t in tables)
            ]
        )
        for kind in (True, False)
    )
    assert own > 2.5 * pooled
