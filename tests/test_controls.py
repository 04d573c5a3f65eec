import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gradlib.config import BRANCHES, SOLUTIONS, find_solution
from gradlib.evidence.controls import VIRTUAL, branch_to_part, settle, views_from_jets, with_controls
from gradlib.runs import write

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
    static = settle(SOLUTIONS["gradnorm-static"], tmp_path, 1, 2)
    assert static.weights == (0.75, 1.25) and static.balancer == "fixed"
    assert settle(SOLUTIONS["conflict-branch"], tmp_path, 1, 2).branch == "p2"
    with pytest.raises(FileNotFoundError, match="run 'gradnorm' with the same fold and seed first"):
        settle(SOLUTIONS["gradnorm-static"], tmp_path, 0, 2)
    assert settle(SOLUTIONS["gradnorm"], tmp_path, 0, 0) == SOLUTIONS["gradnorm"]


def test_the_lot_is_the_same_for_a_run_and_falls_on_every_branch(tmp_path):
    lots = [
        settle(SOLUTIONS["random-branch"], tmp_path, fold, seed).branch
        for fold in range(5)
        for seed in range(20)
    ]
    again = [
        settle(SOLUTIONS["random-branch"], tmp_path, fold, seed).branch
        for fold in range(5)
        for seed in range(20)
    ]
    assert lots == again and set(lots) == set(STAGES[:-1])


def test_a_solution_says_what_it_waits_for():
    assert SOLUTIONS["gradnorm-static"].depends_on == ("gradnorm",)
    mine = find_solution({"name": "mine", "weights_from": "a", "branch_from": "b"})
    assert mine.depends_on == ("a", "b") and mine.unresolved_fields == ("weights", "branch")


def frame(view, *classes):
    return SimpleNamespace(
        view=view, boxes=np.array([[c, 0.5, 0.5, 0.1, 0.1] for c in classes]).reshape(-1, 5)
    )


def test_the_view_is_guessed_from_the_classes_of_the_jets():
    # Class 0 is seen in view 0 twice and in view 1 once; classes 0 and 1 together only in view 2, where the
    # order and the number of boxes do not count; a frame without jets in view 1; one frame has no view.
    train = [frame(0, 0), frame(0, 0, 0), frame(1, 0), frame(2, 1, 0, 1), frame(1), frame(-1, 3)]
    test = [frame(2, 0), frame(0, 0, 1), frame(1), frame(1, 3), frame(-1, 0)]
    assert views_from_jets(train, test, 3) == [
        [0.66667, 0.33333, 0],
        [0, 0, 1],
        [0, 1, 0],
        [0.4, 0.4, 0.2],  # class 3 alone is in no training frame with a view: two, two and one of five
        [0.66667, 0.33333, 0],  # the guess is told the jets, never the view
    ]
    assert views_from_jets([], test[:1], 2) == [[0, 0]]
    assert views_from_jets(train[-1:], test[:1], 0) == [[]]


ENTRY = {"image": "a.png", "patient": "p", "detections": [[0, 0.9, 0.5, 0.5, 0.1, 0.1]], "boxes": []}


def judged(folder, chosen, valid, test, fold=0, seed=0, entries=(), **parameters):
    """A run whose last epoch validated at `valid` (mAP@0.5, balanced accuracy), and tested at `test`."""
    chosen = find_solution(chosen)
    folder = folder / chosen.name / f"fold={fold}" / f"seed={seed}"
    config = {"classes": ["AR"], "views": ["A4C", "PLAX"]}
    config |= {"data": "phantom", "split": "patients", "epochs": 2, "seed": seed, **parameters}
    names = ["map50", "balanced_accuracy"]
    metrics = {
        "test": dict(zip(names, test, strict=True)) | {"accuracy": 0.1},
        "cost": {"parameters": 7, "seconds": 2.5},
    }
    for name, content in (
        ("config", config | {"solution": asdict(chosen)}),
        ("environment", {}),
        ("predictions", list(entries)),
        ("metrics", metrics),
    ):
        write.write_whole(folder / f"{name}.json", json.dumps(content))
    epochs = pd.DataFrame([(0.9, 0.9), valid], columns=names).assign(epoch=range(2))
    write.save_tables(folder, {"epochs": epochs})


def test_static_weights_are_tuned_on_the_validation_part_for_each_fold(tmp_path):
    # Means of the candidates 0.4 and 0.6. By them baseline has 0.5 and 1.17, mean 0.83; static-3-1 has 1.5
    # and 0.83, mean 1.17. The test part says the opposite, and the first epoch that all are alike.
    judged(tmp_path, "baseline", (0.2, 0.7), (0.9, 0.9))
    judged(tmp_path, "static-3-1", (0.6, 0.5), (0.3, 0.4))
    judged(tmp_path, "baseline", (0.5, 0.5), (0.7, 0.7), fold=1)
    judged(tmp_path, {"name": "static-weights=1_0.1", "from": "baseline", "weights": [1, 0.1]},
           (0.4, 0.4), (0.8, 0.8), fold=1)  # fmt: skip
    judged(tmp_path, "baseline", (0.5, 0.5), (0.7, 0.7), fold=2)  # alone: nothing to choose from
    study = write.load(tmp_path)
    rows = with_controls(study).runs.set_index(["solution", "fold"]).loc["static-tuned"]
    assert rows.index.tolist() == [0, 1]
    assert rows["path"].tolist() == ["static-3-1/fold=0/seed=0", "baseline/fold=1/seed=0"]
    assert rows["map50"].tolist() == [0.3, 0.7] and rows["balanced_accuracy"].tolist() == [0.4, 0.7]
    assert rows["seconds"].tolist() == [2.5, 2.5] and rows["branch"].tolist() == ["neck", "neck"]


def test_no_task_outvotes_the_other_in_tuning(tmp_path):
    # By the mean over candidates mAP@0.5 is 1.6 against 0.4, balanced accuracy 0.91 against 1.09. The mean
    # of the values themselves would take the second: 0.28 against 0.31.
    judged(tmp_path, "baseline", (0.04, 0.52), (0.1, 0.1))
    judged(tmp_path, "static-1-3", (0.01, 0.62), (0.2, 0.2))
    assert with_controls(write.load(tmp_path)).runs["path"].tolist()[-1] == "baseline/fold=0/seed=0"


def test_only_what_differs_in_fixed_weights_alone_is_a_candidate(tmp_path):
    judged(tmp_path, "baseline", (0.1, 0.1), (0.1, 0.1))
    for name in ("dual", "gradnorm", "gradnorm-static", "detection-only"):
        judged(tmp_path, name, (0.9, 0.9), (0.9, 0.9))
    heavy = {"name": "heavy", "from": "baseline", "weights": [3, 1]}
    judged(tmp_path, heavy, (0.9, 0.9), (0.9, 0.9), epochs=9)  # trained otherwise
    judged(tmp_path, heavy, (0.9, 0.9), (0.9, 0.9), seed=1)  # of another seed
    study = write.load(tmp_path)
    assert with_controls(study) is study
    judged(tmp_path, heavy, (0.05, 0.05), (0.9, 0.9), device="cuda")  # on another machine, but alike
    assert with_controls(write.load(tmp_path)).runs["solution"].tolist()[-1] == "static-tuned"


def test_a_score_that_nobody_has_leaves_the_choice_to_the_other(tmp_path):
    judged(tmp_path, "baseline", (0.1, None), (0.1, None))
    judged(tmp_path, "static-10-1", (0.2, None), (0.1, None))
    assert "static-10-1" in with_controls(write.load(tmp_path)).runs["path"].tolist()[-1]


def test_of_equals_the_baseline_is_taken(tmp_path):
    judged(tmp_path, {"name": "a", "from": "baseline", "weights": [3, 1]}, (0, 0), (0.1, 0.1))
    judged(tmp_path, "baseline", (0, 0), (0.1, 0.1))
    assert with_controls(write.load(tmp_path)).runs["path"].tolist()[-1] == "baseline/fold=0/seed=0"


def test_a_virtual_solution_is_looked_up_by_its_path(tmp_path):
    guesses = [[0.8, 0.2], [0.8, 0.2], [0.1, 0.9]]
    entries = [
        {**ENTRY, "image": name, "view": view, "view_scores": [0.0, 1.0], "view_from_jet": guess}
        for name, view, guess in zip("abc", (0, 1, 1), guesses, strict=True)
    ]
    judged(
        tmp_path, "baseline", (0.1, 0.1), (0.1, 0.1), entries=[{**ENTRY, "view": 0, "view_scores": [1, 0]}]
    )
    judged(tmp_path, "static-3-1", (0.2, 0.2), (0.2, 0.2), entries=entries)
    judged(tmp_path, "baseline", (0.1, 0.1), (0.1, 0.1), fold=1)  # made before the guess was kept
    study = with_controls(write.load(tmp_path))
    assert study.runs["solution"].tolist()[-2:] == ["static-tuned", "view-from-jet"] == list(VIRTUAL)
    tuned, guessed = (study.runs.iloc[i] for i in (-2, -1))
    assert study.predictions("static-tuned") == entries
    assert study.config("static-tuned")["solution"]["name"] == "static-3-1"
    assert study.metrics("static-tuned") == study.metrics("static-3-1")
    # Right are the first and the third of three; of view 0 one of one, of view 1 one of two.
    assert (guessed["fold"], guessed["path"], guessed["split"]) == (0, tuned["path"], "patients")
    assert guessed[["accuracy", "balanced_accuracy"]].tolist() == pytest.approx([2 / 3, 3 / 4])
    assert guessed[["map50", "parameters", "seconds"]].isna().all()
    assert study.metrics("view-from-jet") == {
        "test": {"accuracy": pytest.approx(2 / 3), "balanced_accuracy": 3 / 4}
    }
    found = study.predictions("view-from-jet")
    assert [entry["view_scores"] for entry in found] == guesses
    assert [entry["detections"] for entry in found] == [[], [], []]
    assert study.config("view-from-jet")["epochs"] == 2
    assert with_controls(study) is study
