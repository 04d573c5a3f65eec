"""The instrument reads the truth: expected gradients at a known angle, in noise of a known size."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gradlib.evidence import interference
from gradlib.evidence.intervals import across_runs

SIZE, PROBES, RUNS = 500, 40, 200
NAMES = ["signal_detection", "signal_classification", "square_detection", "square_classification"]
NAMES += ["cross_detection_classification", "same_detection_classification"]


def simulated(rho, share, generator, probes=PROBES, shared=0.0, runs=1, spread=0.0):
    """The probes of runs whose expected gradients have norm 1 and cosine `rho` (in each run by `spread`
    another), and have this `share` in the square of a half's gradient. shared: of the noise, what both tasks
    have from the same frames."""
    tables = []
    for run in range(runs):
        angle = np.clip(rho + spread * generator.normal(), -1, 1)
        means = np.zeros((2, SIZE))
        means[0, 0], means[1, :2] = 1, (angle, np.sqrt(1 - angle**2))
        own = generator.normal(size=(2, 2, probes, SIZE))  # task, half
        own[1] = shared * own[0] + np.sqrt(1 - shared**2) * own[1]
        d, c = means[:, None, None] + own * np.sqrt((1 - share) / share / SIZE)

        def dot(a, b):
            return (a * b).sum(-1)

        values = [dot(*d), dot(*c), dot(d, d).mean(0), dot(c, c).mean(0)]
        values += [(dot(d[0], c[1]) + dot(d[1], c[0])) / 2, dot(d, c).mean(0)]
        table = pd.DataFrame(dict(zip(NAMES, values, strict=True)))
        whole = d.mean(0), c.mean(0)
        table["cosine"] = dot(*whole) / np.sqrt(dot(whole[0], whole[0]) * dot(whole[1], whole[1]))
        table["conflict"] = (table["cosine"] < 0).astype(int)
        table = table.assign(solution="baseline", fold=0, seed=run, step=20 * table.index, fraction=0.0)
        tables.append(table.assign(stage="p1", kind="conv"))
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5])
def test_rho_is_the_angle_of_the_expected_gradients_and_a_plain_cosine_is_not(rho, share):
    generator, found, plain = np.random.default_rng(0), [], []
    for _ in range(RUNS):
        table = simulated(rho, share, generator)
        found.append(interference.interference(interference.products(table)))
        plain.append(across_runs(table["cosine"]))
    covered, plainly = (np.mean([one.low <= rho <= one.high for one in each]) for each in (found, plain))
    assert np.mean([one.value for one in found]) == pytest.approx(rho, abs=0.02)
    assert 0.92 <= covered <= 0.98
    assert plainly < 0.5 or rho == 0  # noise draws a plain cosine towards 0


def test_shares_coupling_and_the_rate_of_noise_alone():
    generator = np.random.default_rng(1)
    table = simulated(-0.5, 0.05, generator, probes=4000, shared=0.3)
    rows = interference.products(table)
    assert interference.signal_shares(rows) == pytest.approx([0.05, 0.05], rel=0.05)
    assert interference.coupling(rows) == pytest.approx(0.3 * 0.95, abs=0.01)
    assert interference.interference(rows).value == pytest.approx(-0.5, abs=0.05)
    for shared in (0.0, 0.02):
        rows = interference.products(simulated(-0.5, 0.02, generator, probes=4000, shared=shared))
        agreeing = simulated(1.0, 0.02, generator, probes=4000, shared=shared)
        assert interference.null_conflict_rate(rows) == pytest.approx(agreeing["conflict"].mean(), abs=0.02)
        assert 0.02 < agreeing["conflict"].mean() < 0.4  # so that the null can be wrong


def test_halves_that_cancel_have_no_cosine():
    table = simulated(0.0, 0.5, np.random.default_rng(2), probes=4)
    table.loc[0, "signal_detection"] = -table.loc[0, "square_detection"] * (1 + 1e-9)  # rounded
    rows = interference.products(table)
    assert rows["cosine"].iloc[0] == 0 and (rows["cosine"].iloc[1:] != 0).all()


def test_noise_in_the_norms_that_gradnorm_compares():
    """Ten frames a half, five a batch: halves of one share, and tasks of unlike ones, by hand."""
    generator, covered = np.random.default_rng(6), []
    config = {"frames": {"train": 10**7}, "batch_size": 5}
    one, two = 0.5 / (0.5 + 2 * 0.5), 0.2 / (0.2 + 2 * 0.8)  # of a batch, whose noise is twice a half's
    for _ in range(100):
        table, other = (simulated(0.3, share, generator).assign(fraction=1e-6) for share in (0.5, 0.2))
        for kind in ("signal", "square"):
            table[f"{kind}_classification"] = other[f"{kind}_classification"]
        study = SimpleNamespace(probes=table, config=lambda *_: config)
        shares, factor = interference.noise_in_norms(study, "baseline")
        covered.append(factor.low <= np.sqrt(two / one) <= factor.high)
    assert shares == pytest.approx([one, two], rel=0.2)
    assert 0.9 <= np.mean(covered) <= 0.99
    assert np.isnan(interference.noise_in_norms(study, "nobody")[1].value)


def test_halves_without_replacement_agree_less_than_independent_ones():
    """Of N fixed frames: corrected, the products of two disjoint halves are those of the mean gradient."""
    generator, n = np.random.default_rng(2), 40
    frames = generator.normal(size=(2, n, 30)) + generator.normal(size=(2, 1, 30)) * 0.3
    means, rows = frames.mean(1), []
    for step in range(3000):
        a, b = generator.permutation(n)[:20].reshape(2, 10)
        (d_a, c_a), (d_b, c_b) = (frames[:, half].mean(1) for half in (a, b))
        squares = [(d_a @ d_a + d_b @ d_b) / 2, (c_a @ c_a + c_b @ c_b) / 2]
        values = [d_a @ d_b, c_a @ c_b, *squares, (d_a @ c_b + d_b @ c_a) / 2, (d_a @ c_a + d_b @ c_b) / 2]
        rows.append({**dict(zip(NAMES, values, strict=True)), "step": step, "fraction": 10 / n})
    table = pd.DataFrame(rows)
    rho = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    found, uncorrected = (
        interference.interference(interference.products(one)).value
        for one in (table, table.assign(fraction=0))
    )
    assert found == pytest.approx(rho, abs=0.03) and abs(uncorrected - rho) > 0.1


def test_too_weak_a_signal_has_no_angle():
    generator = np.random.default_rng(3)
    found = interference.interference(interference.products(simulated(0.5, 1e-4, generator)))
    assert np.isnan(found.value) and found.insufficient_reason == "signal"
    assert np.isnan(interference.interference(interference.products(simulated(0.5, 0.5, generator, 3))).value)


def test_what_runs_differ_by_widens_the_interval():
    generator, covered = np.random.default_rng(4), []
    for _ in range(100):
        found = interference.interference(
            interference.products(simulated(0.3, 0.5, generator, probes=12, runs=5, spread=0.2))
        )
        covered.append(found.low <= 0.3 <= found.high)
        assert found.runs == 5 and found.of_runs >= 0 and found.patients == 60
    assert 0.9 <= np.mean(covered) <= 0.99
    alone = interference.interference(interference.products(simulated(0.3, 0.5, generator)))
    assert alone.insufficient_reason == "runs" and np.isfinite(alone.low)


def test_whether_conflict_predicts_harm_over_the_runs_that_have_both():
    probes = simulated(-0.3, 0.5, np.random.default_rng(7), runs=3)
    runs = pd.MultiIndex.from_tuples([(0, 0), (0, 1), (0, 2)], names=["fold", "seed"])
    gains = {"delta_m": pd.DataFrame({"baseline": [-2.0, np.nan, 1.0]}, runs)}
    evidence = SimpleNamespace(points=gains.get)
    study = SimpleNamespace(probes=probes, runs=pd.DataFrame({"solution": ["baseline"]}))
    table = interference.harm(study, evidence)
    assert table[["seed", "delta_m"]].to_numpy().tolist() == [[0, -2], [2, 1]]
    assert table["rho"].between(-0.6, 0).all() and table["margin"].between(0.01, 0.3).all()


def test_a_rank_correlation_covers_the_true_one():
    generator, covered = np.random.default_rng(8), []
    true = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman's, of normal values that are correlated by 0.6
    for _ in range(400):
        one, noise = generator.normal(size=(2, 15))
        r, low, high = interference.rank_correlation(pd.Series(one), pd.Series(0.6 * one + 0.8 * noise))
        assert low <= r <= high
        covered.append(low <= true <= high)
    assert 0.92 <= np.mean(covered) <= 0.98
    assert np.isnan(interference.rank_correlation(pd.Series([1.0] * 4), pd.Series([1.0] * 4))).all()
    assert np.isnan(interference.rank_correlation(pd.Series([1.0] * 6), pd.Series(range(6)))).all()


def test_windows_and_stages():
    generator = np.random.default_rng(5)
    early, late = simulated(0.8, 0.5, generator, probes=12), simulated(-0.8, 0.5, generator, probes=12)
    table = pd.concat([early, late.assign(step=late["step"] + 1000)])
    rows = interference.products(table)
    assert interference.interference(interference.window(rows, "early")).value == pytest.approx(0.8, abs=0.05)
    assert interference.interference(interference.window(rows, "late")).value == pytest.approx(-0.8, abs=0.05)
    assert [len(interference.window(rows, part)) for part in interference.WINDOWS] == [24, 8, 8]
    both = pd.concat([table, table.assign(stage="p2")])
    assert np.allclose(interference.products(both), rows)  # twice the squares, in twice the norms
