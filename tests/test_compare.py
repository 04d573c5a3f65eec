"""Tables of a study, on frames small enough to work out by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gradlib import compare, diagnostics, predictions

STEP = ["step", "epoch", "loss_detection", "loss_classification", "weight_detection", "weight_classification"]
STEP += ["norm_detection", "norm_classification", "share_detection", "lr_shared", "lr_detection"]


def runs(*rows: dict) -> pd.DataFrame:
    """Rows of `Study.runs`; what a row does not name is missing, as it is for a specialist."""
    columns = ["solution", "fold", "seed", "path", "branch", "balancer", *compare.PERFORMANCE, *compare.COST]
    return pd.DataFrame([{"fold": 0, "seed": 0, "balancer": "fixed", **row} for row in rows], columns=columns)


def steps(solution: str, share=None, seed: int = 0, **columns) -> pd.DataFrame:
    """A table of steps; scalars hold for all of them."""
    n = max((len(v) for v in (share, *columns.values()) if np.ndim(v)), default=20)
    frame = pd.DataFrame({"step": range(n), "epoch": np.arange(n) * 5 // n}).reindex(columns=STEP)
    frame = frame.assign(share_detection=np.nan if share is None else share, **columns).astype(float)
    return frame.assign(solution=solution, fold=0, seed=seed)


def study(
    runs: pd.DataFrame, steps=None, probes=None, epochs=None, configs=None, kept=None
) -> SimpleNamespace:
    """What `runs.load` returns, without the folder."""
    key = ["solution", "fold", "seed"]
    return SimpleNamespace(
        runs=runs,
        steps=pd.DataFrame(columns=[*key, *STEP]) if steps is None else steps,
        probes=pd.DataFrame(columns=key) if probes is None else probes,
        epochs=pd.DataFrame(columns=[*key, "epoch"]) if epochs is None else epochs,
        incomplete=[],
        config=lambda solution, fold=0, seed=0: (configs or {})[solution],
        predictions=lambda solution, fold=0, seed=0: (kept or {})[solution],
    )


def test_differences_are_those_of_the_reference_report():
    # (0.0610 - 0.0666) / 0.0666 = -8.41 % of the rounded values (the report has -8.36 of its own);
    # (0.2500 - 0.2071) / 0.2071 = +20.71 %; (1.0269 - 1.0438) / 1.0438 = -1.62 %;
    # (120.5 - 45.2) / 45.2 = +166.59 %; (5400 - 1752) / 1752 = +208.22 %.
    a = {"map50": 0.0666, "recall": 0.2071, "detection_mse": 1.0438, "seconds": 45.2, "parameters": 1752}
    b = {"map50": 0.0610, "recall": 0.2500, "detection_mse": 1.0269, "seconds": 120.5, "parameters": 5400}
    table = compare.comparison(
        study(runs({"solution": "gradnorm", **a}, {"solution": "dual", **b})), "gradnorm", "dual", tuple(a)
    )
    assert table["difference"].round(2).tolist() == [-8.41, 20.71, -1.62, 166.59, 208.22]
    assert table["winner"].tolist() == ["gradnorm", "dual", "dual", "gradnorm", "gradnorm"]
    assert (table["wins"] == 1).all()


@pytest.mark.parametrize("metric", [*compare.PERFORMANCE, *compare.COST])
def test_the_direction_of_a_metric_decides_the_winner(metric):
    high, low = {"solution": "baseline", metric: 2.0}, {"solution": "dual", metric: 1.0}
    row = compare.comparison(study(runs(high, low)), "baseline", "dual", (metric,)).loc[metric]
    smaller_is_better = {
        "detection_mse",
        "parameters",
        "macs",
        "peak_memory_mb",
        "seconds",
        "seconds_per_epoch",
    }
    assert row["winner"] == ("dual" if metric in smaller_is_better else "baseline")


def test_equal_missing_and_zero_values_have_no_winner_of_their_own():
    made = study(
        runs(
            {"solution": "baseline", "map50": 0.5, "recall": 0.0},
            {"solution": "dual", "map50": 0.5, "recall": 0.1, "f1": 0.2},
        )
    )
    table = compare.comparison(made, "baseline", "dual", ("map50", "recall", "f1"))
    assert table["winner"].tolist() == ["equal", "dual", "–"]
    assert table["difference"].isna().tolist() == [False, True, True]  # nothing is a per cent of zero


def test_only_common_folds_and_seeds_are_compared():
    # Seeds 0 and 1 are common: baseline (0.4 + 0.6) / 2, dual (0.5 + 0.56) / 2; dual is ahead in one of two.
    made = study(
        runs(
            {"solution": "baseline", "seed": 0, "map50": 0.4},
            {"solution": "baseline", "seed": 1, "map50": 0.6},
            {"solution": "baseline", "seed": 2, "map50": 0.0},
            {"solution": "dual", "seed": 0, "map50": 0.5},
            {"solution": "dual", "seed": 1, "map50": 0.56},
        )
    )
    row = compare.comparison(made, "baseline", "dual", ("map50",)).loc["map50"]
    assert (row["a"], row["b"]) == pytest.approx((0.5, 0.53))
    assert (row["winner"], row["wins"], row["runs"]) == ("dual", 1, 2)
    lone = study(runs({"solution": "baseline", "seed": 0}, {"solution": "dual", "seed": 1}))
    with pytest.raises(ValueError, match="no fold and seed in common"):
        compare.comparison(lone, "baseline", "dual")
    with pytest.raises(ValueError, match="no complete run of 'gradnom'"):
        compare.comparison(lone, "baseline", "gradnom")


def test_several_runs_have_a_mean_and_a_standard_deviation():
    # 0.4 and 0.6: mean 0.5, standard deviation (n - 1) sqrt(0.02) = 0.1414.
    rows = [{"solution": "baseline", "seed": i, "map50": v} for i, v in enumerate((0.4, 0.6))]
    table = compare.core_metrics(study(runs(*rows)))
    assert table.loc["baseline", ["runs", "map50", "map50 sd"]].tolist() == pytest.approx(
        [2, 0.5, 0.1414], abs=1e-4
    )
    assert compare.readable(table).loc["baseline", "mAP@0.5"] == "0.5000 ± 0.1414"
    assert not compare.core_metrics(study(runs(rows[0]))).columns.str.endswith(" sd").any()


def test_solutions_come_in_the_order_of_the_registry_and_others_after_them():
    made = study(runs(*({"solution": name} for name in ("zeta", "dual", "alpha", "baseline"))))
    assert compare.names(made) == ["baseline", "dual", "alpha", "zeta"]


def test_efficiency_counts_scores_per_million_parameters():
    # 0.5 / 2 = 0.25.
    table = compare.efficiency(
        study(runs({"solution": "dual", "map50": 0.5, "parameters": 2e6, "macs": 1.5e8}))
    )
    assert table.loc["dual", "map50_per_million"] == 0.25
    assert compare.readable(table).loc["dual", ["Parameters", "MACs (millions)"]].tolist() == [
        "2,000,000",
        "150.0",
    ]


SPECIALISTS = (
    {"solution": "detection-only", "map50": 0.50},
    {"solution": "classification-only", "balanced_accuracy": 0.80},
)


def test_delta_m_is_positive_for_the_better():
    # Detection (0.55 - 0.50) / 0.50 = +10 %, classification (0.76 - 0.80) / 0.80 = -5 %: mean +2.5 %.
    joint = {"solution": "dual", "map50": 0.55, "balanced_accuracy": 0.76}
    row = compare.delta_m(study(runs(joint, *SPECIALISTS))).loc["dual"]
    assert row[["detection", "classification", "delta_m"]].tolist() == pytest.approx([10, -5, 2.5])
    assert row["why"] == ""


@pytest.mark.parametrize("missing", ["detection-only", "classification-only"])
def test_without_a_specialist_delta_m_says_why(missing):
    joint = {"solution": "dual", "map50": 0.55, "balanced_accuracy": 0.76}
    left = [row for row in SPECIALISTS if row["solution"] != missing]
    row = compare.delta_m(study(runs(joint, *left))).loc["dual"]
    assert np.isnan(row["delta_m"])
    assert missing in row["why"]


def test_delta_m_needs_the_same_fold_and_seed_and_a_score_above_zero():
    joint = {"solution": "dual", "map50": 0.55, "balanced_accuracy": 0.76}
    for wrong in ({"seed": 1}, {"map50": 0.0}):
        row = compare.delta_m(study(runs(joint, {**SPECIALISTS[0], **wrong}, SPECIALISTS[1]))).loc["dual"]
        assert np.isnan(row["delta_m"])
        assert "detection-only" in row["why"]


def test_dynamics_have_start_end_and_trend():
    table = steps(
        "gradnorm", np.linspace(0, 0.95, 20), weight_detection=np.linspace(1, 0.5, 20), lr_shared=0.001
    )
    epochs = pd.DataFrame(
        {"solution": "gradnorm", "fold": 0, "seed": 0, "epoch": [0, 1], "train_loss": [2.0, 3.0]}
    )
    rows = compare.dynamics(study(runs({"solution": "gradnorm"}), table, epochs=epochs)).loc["gradnorm"]
    assert rows.loc["weight_detection", ["start", "end", "change", "trend"]].tolist() == [
        1,
        0.5,
        -50,
        "falls",
    ]
    # Share: means of two of twenty steps, (0 + 0.05) / 2 and (0.90 + 0.95) / 2.
    assert rows.loc["share_detection", ["start", "end"]].tolist() == pytest.approx([0.025, 0.925])
    assert rows.loc["lr_shared", "trend"] == "unchanged"
    assert rows.loc["train_loss", ["end", "trend"]].tolist() == [3.0, "rises"]
    assert "lr_detection" not in rows.index


N = 100  # steps; a window is 10 of them
FALLS = np.r_[np.full(20, 0.5), np.full(80, 0.001)]


@pytest.mark.parametrize(
    ("share", "loss", "weight", "state"),
    [
        # The share is gone from step 20 on and the loss stays where it was: switched off.
        (FALLS, np.full(N, 1.7), 0.0, "collapse"),
        # The same with a loss that rises.
        (FALLS, np.linspace(1, 2, N), 0.0, "collapse"),
        # The loss still falls, from about 1.7 at step 25 to about 1: small share, still learning.
        (FALLS, np.linspace(2, 1, N), 0.0, "still learning"),
        # A weight near zero with a fair share is none.
        (np.full(N, 0.4), np.full(N, 1.7), 0.001, "none"),
        # The share falls at step 90: the loss has had no time to show anything.
        (np.r_[np.full(85, 0.5), np.full(15, 0.001)], np.full(N, 1.7), 0.0, "too late to tell"),
        # One stray step above the limit is not a recovery.
        (np.where(np.arange(N) == 95, 0.02, FALLS), np.full(N, 1.7), 0.0, "collapse"),
    ],
)
def test_collapse_needs_the_share_and_the_loss(share, loss, weight, state):
    table = steps("gradnorm", share, loss_detection=loss, loss_classification=1.0, weight_detection=weight)
    rows = diagnostics.collapse(study(runs({"solution": "gradnorm"}), table)).loc[("gradnorm", 0, 0)]
    assert rows.loc["detection", "state"] == state
    assert rows.loc["classification", "state"] == "none"  # has all the rest of the gradient


def test_collapse_of_classification_is_seen_from_the_other_side():
    table = steps("gradnorm", 1 - FALLS, loss_detection=1.0, loss_classification=np.full(N, 0.9))
    rows = diagnostics.collapse(study(runs({"solution": "gradnorm"}), table)).loc[("gradnorm", 0, 0)]
    assert rows["state"].to_dict() == {"detection": "none", "classification": "collapse"}
    # The running median of ten falls under when six of them are low: steps 20 to 25.
    assert rows.loc["classification", "fell_at"] == 25


def test_without_shared_layers_nothing_can_collapse():
    assert diagnostics.collapse(study(runs({"solution": "dual"}), steps("dual", loss_detection=1.0))).empty


def probes(solution: str, stages: dict, kind: str = "conv") -> pd.DataFrame:
    """Cosines by stage, one a probe step; magnitude similarity is 1."""
    rows = [
        {
            "step": i,
            "stage": stage,
            "kind": kind,
            "cosine": c,
            "conflict": int(c < 0),
            "magnitude_similarity": 1.0,
        }
        for stage, cosines in stages.items()
        for i, c in enumerate(cosines)
    ]
    return pd.DataFrame(rows).assign(solution=solution, fold=0, seed=0)


def test_conflict_rates_by_stage():
    # p1: 1 of 4 below 0, mean 0.1; neck: 3 of 4, mean -0.2. Over both stages (0.25 + 0.75) / 2.
    table = probes("baseline", {"neck": [-0.4, -0.3, -0.2, 0.1], "p1": [-0.1, 0.1, 0.2, 0.2]})
    made = study(runs({"solution": "baseline"}, {"solution": "dual"}), probes=table)
    by_stage = diagnostics.conflict_by_stage(made).loc[("baseline", "conv")]
    assert by_stage.index.tolist() == ["p1", "neck"]
    assert by_stage["conflict"].tolist() == [0.25, 0.75]
    assert by_stage["cosine"].tolist() == pytest.approx([0.1, -0.2])
    overall = diagnostics.conflicts(made)
    assert overall.index.tolist() == ["baseline"]  # dual shares nothing
    assert overall.loc["baseline", ["conflict", "worst", "worst_conflict"]].tolist() == [0.5, "neck", 0.75]


def test_rates_are_compared_over_common_stages_only():
    # Over all its stages the baseline conflicts in (0 + 1) / 2, over p1 alone in none, as fusion does.
    table = pd.concat(
        [probes("baseline", {"p1": [0.1, 0.1], "neck": [-0.1, -0.1]}), probes("fusion", {"p1": [0.2, 0.2]})]
    )
    made = study(runs({"solution": "baseline"}, {"solution": "fusion"}), probes=table)
    rates = diagnostics.conflict_against(made, "fusion", "baseline")
    assert rates.to_dict() == {"baseline": 0.0, "fusion": 0.0, "stages": "p1"}
    assert diagnostics.conflict_against(made, "dual", "baseline") is None


def test_a_study_without_probes_has_no_conflicts():
    made = study(runs({"solution": "dual"}))
    assert diagnostics.conflict_by_stage(made).empty
    assert diagnostics.conflicts(made).empty


def test_stability_counts_rises():
    # 2.0, 1.0, 1.1, 0.9: one rise of three, by 10 %.
    losses = [2.0, 1.0, 1.1, 0.9]
    epochs = pd.DataFrame({"epoch": range(4), "train_loss_detection": losses}).assign(
        solution="dual", fold=0, seed=0
    )
    made = study(runs({"solution": "dual"}), steps("dual", loss_detection=1.0), epochs=epochs)
    row = diagnostics.stability(made).loc[("dual", "detection")]
    assert row[["rises", "epochs", "largest_rise"]].tolist() == pytest.approx([1, 3, 10])


def test_what_was_not_trained_has_no_dynamics():
    made = study(runs({"solution": "dual"}, {"solution": "view-from-jet"}), steps("dual", lr_shared=0.1))
    assert compare.start_to_end(made).columns.tolist() == ["dual"]


def test_two_backbones_share_no_parameter():
    sizes = {"size": "n", "classes": ["a", "b"], "views": ["x", "y", "z"]}
    tasks = ["detection", "classification"]
    configs = {
        n: {**sizes, "solution": {"tasks": tasks, "branch": b}}
        for n, b in (("baseline", "neck"), ("dual", "input"))
    }
    rows = [{"solution": name, "parameters": 7} for name in configs]
    # What names views without a network has no parameters to reach.
    made = study(runs(*rows, {"solution": "view-from-jet", "parameters": None}), configs=configs)
    table = diagnostics.reached(made)
    assert table.index.tolist() == ["baseline", "dual"]
    assert table.loc["dual", "both"] == 0 < table.loc["baseline", "both"]
    assert (table[["both", *tasks]].sum(axis=1) == table["total"]).all()


def test_area_under_the_precision_recall_curve_is_map():
    # Two boxes of one class; the detections by confidence: right, wrong, right. Precision 1, 1/2, 2/3 at
    # recall 1/2, 1/2, 1: the best precision at recall 0 ... 0.5 (51 points) is 1, above it (50) 2/3.
    box = [0.5, 0.5, 0.2, 0.2]
    found = [[0, 0.9, *box], [0, 0.8, 0.1, 0.1, 0.05, 0.05]]
    images = [
        {"image": "a", "view": 0, "view_scores": [0.9, 0.1], "boxes": [[0, *box]], "detections": found},
        {
            "image": "b",
            "view": 0,
            "view_scores": [0.2, 0.8],
            "boxes": [[0, *box]],
            "detections": [[0, 0.7, *box]],
        },
        {"image": "c", "view": -1, "view_scores": [0.5, 0.5], "boxes": [], "detections": []},
    ]
    configs = {"dual": {"classes": ["AR", "MR"], "views": ["A4C", "PSAX"]}}
    made = study(runs({"solution": "dual", "map50": 1.0}), configs=configs, kept={"dual": images})
    curve = predictions.precision_recall(made)
    assert set(curve["class"]) == {"AR", "all"}  # MR does not occur
    overall = curve[curve["class"] == "all"]
    assert overall["precision"].mean() == pytest.approx((51 + 50 * 2 / 3) / 101)
    table = predictions.view_confusion(made, "dual")
    assert table.to_numpy().tolist() == [[1, 1], [0, 0]]  # the frame without a view is not counted
    assert predictions.commonest_confusion(table) == (
        "1 of 2 frames named right (50%); most often A4C is named PSAX (1 times)."
    )


def test_an_alarm_names_the_evidence_of_a_collapse():
    steps = pd.DataFrame({"step": range(100), "share_detection": [0.5] * 40 + [0.999] * 60})
    steps["weight_detection"], steps["loss_detection"] = 1.0, np.linspace(4, 1, 100)
    steps["weight_classification"] = np.r_[np.linspace(1, 0.01, 40), [0.01] * 60]
    steps["loss_classification"] = np.r_[np.linspace(2, 1.1, 40), [1.1] * 60]
    (line,) = diagnostics.alarms(steps)
    assert line.startswith("collapse: classification has less than 1% of the weighted gradient since step 4")
    assert "weight 1 to 0.01" in line and "1.100 to 1.100" in line
    assert diagnostics.alarms(steps.assign(share_detection=0.5)) == []
