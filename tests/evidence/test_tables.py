"""Tables of a study, on frames small enough to work out by hand."""

import numpy as np
import pandas as pd
import pytest

from gradlib.evidence import tables

from .studies import runs, steps, study


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


def test_a_learning_rate_starts_where_its_schedule_does_after_the_warm_up():
    table = steps("dual", [0.5] * 4, lr_shared=[0.001, 0.004, 0.003, 0.002])
    rates = tables.dynamics(study(runs({"solution": "dual"}), table)).loc[("dual", "lr_shared")]
    assert rates[["start", "end", "trend"]].tolist() == [0.004, 0.002, "falls"]


def test_what_was_not_trained_has_no_dynamics():
    made = study(runs({"solution": "dual"}, {"solution": "view-from-jet"}), steps("dual", lr_shared=0.1))
    assert tables.start_to_end(made).columns.tolist() == ["dual"]
