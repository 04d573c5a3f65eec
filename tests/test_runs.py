import errno
import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from gradlib.config import find_solution
from gradlib.runs import write

METRICS = {"map50": 0.5, "ap50": {"AR": 0.5}, "accuracy": None, "frames": 3}
COST = {"parameters": 7, "seconds_per_epoch": 1.5}


def make_run(folder, solution="baseline", fold=0, seed=0, complete=True, split=None, **asked):
    run = folder / solution / f"fold={fold}" / f"seed={seed}"
    config = {"solution": {"name": solution, "branch": "neck", "balancer": "fixed", **asked}, "epochs": 2}
    config |= {"data": "phantom", "classes": ["AR", "MR"], "views": ["A4C", "PLAX"]}
    config |= {"split": split} if split else {}
    write.write_whole(run / "config.json", json.dumps(config))
    write.write_whole(run / "environment.json", json.dumps({"python": "3"}))
    write.write_whole(run / "predictions.json", "[]")
    tables = {
        "steps": pd.DataFrame({"step": [0, 1], "loss": [2.0, 1.0]}),
        "epochs": pd.DataFrame({"epoch": [0]}),
        "probes": pd.DataFrame(),
    }
    write.save_tables(run, tables)
    if complete:
        write.write_whole(run / "metrics.json", json.dumps({"test": METRICS, "valid": METRICS, "cost": COST}))
    return run


def test_what_is_written_is_read(tmp_path):
    make_run(tmp_path, "baseline", 0, 0)
    make_run(tmp_path, "gradnorm", 1, 2)
    study = write.load(tmp_path)
    assert study.runs[["solution", "fold", "seed"]].to_numpy().tolist() == [
        ["baseline", 0, 0],
        ["gradnorm", 1, 2],
    ]
    assert study.runs["map50"].tolist() == [0.5, 0.5] and study.runs["accuracy"].isna().all()
    assert study.runs["path"].tolist()[1] == "gradnorm/fold=1/seed=2"
    assert study.steps.columns.tolist() == ["solution", "fold", "seed", "step", "loss"]
    assert len(study.steps) == 4 and study.probes.empty
    assert study.config("gradnorm", 1, 2)["environment"] == {"python": "3"}
    assert study.predictions("gradnorm", 1, 2) == []


def test_runs_on_the_published_split_are_set_apart(tmp_path):
    make_run(tmp_path, "baseline", 0, 0, split="patients")
    make_run(tmp_path, "baseline", 1, 0, split="patients")
    make_run(tmp_path, "heavy", 0, 0, split="patients", weights=[3.0, 1.0], description="mine")
    make_run(tmp_path, "leaking", 0, 0, split="published", weights=[1.0, 1.0])  # the default, spelt out
    make_run(tmp_path, "leaking-heavy", 0, 0, split="published", weights=[3.0, 1.0])
    make_run(tmp_path, "other", 0, 0, split="published", width=0.5)
    study = write.load(tmp_path)
    assert study.runs["solution"].tolist() == ["baseline", "baseline", "heavy"]
    assert set(study.runs["split"]) == {"patients"} and study.runs.index.tolist() == [0, 1, 2]
    for table in (study.steps, study.epochs):
        assert set(table["solution"]) == {"baseline", "heavy"}
    assert len(study.steps) == 6 and study.probes.empty and study.pairs.empty
    assert study.published["solution"].tolist() == ["leaking", "leaking-heavy", "other"]
    assert study.published["of"].tolist() == ["baseline", "heavy", None]
    assert study.published.columns.tolist() == [*study.runs, "of"]
    assert study.predictions("leaking") == [] and study.config("leaking")["split"] == "published"


@pytest.mark.parametrize(
    ("given", "read"), [("published", "published"), ("patients", "patients"), (None,) * 2]
)
def test_a_study_of_one_split_keeps_its_runs(given, read, tmp_path):
    make_run(tmp_path, "baseline", split=given)
    make_run(tmp_path, "gradnorm", split=given)
    study = write.load(tmp_path)
    assert study.runs["split"].tolist() == [read or "patients"] * 2
    assert len(study.steps) == 4 and study.published.empty and "of" in study.published


def test_a_run_that_is_not_there_is_one_line(tmp_path):
    make_run(tmp_path)
    with pytest.raises(ValueError, match="no complete run of 'dual', fold 0, seed 3"):
        write.load(tmp_path).predictions("dual", 0, 3)


def test_the_view_guessed_is_kept_with_each_prediction(tmp_path):
    network = SimpleNamespace(state_dict=dict)
    found = [{"image": f"set/{name}.png", "view": 0} for name in "ab"]
    write.finish(tmp_path, network, found, METRICS, [[1.0, 0.0], [0.5, 0.5]])
    assert json.loads((tmp_path / "predictions.json").read_text()) == [
        {"image": "set/a.png", "view": 0, "view_from_jet": [1.0, 0.0]},
        {"image": "set/b.png", "view": 0, "view_from_jet": [0.5, 0.5]},
    ]
    assert write.is_complete(tmp_path)


def test_a_run_that_has_not_ended_is_no_result(tmp_path):
    make_run(tmp_path)
    unfinished = make_run(tmp_path, seed=1, complete=False)
    study = write.load(tmp_path)
    assert len(study.runs) == 1 and study.incomplete == [unfinished]


def test_a_study_without_a_run_says_what_to_do(tmp_path):
    make_run(tmp_path, complete=False)
    with pytest.raises(FileNotFoundError, match="no complete run; run `python -m gradlib study"):
        write.load(tmp_path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write.write_whole(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write.os, "replace", full)
    with pytest.raises(OSError, match=r"file\.json: cannot be written \(No space left on device\); what was"):
        write.write_whole(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_project_folder_is_found_from_inside(tmp_path, monkeypatch):
    inside = tmp_path / "runs" / "demo"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert write.project_folder() == inside
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_solution.ipynb").touch()
    assert write.project_folder() == tmp_path
    assert write.run_folder("runs", "demo", "dual", 1, 2) == tmp_path / "runs/demo/dual/fold=1/seed=2"


def test_what_an_interrupted_run_kept_is_taken_up_or_named(tmp_path):
    dataset = SimpleNamespace(classes=("AR",), views=(), problems=(), fingerprint="")

    def begin(**parameters):
        return write.begin(tmp_path, parameters, find_solution("baseline"), dataset, {})

    assert begin(epochs=3) is None
    kept = {"history": {"epochs": [{"epoch": 0}]}, "order": torch.arange(1000)}
    write.after_epoch(tmp_path, {}, kept)
    found = begin(epochs=3)
    assert found["history"] == kept["history"] and torch.equal(found["order"], kept["order"])
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    for content, said in (
        (whole[:2000], "is cut short"),
        (b"", "is no PyTorch checkpoint"),
        (whole.replace(b"history", b"hist-ry"), "holds no state of a training"),
    ):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(ValueError, match=rf"checkpoint\.pt: {said}.*remove it, and the run begins anew$"):
            begin(epochs=3)
        assert (tmp_path / "checkpoint.pt").read_bytes() == content
    assert begin(epochs=4) is None and not (tmp_path / "checkpoint.pt").exists()
