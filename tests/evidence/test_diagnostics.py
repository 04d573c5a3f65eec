"""What the gradients did, on steps and probes small enough to work out by hand."""

import numpy as np
import pandas as pd
import pytest

from gradlib.evidence import diagnostics

from .studies import runs, steps, study

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


def test_norms_by_stage_are_means_over_probes_and_then_over_runs():
    one, other = (probes("baseline", {"neck": [0.1] * n, "p1": [0.1] * n}) for n in (4, 2))
    one["magnitude_similarity"] = [0.2, 0.2, 0.4, 0.4] * 2
    one.loc[one["stage"] == "p1", "magnitude_similarity"] = 0.5
    table = pd.concat([one, other.assign(seed=1)])
    made = study(runs({"solution": "baseline"}, {"solution": "dual"}), probes=table)
    by_stage = diagnostics.norms_by_stage(made)
    assert by_stage.index.unique("solution").tolist() == ["baseline"]  # dual shares nothing
    found = by_stage.loc[("baseline", "conv"), "magnitude_similarity"]
    assert found.to_dict() == {"p1": pytest.approx(0.75), "neck": pytest.approx((0.3 + 1) / 2)}
    assert found.index.tolist() == ["p1", "neck"]


def test_solutions_are_compared_over_common_stages_only():
    table = pd.concat(
        [probes("baseline", {"p1": [0.1, 0.1], "neck": [-0.1, -0.1]}), probes("fusion", {"p1": [0.2, 0.2]})]
    )
    made = study(runs({"solution": "baseline"}, {"solution": "fusion"}), probes=table)
    assert diagnostics.common_stages(made, "baseline", "fusion") == ["p1"]
    assert diagnostics.common_stages(made, "baseline", "dual") == []


def test_imbalance_is_the_distance_of_the_last_share_from_one_half():
    # Of 20 steps the last two have shares of 0.2 and 0.3: mean 0.25, which is 0.25 from one half.
    table = pd.concat([steps("baseline", [0.5] * 18 + [0.2, 0.3]), steps("gradnorm", [0.5] * 18 + [0.6] * 2)])
    made = study(runs({"solution": "baseline"}, {"solution": "gradnorm"}), table)
    assert diagnostics.imbalance(made, "gradnorm", "baseline").to_dict() == {
        (0, 0): pytest.approx(0.1 - 0.25)
    }


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
    changes = diagnostics.loss_changes(made).groupby("seed")["largest_rise"].max()
    assert changes.tolist() == pytest.approx([20, 0])


def test_a_study_without_probes_has_no_norms_by_stage():
    assert diagnostics.norms_by_stage(study(runs({"solution": "dual"}))).empty


def test_stability_counts_rises():
    # 2.0, 1.0, 1.1, 0.9: one rise of three, by 10 %.
    losses = [2.0, 1.0, 1.1, 0.9]
    epochs = pd.DataFrame({"epoch": range(4), "train_loss_detection": losses}).assign(
        solution="dual", fold=0, seed=0
    )
    made = study(runs({"solution": "dual"}), steps("dual", loss_detection=1.0), epochs=epochs)
    row = diagnostics.stability(made).loc[("dual", "detection")]
    assert row[["rises", "epochs", "largest_rise"]].tolist() == pytest.approx([1, 3, 10])


def test_two_backbones_share_no_parameter():
    counts = {"parameters": 9, "parameters_detection": 4, "parameters_classification": 2}
    rows = [
        counts | {"solution": "baseline", "parameters_shared": 3},
        counts | {"solution": "dual", "parameters_shared": 0, "parameters_detection": 7},
        {"solution": "fusion", "parameters": 5},  # made before runs counted each part
        {"solution": "view-from-jet"},  # names views without a network
    ]
    table = diagnostics.reached(study(pd.DataFrame(rows).assign(fold=0, seed=0)))
    assert table.index.tolist() == ["baseline", "dual", "fusion"]
    assert table.loc["baseline"].tolist() == [3, 4, 2, 9] and table.loc["dual"].tolist() == [0, 7, 2, 9]
    assert table.loc["fusion"].isna().tolist() == [True, True, True, False]
    # A study of old runs alone has no such columns.
    old = diagnostics.reached(study(runs({"solution": "dual", "parameters": 5})))
    assert old["both"].isna().all() and old["total"].tolist() == [5]
