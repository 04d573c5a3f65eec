"""Tables of a study, on frames small enough to work out by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gradlib.evidence import diagnostics, predictions, tables

STEP = ["step", "epoch", "loss_detection", "loss_classification", "weight_detection", "weight_classification"]
STEP += ["norm_detection", "norm_classification", "share_detection", "lr_shared", "lr_detection"]


def runs(*rows: dict) -> pd.DataFrame:
    """Rows of `Study.runs`; what a row does not name is missing, as it is for a specialist."""
    columns = ["solution", "fold", "seed", "path", "branch", "balancer", *tables.PERFORMANCE, *tables.COST]
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


def test_several_runs_have_a_mean_and_a_standard_deviation():
    # 0.4 and 0.6: mean 0.5, standard deviation (n - 1) sqrt(0.02) = 0.1414.
    rows = [{"solution": "baseline", "seed": i, "map50": v} for i, v in enumerate((0.4, 0.6))]
    table = tables.core_metrics(study(runs(*rows)))
    assert table.loc["baseline", ["runs", "map50", "map50 sd"]].tolist() == pytest.approx(
        [2, 0.5, 0.1414], abs=1e-4
    )
    assert tables.readable(table).loc["baseline", "mAP@0.5"] == "0.500 ± 0.141"
    assert not tables.core_metrics(study(runs(rows[0]))).columns.str.endswith(" sd").any()


def test_solutions_come_in_the_order_of_the_registry_and_others_after_them():
    made = study(runs(*({"solution": name} for name in ("zeta", "dual", "alpha", "baseline"))))
    assert tables.names(made) == ["baseline", "dual", "alpha", "zeta"]


def test_efficiency_counts_scores_per_million_parameters():
    # 0.5 / 2 = 0.25.
    table = tables.efficiency(
        study(runs({"solution": "dual", "map50": 0.5, "parameters": 2e6, "macs": 1.5e8}))
    )
    assert table.loc["dual", "map50_per_million"] == 0.25
    assert tables.readable(table).loc["dual", ["Parameters", "MACs (millions)"]].tolist() == [
        "2,000,000",
        "150.0",
    ]


SPECIALISTS = (
    {"solution": "detection-only", "map50": 0.50},
    {"solution": "classification-only", "balanced_accuracy": 0.80},
)


def test_dynamics_have_start_end_and_trend():
    table = steps(
        "gradnorm", np.linspace(0, 0.95, 20), weight_detection=np.linspace(1, 0.5, 20), lr_shared=0.001
    )
    epochs = pd.DataFrame(
        {"solution": "gradnorm", "fold": 0, "seed": 0, "epoch": [0, 1], "train_loss": [2.0, 3.0]}
    )
    rows = tables.dynamics(study(runs({"solution": "gradnorm"}), table, epochs=epochs)).loc["gradnorm"]
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
    assert diagnostics.common_stages(made, "baseline", "fusion") == ["p1"]
    assert diagnostics.by_run(made, "baseline", "conflict", ["p1"]).to_dict() == {(0, 0): 0.0}
    assert diagnostics.by_run(made, "baseline", "conflict", ["p1", "neck"]).to_dict() == {(0, 0): 0.5}
    assert diagnostics.common_stages(made, "baseline", "dual") == []


def test_imbalance_is_the_distance_of_the_last_share_from_one_half():
    # Of 20 steps the last two have shares of 0.2 and 0.3: mean 0.25, which is 0.25 from one half.
    made = study(runs({"solution": "baseline"}), steps("baseline", [0.5] * 18 + [0.2, 0.3]))
    assert diagnostics.imbalance(made, "baseline").to_dict() == {(0, 0): pytest.approx(0.25)}


def test_the_largest_rise_is_that_of_the_worse_task_in_per_cent():
    # Detection 2, 1, 1.1 (+10 %), classification 1, 1.2 (+20 %), 0.6; the other run never rises.
    epochs = [
        {"epoch": 0, "train_loss_detection": 2.0, "train_loss_classification": 1.0},
        {"epoch": 1, "train_loss_detection": 1.0, "train_loss_classification": 1.2},
        {"epoch": 2, "train_loss_detection": 1.1, "train_loss_classification": 0.6},
    ]
    first = pd.DataFrame(epochs).assign(solution="dual", fold=0, seed=0)
    second = first[:2].drop(columns="train_loss_classification").assign(seed=1)
    made = study(runs({"solution": "dual"}), epochs=pd.concat([first, second]))
    assert diagnostics.largest_rises(made, "dual").tolist() == pytest.approx([20, 0])


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
    assert tables.start_to_end(made).columns.tolist() == ["dual"]


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
