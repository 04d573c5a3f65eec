import json
from dataclasses import asdict

import pandas as pd
import pytest

from gradlib.config import BRANCHES, SOLUTIONS, find_solution
from gradlib.evidence.controls import VIRTUAL, with_controls
from gradlib.runs.read import load_study
from gradlib.runs.write import write_whole

STAGES = BRANCHES[1:]


def test_a_solution_says_what_it_waits_for():
    assert SOLUTIONS["gradnorm-static"].depends_on == ("gradnorm",)
    mine = find_solution({"name": "mine", "weights_from": "a", "branch_from": "b"})
    assert mine.depends_on == ("a", "b") and mine.unresolved_fields == ("weights", "branch")


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
        ("predictions", list(entries) or [ENTRY | {"view": -1}]),
        ("metrics", metrics),
    ):
        write_whole(folder / f"{name}.json", json.dumps(content))
    epochs = pd.DataFrame([(0.9, 0.9), valid], columns=names).assign(epoch=range(2))
    epochs.to_csv(folder / "epochs.csv", index=False)
    (folder / "steps.csv").write_text("step\n0\n")


def test_static_weights_are_tuned_on_the_validation_part_for_each_fold(tmp_path):
    # Means of the candidates 0.4 and 0.6. By them baseline has 0.5 and 1.17, mean 0.83; static-3-1 has 1.5
    # and 0.83, mean 1.17. The test part says the opposite, and the first epoch that all are alike.
    judged(tmp_path, "baseline", (0.2, 0.7), (0.9, 0.9))
    judged(tmp_path, "static-3-1", (0.6, 0.5), (0.3, 0.4))
    judged(tmp_path, "baseline", (0.5, 0.5), (0.7, 0.7), fold=1)
    judged(tmp_path, {"name": "static-weights=1_0.1", "from": "baseline", "weights": [1, 0.1]},
           (0.4, 0.4), (0.8, 0.8), fold=1)  # fmt: skip
    judged(tmp_path, "baseline", (0.5, 0.5), (0.7, 0.7), fold=2)  # alone: nothing to choose from
    study = load_study(tmp_path)
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
    assert with_controls(load_study(tmp_path)).runs["path"].tolist()[-1] == "baseline/fold=0/seed=0"


def test_only_what_differs_in_fixed_weights_alone_is_a_candidate(tmp_path):
    judged(tmp_path, "baseline", (0.1, 0.1), (0.1, 0.1))
    for name in ("dual", "gradnorm", "gradnorm-static", "detection-only"):
        judged(tmp_path, name, (0.9, 0.9), (0.9, 0.9))
    heavy = {"name": "heavy", "from": "baseline", "weights": [3, 1]}
    judged(tmp_path, heavy, (0.9, 0.9), (0.9, 0.9), epochs=9)  # trained otherwise
    judged(tmp_path, heavy, (0.9, 0.9), (0.9, 0.9), seed=1)  # of another seed
    study = load_study(tmp_path)
    assert with_controls(study) is study
    judged(tmp_path, heavy, (0.05, 0.05), (0.9, 0.9), device="cuda")  # on another machine, but alike
    assert with_controls(load_study(tmp_path)).runs["solution"].tolist()[-1] == "static-tuned"


def test_a_score_that_nobody_has_leaves_the_choice_to_the_other(tmp_path):
    judged(tmp_path, "baseline", (0.1, None), (0.1, None))
    judged(tmp_path, "static-10-1", (0.2, None), (0.1, None))
    assert "static-10-1" in with_controls(load_study(tmp_path)).runs["path"].tolist()[-1]


def test_of_equals_the_baseline_is_taken(tmp_path):
    judged(tmp_path, {"name": "a", "from": "baseline", "weights": [3, 1]}, (0, 0), (0.1, 0.1))
    judged(tmp_path, "baseline", (0, 0), (0.1, 0.1))
    assert with_controls(load_study(tmp_path)).runs["path"].tolist()[-1] == "baseline/fold=0/seed=0"


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
    study = with_controls(load_study(tmp_path))
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
