"""Run folders as untrusted input: unreadable ones are named and left out, no path leads out of its folder."""

import json
import os
import time

import pandas as pd
import pytest

from gradlib.data.files import MAX_BYTES, MAX_TABLE_BYTES
from gradlib.runs.read import load_study
from gradlib.runs.schema import MAX_BOXES, MAX_ROWS

from .test_read import COST, METRICS, make_run

ENTRY = {
    "image": "a.png",
    "patient": "p",
    "view": 0,
    "view_scores": [0.5, 0.5],
    "boxes": [[0, 0.5, 0.5, 0.1, 0.1]],
}
ENTRY |= {"detections": [[1, 0.9, 0.5, 0.5, 0.1, 0.1]], "view_from_jet": [0.5, 0.5]}
SOLUTION = {"name": "bad", "branch": "neck", "balancer": "fixed"}
CONFIG = {"solution": SOLUTION, "data": "phantom", "classes": ["AR", "MR"], "views": ["A4C", "PLAX"]}
PAIR = "class,view,cosine\n1,1,0.5\n"
PROBE = "step,stage,kind,cosine,conflict\n0,p1,conv,0.5,0\n"


def config(**changed) -> str:
    return json.dumps({**CONFIG, **changed})


def solution(**changed) -> str:
    return config(solution={**SOLUTION, **changed})


def metrics(**test) -> str:
    return json.dumps({"test": {**METRICS, **test}, "cost": COST})


def entry(**changed) -> str:
    return json.dumps([{**ENTRY, **changed}])


HOSTILE = [
    ("config.json", None, "config.json: not found"),
    ("config.json", "", "is not valid JSON (Expecting value: line 1"),
    ("config.json", "{", "is not valid JSON"),
    ("config.json", "[]", "expected dictionary, got []"),
    ("config.json", "[" * 100_000, "is nested too deeply"),
    ("config.json", '{"a":' * 100_000, "is nested too deeply"),
    ("config.json", "\0", "line 1: is not UTF-8 text (NUL bytes)"),
    ("config.json", config().encode("utf-16"), "line 1: is not UTF-8 text"),
    (
        "config.json",
        " " * MAX_BYTES + "{}",
        "is too large (4,194,306 bytes); at most 4,194,304 bytes are read",
    ),
    ("config.json", '{"alpha": NaN}', "is not valid JSON (NaN is not a finite number)"),
    ("config.json", '{"alpha": 1e999}', "is not valid JSON (1e999 is not a finite number)"),
    ("config.json", '{"seed": ' + "9" * 5000 + "}", "is not valid JSON (Exceeds the limit"),
    ("config.json", "{}", "solution: missing"),
    ("config.json", config(solution="gradnorm"), "solution: expected dictionary, got 'gradnorm'"),
    ("config.json", solution(branch="p9"), "solution 'bad': branch: unknown 'p9'; known: input"),
    ("config.json", solution(branch=["p3"]), "branch: expected string, got ['p3']"),
    (
        "config.json",
        solution(balancer="gradnorm", options={"layer": "p3"}),  # of versions before `measure_at`
        "gradnorm has no option 'layer'; known: bounds, initial_losses, measure_at, norms, renormalise",
    ),
    ("config.json", solution(weights="12"), "weights: expected tuple, got '12'"),
    ("config.json", solution(weights=3), "weights: expected tuple, got 3"),
    ("config.json", solution(options=3), "options: expected dictionary, got 3"),
    ("config.json", solution(name=None), "solution None: name: expected string, got None"),
    ("config.json", solution(width="wide"), "width: expected number, got 'wide'"),
    ("config.json", config(epochs="2"), "epochs: expected integer, got '2'"),
    ("config.json", config(epochs=True), "epochs: expected integer, got True"),
    ("config.json", config(alpha=[1.5]), "alpha: expected number, got [1.5]"),
    (
        "config.json",
        config(alpha=10**30),
        "alpha: expected less than 9223372036854776000, got 1000000000000000000000000000000",
    ),
    ("config.json", config(data=3), "data: expected string, got 3"),
    ("config.json", config(pretrained=["x"]), "pretrained: expected string, got ['x']"),
    (
        "config.json",
        config(classes="AR"),
        "classes: expected list, got 'AR'",
    ),
    ("config.json", config(classes=["AR", "AR"]), "classes: expected different names, got ['AR', 'AR']"),
    ("config.json", config(classes=[1, 2]), "classes[0]: expected string, got 1"),
    (
        "config.json",
        config(views=["x" * 101]),
        "views[0]: expected at most 100 characters, got 'xxxxxxxxxxxx...xxxxxxxxxxxxx'",
    ),
    (
        "config.json",
        config(views=list(map(str, range(2001)))),
        "views: expected at most 2000 items, got ['0', '1', '2', '3', '4', '5', ...]",
    ),
    ("config.json", config(data=None), "data: expected string, got None"),
    ("config.json", json.dumps({"solution": SOLUTION, "views": [], "classes": []}), "data: missing"),
    ("pairs.csv", PAIR + "2,0,0.5\n", "has a class or a view that config.json lacks"),
    ("pairs.csv", PAIR + "0,-1,0.5\n", "has a class or a view that config.json lacks"),
    ("pairs.csv", PAIR + "0.5,1,0.5\n", "has a class or a view that config.json lacks"),
    ("environment.json", "3", "expected dictionary, got 3"),
    ("environment.json", None, "environment.json: not found"),
    ("metrics.json", "", "is not valid JSON"),
    ("metrics.json", "{}", "test: missing"),
    ("metrics.json", '{"test": {}}', "cost: missing"),
    ("metrics.json", metrics(map50="0.5"), "test.map50: expected number, got '0.5'"),
    ("metrics.json", metrics(map50=True), "test.map50: expected number, got True"),
    ("metrics.json", metrics(map50=[0.5]), "test.map50: expected number, got [0.5]"),
    (
        "metrics.json",
        metrics(map50=10**400),
        "test.map50: expected number, got 100000000000000000...0000000000000000000",
    ),
    ("metrics.json", metrics(ap50={"AR": "<b>"}), "test.ap50.AR: expected number, got '<b>'"),
    ("predictions.json", None, "predictions.json: not found"),
    ("predictions.json", "{}", "expected list, got {}"),
    ("predictions.json", "[[]]", "entry 0: expected dictionary, got []"),
    ("predictions.json", entry(image=3), "entry 0: image: expected string, got 3"),
    ("predictions.json", entry(image=""), "entry 0: image: expected at least 1 character, got ''"),
    ("predictions.json", entry(patient=None), "entry 0: patient: expected string, got None"),
    ("predictions.json", entry(view=2), "entry 0: view: expected less than 2, got 2"),
    ("predictions.json", entry(view=-2), "entry 0: view: expected greater than or equal to -1, got -2"),
    ("predictions.json", entry(view=True), "entry 0: view: expected integer, got True"),
    (
        "predictions.json",
        entry(view_scores="ab"),
        "entry 0: view_scores: expected list, got 'ab'",
    ),
    (
        "predictions.json",
        entry(view_scores=[0.1] * 3),
        "entry 0: view_scores: expected at most 2 items, got [0.1, 0.1, 0.1]",
    ),
    ("predictions.json", entry(boxes=None), "entry 0: boxes: expected list, got None"),
    (
        "predictions.json",
        entry(boxes=[[0, 0.5, 0.5, 0.1]]),
        "entry 0: boxes[0][4]: missing",
    ),
    (
        "predictions.json",
        entry(boxes=[["0", 0.5, 0.5, 0.1, 0.1]]),
        "entry 0: boxes[0][0]: expected number, got '0'",
    ),
    (
        "predictions.json",
        entry(boxes=[[2, 0.5, 0.5, 0.1, 0.1]]),
        "entry 0: boxes[0][0]: expected less than 2, got 2",
    ),
    (
        "predictions.json",
        entry(boxes=[[0.5, 0.5, 0.5, 0.1, 0.1]]),
        "entry 0: boxes[0][0]: expected a multiple of 1, got 0.5",
    ),
    ("predictions.json", entry(detections=[[0, 0.5, 0.5, 0.1, 0.1]]), "entry 0: detections[0][5]: missing"),
    (
        "predictions.json",
        entry(detections=[[0] * 6] * (MAX_BOXES + 1)),
        "entry 0: detections: expected at most 131072 items",
    ),
    ("predictions.json", json.dumps([ENTRY] * 2), "has two entries of one image"),
    (
        "predictions.json",
        json.dumps([ENTRY, {**ENTRY, "image": "b", "view_scores": None}]),
        "different lengths",
    ),
    ("probes.csv", PROBE[:-3], "is cut short: its last line does not end"),
    ("probes.csv", PROBE + "20,p1\n", "row 2 has 2 cells, and the header 5"),
    ("probes.csv", PROBE + "20,p1,conv,0.5,0,9\n", "row 2 has 6 cells, and the header 5"),
    ("probes.csv", PROBE + "20,p1,conv,high,0\n", "row 2: cosine: expected number, got 'high'"),
    (
        "probes.csv",
        PROBE + "20,<b>,conv,0.5,0\n",
        "row 2: stage: expected p1 or p2 or p3 or p4 or p5 or neck, got '<b>'",
    ),
    ("probes.csv", PROBE + "20,p1,bias,0.5,0\n", "row 2: kind: expected conv or norm, got 'bias'"),
    ("probes.csv", "step,kind,cosine\n0,conv,0.5\n", "lacks the column 'stage'"),
    (
        "probes.csv",
        "step,step\n0,1\n",
        "columns: expected different words, none of them solution, fold, seed, got ['step', 'step']",
    ),
    (
        "probes.csv",
        "seed,step\n0,1\n",
        "columns: expected different words, none of them solution, fold, seed, got ['seed', 'step']",
    ),
    ("probes.csv", PROBE.encode("utf-16"), "line 1: is not UTF-8 text"),
    ("steps.csv", "step\n" + "1\n" * MAX_ROWS, "expected at most 2,000,000 rows, got 2,000,001"),
    ("steps.csv", "a" + ",a" * 1000 + "\n", "expected at most 1000 columns, got 1,001"),
    ("steps.csv", 'step,loss\n0,"1\n', "is no table"),
    ("steps.csv", "step,loss\n0,x\n" + "1,2\n" * 10_000, "row 1: loss: expected number, got 'x'"),
    (
        "steps.csv",
        f"step,loss\n{'9' * 30},1\n",
        "row 1: step: expected number, got 999999999999999999999999999999",
    ),
    ("epochs.csv", "\0\n", "line 1: is not UTF-8 text (NUL bytes)"),
    (
        "epochs.csv",
        "\x01\n",
        "columns: expected different words, none of them solution, fold, seed, got ['\\x01']",
    ),
    (
        "batches.csv",
        f"step,image\n0,{'x' * 5000}\n",
        "row 1: image: expected name, got 'xxxxxxxxxxxx...xxxxxxxxxxxxx'",
    ),
]


@pytest.mark.parametrize(("name", "content", "expected"), HOSTILE)
def test_a_run_that_cannot_be_read_is_named_and_left_out(name, content, expected, tmp_path):
    make_run(tmp_path)
    bad = make_run(tmp_path, "bad")
    (bad / "config.json").write_text(config())
    (bad / "predictions.json").write_text(entry())
    if content is None:
        (bad / name).unlink()
    else:
        (bad / name).write_bytes(content.encode() if isinstance(content, str) else content)
    study = load_study(tmp_path)
    assert study.runs["solution"].tolist() == ["baseline"] and study.incomplete == []
    assert set(study.steps["solution"]) == {"baseline"}
    (line,) = study.unreadable
    assert line.startswith(f"bad/fold=0/seed=0/{name}") and expected in line
    assert line.endswith("; copy the run again, or remove its folder") and line.count("\n") == 0
    assert len(line) < 600 and str(tmp_path) not in line
    with pytest.raises(ValueError, match="no complete run of 'bad'"):
        study.config("bad")


def test_a_table_that_is_gigantic_is_not_read(tmp_path):
    make_run(tmp_path)
    with (make_run(tmp_path, "bad") / "steps.csv").open("r+b") as file:
        file.truncate(MAX_TABLE_BYTES + 1)  # a hole: it takes no room
    (line,) = load_study(tmp_path).unreadable
    assert "steps.csv: is too large (134,217,729 bytes); at most 134,217,728 bytes are read" in line


@pytest.mark.parametrize("name", ["fold=x", "fold=-1", "fold=01", "fold=1e3", "fold=²", f"fold={'9' * 20}"])
def test_a_folder_that_names_no_fold(name, tmp_path):
    make_run(tmp_path)
    (make_run(tmp_path, "bad").parent).rename(tmp_path / "bad" / name)
    (line,) = load_study(tmp_path).unreadable
    assert line.startswith(f"bad/{name}/seed=0: expected fold=<number>/seed=<number>")


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>", "a b", "$x$", "[x](javascript:alert(1))", "a\nb"]
)
def test_a_solution_is_called_what_a_folder_may_be_called(name, tmp_path):
    make_run(tmp_path)
    make_run(tmp_path, name)
    study = load_study(tmp_path)
    assert study.runs["solution"].tolist() == ["baseline"]
    assert "take letters, digits" in study.unreadable[0]


def test_a_study_of_which_nothing_can_be_read_is_one_line(tmp_path):
    (make_run(tmp_path) / "metrics.json").write_text("nonsense")
    with pytest.raises(
        ValueError, match=r"none of 1 complete runs can be read: baseline/fold=0/seed=0/metrics"
    ):
        load_study(tmp_path)


def test_a_metric_cannot_stand_for_a_path(tmp_path):
    run = make_run(tmp_path)
    (run / "metrics.json").write_text(metrics(path=7, solution=8, fold=9))
    found = load_study(tmp_path).runs.iloc[0]
    assert found[["solution", "fold", "path"]].tolist() == ["baseline", 0, "baseline/fold=0/seed=0"]


@pytest.mark.parametrize("what", ["config.json", "steps.csv", "predictions.json", "fold", "solution"])
def test_a_link_does_not_lead_out_of_the_study(what, tmp_path):
    study = tmp_path / "study"
    make_run(study)
    bad, outside = make_run(study, "bad"), make_run(tmp_path / "outside", "bad")
    inside = {"fold": bad.parent, "solution": bad.parents[1]}.get(what, bad / what)
    inside.rename(tmp_path / "aside")
    inside.symlink_to(outside / inside.relative_to(bad) if inside.is_relative_to(bad) else outside.parents[0])
    if what == "solution":
        inside.unlink()
        inside.symlink_to(outside.parents[1])
    (line,) = load_study(study).unreadable
    assert "is outside the folder it belongs to" in line and "copy it into study" in line
    assert str(tmp_path) not in line


def test_all_runs_of_a_study_have_the_same_classes(tmp_path):
    make_run(tmp_path)
    (make_run(tmp_path, "dual") / "config.json").write_text(config(classes=["MR", "AR"]))
    (line,) = load_study(tmp_path).unreadable
    assert line.startswith(
        "dual/fold=0/seed=0/config.json: has other classes or views than the study's first"
    )


def test_a_link_within_the_study_is_followed(tmp_path):
    make_run(tmp_path / "real")
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    assert len(load_study(tmp_path / "alias").runs) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["config.json", "predictions.json", "steps.csv"])
def test_a_pipe_is_not_waited_for(name, tmp_path):
    make_run(tmp_path)
    bad = make_run(tmp_path, "bad")
    (bad / name).unlink()
    os.mkfifo(bad / name)
    began = time.monotonic()
    (line,) = load_study(tmp_path).unreadable
    assert f"{name}: is not a regular file" in line and time.monotonic() - began < 5


def test_a_whole_run_is_read_as_before(tmp_path):
    run = make_run(tmp_path)
    (run / "config.json").write_text(config())
    (run / "predictions.json").write_text(entry())
    (run / "batches.csv").write_text("step,image\n0,7\n")
    (run / "probes.csv").write_text(PROBE + "20,neck,norm,,\n")
    study = load_study(tmp_path)
    assert study.unreadable == [] and study.predictions("baseline") == [ENTRY]
    assert study.batches["image"].tolist() == ["7"] and pd.isna(study.probes["cosine"].iloc[1])
