import json
import os
import shutil

import pandas as pd
import pytest

from gradlib.runs.read import load_study
from gradlib.runs.write import write_whole

METRICS = {"map50": 0.5, "ap50": {"AR": 0.5}, "accuracy": None, "frames": 3}
ENTRIES = [{"image": "a", "patient": "p", "view": -1, "boxes": [], "detections": []}]
COST = {"parameters": 7, "seconds_per_epoch": 1.5}


def make_run(folder, solution="baseline", fold=0, seed=0, complete=True, split=None, **asked):
    run = folder / solution / f"fold={fold}" / f"seed={seed}"
    config = {"solution": {"name": solution, "branch": "neck", "balancer": "fixed", **asked}, "epochs": 2}
    config |= {"data": "phantom", "classes": ["AR", "MR"], "views": ["A4C", "PLAX"]}
    config |= {"split": split} if split else {}
    write_whole(run / "config.json", json.dumps(config))
    write_whole(run / "environment.json", json.dumps({"python": "3"}))
    write_whole(run / "predictions.json", json.dumps(ENTRIES))
    tables = {
        "steps": pd.DataFrame({"step": [0, 1], "loss": [2.0, 1.0]}),
        "epochs": pd.DataFrame({"epoch": [0]}),
        "probes": pd.DataFrame(),
    }
    for name, table in tables.items():
        table.to_csv(run / f"{name}.csv", index=False)
    if complete:
        write_whole(run / "metrics.json", json.dumps({"test": METRICS, "valid": METRICS, "cost": COST}))
    return run


def test_what_is_written_is_read(tmp_path):
    make_run(tmp_path, "baseline", 0, 0)
    make_run(tmp_path, "gradnorm", 1, 2)
    study = load_study(tmp_path)
    assert study.runs[["solution", "fold", "seed"]].to_numpy().tolist() == [
        ["baseline", 0, 0],
        ["gradnorm", 1, 2],
    ]
    assert study.runs["map50"].tolist() == [0.5, 0.5] and study.runs["accuracy"].isna().all()
    assert study.runs["path"].tolist()[1] == "gradnorm/fold=1/seed=2"
    assert study.steps.columns.tolist() == ["solution", "fold", "seed", "step", "loss"]
    assert len(study.steps) == 4 and study.probes.empty
    assert study.config("gradnorm", 1, 2)["environment"] == {"python": "3"}
    assert study.predictions("gradnorm", 1, 2) == ENTRIES


def test_runs_on_the_published_split_are_set_apart(tmp_path):
    make_run(tmp_path, "baseline", 0, 0, split="patients")
    make_run(tmp_path, "baseline", 1, 0, split="patients")
    make_run(tmp_path, "heavy", 0, 0, split="patients", weights=[3.0, 1.0], description="mine")
    make_run(tmp_path, "leaking", 0, 0, split="published", weights=[1.0, 1.0])  # the default, spelt out
    make_run(tmp_path, "leaking-heavy", 0, 0, split="published", weights=[3.0, 1.0])
    make_run(tmp_path, "other", 0, 0, split="published", width=0.5)
    study = load_study(tmp_path)
    assert study.runs["solution"].tolist() == ["baseline", "baseline", "heavy"]
    assert set(study.runs["split"]) == {"patients"} and study.runs.index.tolist() == [0, 1, 2]
    for table in (study.steps, study.epochs):
        assert set(table["solution"]) == {"baseline", "heavy"}
    assert len(study.steps) == 6 and study.probes.empty and study.pairs.empty
    assert study.published["solution"].tolist() == ["leaking", "leaking-heavy", "other"]
    assert study.published["of"].tolist() == ["baseline", "heavy", None]
    assert study.published.columns.tolist() == [*study.runs, "of"]
    assert study.predictions("leaking") == ENTRIES and study.config("leaking")["split"] == "published"


@pytest.mark.parametrize(
    ("given", "read"), [("published", "published"), ("patients", "patients"), (None,) * 2]
)
def test_a_study_of_one_split_keeps_its_runs(given, read, tmp_path):
    make_run(tmp_path, "baseline", split=given)
    make_run(tmp_path, "gradnorm", split=given)
    study = load_study(tmp_path)
    assert study.runs["split"].tolist() == [read or "patients"] * 2
    assert len(study.steps) == 4 and study.published.empty and "of" in study.published


def test_a_run_that_is_not_there_is_one_line(tmp_path):
    make_run(tmp_path)
    with pytest.raises(ValueError, match="no complete run of 'dual', fold 0, seed 3"):
        load_study(tmp_path).predictions("dual", 0, 3)


def test_a_run_that_has_not_ended_is_no_result(tmp_path):
    make_run(tmp_path)
    unfinished = make_run(tmp_path, seed=1, complete=False)
    study = load_study(tmp_path)
    assert len(study.runs) == 1 and study.incomplete == [unfinished]


def test_a_study_without_a_run_says_what_to_do(tmp_path):
    make_run(tmp_path, complete=False)
    with pytest.raises(FileNotFoundError, match="no complete run; run `python -m gradlib study"):
        load_study(tmp_path)


def test_files_are_read_once(tmp_path):
    run = make_run(tmp_path)
    study = load_study(tmp_path)
    shutil.rmtree(run)
    assert study.predictions("baseline") is study.predictions("baseline") == ENTRIES
    assert study.config("baseline")["epochs"] == 2 and study.metrics("baseline")["cost"] == COST


def test_runs_of_data_that_changed_are_named_and_left_out(tmp_path):
    for seed, fingerprint in enumerate(["old", "new", "new"]):
        run = make_run(tmp_path, seed=seed)
        write_whole(run / "environment.json", json.dumps({"data_fingerprint": fingerprint}))
        os.utime(run / "metrics.json", (1000 + seed, 1000 + seed))
    study = load_study(tmp_path)
    assert study.runs["seed"].tolist() == [1, 2] and study.steps["seed"].unique().tolist() == [1, 2]
    (line,) = study.unreadable
    assert line.startswith("baseline/fold=0/seed=0: was made of other data than the study's last run")


@pytest.mark.parametrize("name", ["steps", "epochs"])
@pytest.mark.parametrize("content", [None, "", "step,epoch\n"])
def test_a_run_without_steps_or_epochs_is_named_and_left_out(tmp_path, name, content):
    make_run(tmp_path, seed=0)
    file = make_run(tmp_path, seed=1) / f"{name}.csv"
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    study = load_study(tmp_path)
    assert study.runs["seed"].tolist() == [0]
    (line,) = study.unreadable
    assert line.startswith(f"baseline/fold=0/seed=1/{name}.csv: has no rows; ")
