"""Fields that a solution leaves open come from runs of the same fold and seed, read as untrusted input."""

import pandas as pd
import pytest

from gradlib.config import BRANCHES, SOLUTIONS, find_solution
from gradlib.runs.resolve import branch_to_part, resolve

STAGES = BRANCHES[1:]


def probes(rates, steps=8, later=None):
    """Probes whose conflicts follow `rates` in the first quarter of the steps, then `later`."""
    rows = []
    for step in range(steps):
        for stage, rate in zip(STAGES, rates if step < steps / 4 else later or rates, strict=True):
            for kind, conflict in (("conv", int(rate * 2 > step % 2)), ("norm", 1)):
                rows.append(
                    {
                        "step": 20 * step,
                        "stage": stage,
                        "kind": kind,
                        "cosine": 0.5 - conflict,
                        "conflict": conflict,
                    }
                )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("rates", "branch"),
    [
        ((0, 0, 0, 1, 1, 1), "p3"),
        ((0, 0, 0, 0, 0, 1), "p5"),
        ((0, 1, 1, 1, 1, 1), "p1"),
        ((1, 1, 1, 0, 0, 0), "neck"),  # the worst come first: parting behind them would part the peaceful
        ((1, 1, 1, 1, 1, 1), "neck"),
        ((0, 0, 0, 0.5, 1, 1), "p4"),
    ],
)
def test_the_branch_parts_peace_from_conflict(rates, branch):
    assert branch_to_part(probes(rates)) == branch
    # Only the first quarter counts, as in Recon.
    assert branch_to_part(probes(rates, later=(1, 0, 1, 0, 1, 0))) == branch


def test_a_run_that_shares_less_cannot_name_a_branch():
    table = probes((0, 0, 0, 1, 1, 1))
    with pytest.raises(ValueError, match="no probe of p5, neck"):
        branch_to_part(table[~table["stage"].isin(["p5", "neck"])])


def run(folder, name, fold=0, seed=0):
    folder = folder / name / f"fold={fold}" / f"seed={seed}"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    pd.DataFrame({"weight_detection": [1, 0.5], "weight_classification": [1, 1.5]}).to_csv(
        folder / "steps.csv", index=False
    )
    probes((0, 0, 1, 1, 1, 1)).to_csv(folder / "probes.csv", index=False)


def test_what_a_solution_leaves_open_comes_from_the_run_of_the_same_fold_and_seed(tmp_path):
    run(tmp_path, "gradnorm", 1, 2)
    run(tmp_path, "baseline", 1, 2)
    static = resolve(SOLUTIONS["gradnorm-static"], tmp_path, 1, 2)
    assert static.weights == (0.75, 1.25) and static.balancer == "fixed"
    assert resolve(SOLUTIONS["conflict-branch"], tmp_path, 1, 2).branch == "p2"
    with pytest.raises(FileNotFoundError, match="run 'gradnorm' with the same fold and seed first"):
        resolve(SOLUTIONS["gradnorm-static"], tmp_path, 0, 2)
    assert resolve(SOLUTIONS["gradnorm"], tmp_path, 0, 0) == SOLUTIONS["gradnorm"]


def test_the_lot_is_the_same_for_a_run_and_falls_on_every_branch(tmp_path):
    lots = [
        resolve(SOLUTIONS["random-branch"], tmp_path, fold, seed).branch
        for fold in range(5)
        for seed in range(20)
    ]
    again = [
        resolve(SOLUTIONS["random-branch"], tmp_path, fold, seed).branch
        for fold in range(5)
        for seed in range(20)
    ]
    assert lots == again and set(lots) == set(STAGES[:-1])


@pytest.mark.parametrize(
    ("spec", "table", "text", "expected"),
    [
        (
            "gradnorm-static",
            "steps",
            None,
            "steps.csv: lacks the column 'weight_detection'",
        ),
        ("gradnorm-static", "steps", "step\n0\n", "steps.csv: lacks the column 'weight_detection'"),
        (
            "gradnorm-static",
            "steps",
            "weight_detection,weight_classification\nx,1\n",
            "row 1: weight_detection: expected number, got 'x'",
        ),
        ("conflict-branch", "probes", "step,stage,kind,cosine\n0,p1,conv,0\n", "lacks the column 'conflict'"),
    ],
)
def test_what_a_solution_leaves_open_is_not_read_from_anything(spec, table, text, expected, tmp_path):
    other = {"steps": "gradnorm", "probes": "baseline"}[table]
    folder = tmp_path / other / "fold=0/seed=0"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    if text:
        (folder / f"{table}.csv").write_text(text)
    with pytest.raises(ValueError, match=expected):
        resolve(find_solution(spec), tmp_path, 0, 0)


def test_a_solution_starts_from_no_path(tmp_path):
    with pytest.raises(ValueError, match="no path"):
        resolve(find_solution({"name": "x", "weights_from": "../../x"}), tmp_path, 0, 0)
