"""Intervals and verdicts: cover the truth when studies are simulated, and by hand where that can be."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gradlib.config import SOLUTIONS
from gradlib.evidence import tables
from gradlib.evidence.intervals import Estimate, Evidence, across_runs, holm, proportion_interval, with_p
from gradlib.evidence.tables import SCORES
from gradlib.train import metrics

BOX = [0, 0.5, 0.5, 0.4, 0.4]
NO_BOXES = {"boxes": [], "detections": []}
FAR = [0, 0.9, 0.1, 0.1, 0.1, 0.1]


def entry(patient: str, found: bool, right: bool) -> dict:
    """An image with one box and one view; the box is found or not, the view is right or not."""
    return {
        "patient": patient,
        "boxes": [BOX],
        "detections": [[0, 0.9, *BOX[1:]] if found else FAR],
        "view": 0,
        "view_scores": [1.0, 0.0] if right else [0.0, 1.0],
    }


def study(kept: dict, both=("detection", "classification")) -> SimpleNamespace:
    """What `runs.load` returns, from predictions by (solution, fold, seed); all but specialists do `both`."""
    rows = []
    for (name, fold, seed), entries in kept.items():
        tasks = SOLUTIONS[name].tasks if name in SOLUTIONS else both
        row = {"solution": name, "fold": fold, "seed": seed, "confidence": 0.5} | dict.fromkeys(
            SCORES, np.nan
        )
        if "detection" in tasks:
            row |= {k: v for k, v in metrics.detection_metrics(entries, "a", 0.5).items() if k != "ap50"}
        if "classification" in tasks:
            row |= metrics.classification_metrics(entries)
        rows.append(row)
    config = {"classes": ["a"], "views": ["x", "y"]}
    return SimpleNamespace(
        runs=pd.DataFrame(rows), config=lambda *run: config, predictions=lambda *run: kept[run]
    )


def simulate(
    number: int, effect: float, image_level=False, boxes=False, folds=1, seeds=2, patients=24
) -> SimpleNamespace:
    """A study in which solution b knows more views (or finds more `boxes`) than a, by `effect` on the mean.

    Patients differ in how hard they are, in how much b helps them, and in their number of frames; frames in
    how hard they are; trainings by chance. With `image_level` every frame is called a patient of its own:
    what resampling images does.
    """
    generator, kept = np.random.default_rng([7, number]), {}
    for fold in range(folds):
        frames = generator.lognormal(2.3, 0.6, patients).astype(int) + 1
        owner = np.repeat(np.arange(patients), frames)
        names = [f"{fold}-{who}" + f"-{frame}" * image_level for frame, who in enumerate(owner)]
        base, helped = generator.normal(0.5, 0.08, patients), generator.normal(effect, 0.25, patients)
        hard = generator.uniform(size=len(owner))
        for seed in range(seeds):
            for name, sign in (("a", -0.5), ("b", 0.5)):
                chance = base + sign * helped + generator.normal(0, 0.01)
                entries = [entry(*one) for one in zip(names, *[hard < chance[owner]] * 2, strict=True)]
                kept[name, fold, seed] = entries if boxes else [one | NO_BOXES for one in entries]
    return study(kept, ("detection" if boxes else "classification",))


def coverage(metric: str, studies: int, effect: float = 0.1, **options) -> float:
    """The share of simulated studies whose 95 % interval of the difference holds the true one."""
    inside = 0
    for number in range(studies):
        found = Evidence(simulate(number, effect, **options), 200).difference("a", "b", metric)
        inside += found.low <= effect <= found.high
    return inside / studies


def test_intervals_cover_the_truth_where_patients_are_resampled_and_not_where_images_are():
    # Of 150 intervals that hold in 95 %, between 132 and 149 do in all but 1 of 500 such tests.
    low, high = stats.binom.ppf([0.001, 0.999], 150, 0.95) / 150
    assert low <= coverage("accuracy", 150) <= high
    assert coverage("accuracy", 60, image_level=True) < 0.8


def test_intervals_of_map_cover_the_truth():
    # Every detection has the same confidence and images are ordered at random, so that AP at IoU 0.5 of
    # many images is the square of the share that is found (precision is that share at every recall).
    # Solution b against a: 0.55^2 - 0.45^2 = 0.1; what patients' spread adds to squares is the same for both.
    effect, studies = 0.55**2 - 0.45**2, 50
    simulated = (simulate(n, 0.1, boxes=True, folds=1, seeds=1, patients=24) for n in range(studies))
    found = [Evidence(one, 100).difference("a", "b", "map50") for one in simulated]
    inside = np.mean([one.low <= effect <= one.high for one in found])
    assert inside >= stats.binom.ppf(0.001, studies, 0.95) / studies
    assert np.mean([one.value for one in found]) == pytest.approx(effect, abs=0.02)


def test_an_effect_is_found_and_none_is_not_invented():
    strong = [Evidence(simulate(n, 0.4), 200).difference("a", "b", "accuracy").verdict() for n in range(20)]
    none = [Evidence(simulate(n, 0.0), 200).difference("a", "b", "accuracy").verdict() for n in range(40)]
    assert strong == ["better"] * 20
    # More than 6 of 40 false alarms at 5 % each have a chance of one in a hundred.
    assert len(none) - none.count("better") - none.count("worse") >= 34
    turned = Evidence(simulate(0, 0.4), 200).difference("b", "a", "accuracy")
    assert turned.verdict() == "worse" and turned.verdict(higher=False) == "better"


def test_a_difference_is_the_mean_of_the_paired_runs():
    # Fold 0: a finds 1 of 2 views, b 2 of 2; fold 1: both 1 of 2; a's third run has no partner.
    def run(*right):
        return [entry(str(i), True, r) for i, r in enumerate(right)]

    kept = {("a", 0, 0): run(0, 1), ("b", 0, 0): run(1, 1), ("a", 1, 0): run(1, 0), ("b", 1, 0): run(0, 1)}
    kept["a", 2, 0] = run(1, 1)
    found = Evidence(study(kept)).difference("a", "b", "accuracy")
    assert (found.value, found.runs, found.patients) == (0.25, 2, 4)
    assert found.verdict() == found.insufficient_reason == "patients"
    assert Evidence(study(kept)).difference("a", "nobody", "accuracy").insufficient_reason == "values"


def test_one_training_has_no_verdict_however_sure_its_patients_are():
    kept = {(name, 0, 0): [entry(str(i), True, name == "b") for i in range(30)] for name in ("a", "b")}
    found = Evidence(study(kept)).difference("a", "b", "accuracy")
    assert (found.value, found.insufficient_reason, found.verdict()) == (1.0, "runs", "runs")


def test_the_chance_of_training_widens_the_interval():
    # The same patients; with seeds that disagree (b ahead in one, behind in the other) nothing is shown.
    def run(share):
        return [entry(str(i), True, i < share) for i in range(40)]

    same = {("a", 0, s): run(10) for s in (0, 1)} | {("b", 0, s): run(30) for s in (0, 1)}
    other = same | {("b", 0, 0): run(39), ("b", 0, 1): run(21)}
    sure, unsure = (Evidence(study(kept)).difference("a", "b", "accuracy") for kept in (same, other))
    assert sure.value == unsure.value == 0.5
    assert sure.of_runs == 0 and sure.verdict() == "better"
    # b minus a is 29/40 and 11/40: variance of the mean ((18/40)^2 / 2) / 2.
    assert unsure.of_runs == pytest.approx((18 / 40) ** 2 / 4)
    assert unsure.margin_of_error > 3 * sure.margin_of_error and unsure.verdict() == "undecided"


def test_delta_m_by_hand():
    # Specialists: finds 5 of 10 boxes, names 8 of 10 views. The joint solution finds 6 and names 6. AP at one
    # confidence, hits and misses in turn, is not the share of hits; it is taken from the plain metric.
    def run(found, right):
        return [entry(str(i), i < found, i < right) for i in range(10)]

    kept = {
        ("detection-only", 0, 0): run(5, 0),
        ("classification-only", 0, 0): run(0, 8),
        ("baseline", 0, 0): run(6, 6),
        ("dual", 0, 0): run(5, 8),
    }
    evidence = Evidence(study(kept))
    ap = {n: metrics.average_precision(kept[n, 0, 0], "a")["map50"] for n in ("detection-only", "baseline")}
    detection = 100 * (ap["baseline"] - ap["detection-only"]) / ap["detection-only"]
    classification = 100 * (0.6 - 0.8) / 0.8  # -25 %
    assert evidence.level("baseline", "delta_detection").value == pytest.approx(detection)
    assert evidence.level("baseline", "delta_classification").value == pytest.approx(classification)
    both = evidence.level("baseline", "delta_m").value
    assert both == pytest.approx((detection + classification) / 2)
    assert evidence.level("dual", "delta_m").value == 0
    assert evidence.difference("dual", "baseline", "delta_m").value == pytest.approx(both)
    del kept["detection-only", 0, 0]
    assert Evidence(study(kept)).level("baseline", "delta_m").insufficient_reason == "values"


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.4 of four: 4 x 0.01 = 0.04, 3 x 0.02 = 0.06, 2 x 0.03 = 0.06 and 0.4; what
    # has no p is not counted. 0.8 twice: never above 1.
    given = {"c": 0.03, "a": 0.01, "d": 0.4, "b": 0.02, "none": np.nan}
    found = holm({key: Estimate(1.0, p=p) for key, p in given.items()})
    assert {key: round(one.p, 9) for key, one in found.items() if key != "none"} == {
        "a": 0.04,
        "b": 0.06,
        "c": 0.06,
        "d": 0.4,
    }
    assert np.isnan(found["none"].p)
    assert [one.p for one in holm({i: Estimate(1.0, p=0.8) for i in (0, 1)}).values()] == [1, 1]


def test_without_patients_runs_are_what_is_repeated():
    # 1, 2, 3: mean 2, variance of the mean 1 / 3, t(2) = 4.3027.
    found = across_runs([1.0, 2.0, 3.0])
    assert (found.value, found.runs) == (2, 3)
    assert found.margin_of_error == pytest.approx(4.3027 * np.sqrt(1 / 3), rel=1e-4)
    assert found.p == pytest.approx(stats.ttest_1samp([1, 2, 3], 0).pvalue)
    assert (
        across_runs([1.0]).insufficient_reason == "runs" and across_runs([]).insufficient_reason == "values"
    )
    assert across_runs([2.0, 2.0]).verdict() == "better"


def test_an_exact_proportion():
    # All of n: the lower end is 0.025^(1/n).
    assert proportion_interval(3, 3) == pytest.approx((0.025 ** (1 / 3), 1))
    assert proportion_interval(6, 6)[0] > 0.5 > proportion_interval(5, 5)[0]


def test_corrections_and_proportions_are_those_of_statsmodels():
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.proportion import proportion_confint

    p = np.random.default_rng(0).uniform(0, 0.2, 20)
    found = holm({i: Estimate(1.0, p=one) for i, one in enumerate(p)})
    assert [found[i].p for i in range(20)] == pytest.approx(multipletests(p, method="holm")[1])
    for count, of in ((0, 5), (1, 7), (6, 6), (13, 40)):
        assert proportion_interval(count, of) == pytest.approx(
            proportion_confint(count, of, 0.05, method="beta"), abs=1e-12
        )


def test_what_it_would_take():
    # A margin of 0.1 with a variance of 0.0016 between 20 patients, known as if exactly: shown four times in
    # five with a standard error of 0.1 / (1.96 + 0.8416) = 0.0357, a variance of 0.001274: 20 x 0.0016 /
    # 0.001274 = 25.1. The difference that was found has no say.
    one = Estimate(0.01, 0.0016, 1e9, 0.0, patients=20, runs=3, margin=0.1)
    assert one.detectable_difference() == pytest.approx(0.04 * 2.8016, rel=1e-3)
    assert (one.required_n("patients"), one.required_n("runs")) == (26, np.inf)  # more runs add no patient
    # Known from few, it takes more. With 27 degrees of freedom from 27 patients, 2.0518 + 0.8551 standard
    # errors of 0.04 sqrt(20 / 27) are 0.1001, and with 28, 2.0484 + 0.8546 of 0.04 sqrt(20 / 28), 0.0981.
    assert replace(one, df=20).required_n("patients") == 28
    # At the level of one of ten: (2.8070 + 0.8416) / 0.1, 20 x 0.0016 x 36.486^2 = 42.6.
    assert replace(one, alpha=0.005).required_n("patients") == 43
    # Runs that alone vary more than that cannot be made up for by patients: 3 x 0.0016 / (0.001274 - 0.001).
    both = replace(one, variance=0.0026, of_runs=0.0016)
    assert (both.required_n("patients"), both.required_n("runs")) == (np.inf, 18)
    enough = replace(one, margin=0.2)
    assert (enough.required_n("patients"), enough.required_n("runs")) == (20, 3)
    assert np.isnan(replace(one, of_runs=np.nan).required_n("runs"))  # one seed a fold
    # Two runs that always say the same leave no spread to tell from.
    assert np.isnan(Estimate(0.0, 0.0, 1e9, 0.0, patients=20, runs=3).detectable_difference())


def test_two_one_sided_tests_are_those_of_statsmodels():
    from statsmodels.stats.weightstats import DescrStatsW

    values = np.random.default_rng(3).normal(0.2, 1, 12)
    found = with_p(across_runs(values), margin=1.0)
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=1e-9)
    lower, upper = (
        DescrStatsW(values).ttest_mean(at, side)[1] for at, side in ((-1, "larger"), (1, "smaller"))
    )
    assert found.p_equivalent == pytest.approx(max(lower, upper), abs=1e-9)
    # The 90 % interval lies within the margin where the larger of the two is below 0.05.
    low, high = stats.t.interval(0.9, 11, values.mean(), stats.sem(values))
    assert (found.p_equivalent < 0.05) == (low > -1 and high < 1)


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        (0.1, 0.1, "equivalent"),
        (0.1, 0.01, "equivalent"),
        (2, 0.1, "better"),
        (-2, 0.1, "worse"),
        (-0.5, 0.4, "no gain that matters"),
        (0.5, 0.4, "no loss that matters"),
        (1, 1, "undecided"),
    ],
)
def test_verdicts(value, error, verdict):
    one = with_p(Estimate(value, error**2, 30), margin=0.5)
    assert one.verdict() == verdict
    assert one.decided == (verdict != "undecided")
    mirrored = {
        "better": "worse",
        "worse": "better",
        "no gain that matters": "no loss that matters",
        "no loss that matters": "no gain that matters",
    }
    assert one.verdict(higher=False) == (-one).verdict() == mirrored.get(verdict, verdict)
    assert one.high < 0.5 or verdict not in ("no gain that matters", "worse")
    assert one.low > -0.5 or verdict not in ("no loss that matters", "better")
    assert with_p(one, np.nan).verdict() != "equivalent"  # without a margin nothing is
    assert with_p(replace(one, insufficient_reason="patients"), 0.5).verdict() == "patients"


@pytest.mark.parametrize("gain", [0.0, 0.5, 0.8, 1.0])
def test_a_family_excludes_or_finds_wrongly_in_a_twentieth(gain):
    # Ten differences of the same truth, margin 1: which verdicts are wrong depends on it.
    wrong = {0.0: {"better", "worse"}, 1.0: {"equivalent", "no gain that matters", "worse"}}.get(
        gain, {"worse"}
    )
    generator, families = np.random.default_rng(5), 400
    erred = 0
    for values in generator.normal(gain, 1, (families, 10, 12)):
        family = holm({i: with_p(across_runs(own), margin=1.0) for i, own in enumerate(values)})
        erred += not wrong.isdisjoint(one.verdict() for one in family.values())
    assert stats.binomtest(erred, families, 0.05, "greater").pvalue > 0.01


def test_folds_are_what_is_repeated():
    # Three folds of two seeds: fold means of b - a are 0.1, 0.2 and 0.3, whatever the seeds are.
    def run(right):
        return [entry(str(i), True, i < right) | NO_BOXES for i in range(20)]

    right = {"a": [(8, 12), (10, 10), (4, 8)], "b": [(10, 14), (14, 14), (10, 14)]}
    kept = {
        (n, f, s): run(one)
        for n, of in right.items()
        for f, pair in enumerate(of)
        for s, one in enumerate(pair)
    }
    found = Evidence(study(kept, ("classification",))).difference("a", "b", "accuracy")
    assert (found.value, found.df, found.runs) == (pytest.approx(0.2), 2, 6)
    assert found.variance == pytest.approx(np.var([0.1, 0.2, 0.3], ddof=1) / 3)
    # Of seeds b - a differs by 0 in every fold: more of them would change nothing.
    assert found.of_runs == pytest.approx(0)


def test_what_a_network_costs_has_no_interval_and_needs_no_second_run():
    kept = {(name, 0, 0): [entry(str(i), True, True) for i in range(8)] for name in ("a", "b")}
    made = study(kept)
    made.runs["parameters"], made.runs["seconds"] = [100, 200], [1.0, 2.0]
    evidence = Evidence(made)
    assert evidence.difference("a", "b", "parameters").verdict(higher=False) == "worse"
    assert evidence.difference("a", "b", "parameters").margin_of_error == 0
    assert evidence.difference("a", "b", "seconds").verdict(higher=False) == "runs"


def test_the_pareto_front_holds_what_nothing_beats_in_both():
    def run(found, right):
        return [entry(str(i), i < found, i < right) for i in range(10)]

    points = {"a": (9, 3), "b": (3, 9), "c": (8, 2), "baseline": (5, 5), "detection-only": (10, 0)}
    table = tables.trade_off(Evidence(study({(n, 0, 0): run(*p) for n, p in points.items()})))
    assert set(table.index[table["front"]]) == {"a", "b", "baseline"}
    assert np.isnan(table.loc["detection-only", "balanced_accuracy"])
