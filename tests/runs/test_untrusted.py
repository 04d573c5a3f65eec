"""Run folders as untrusted input: unreadable ones are named and left out, no path leads out of its folder."""

import json
import os
import struct
import time
import zlib

import pandas as pd
import pytest
from PIL import Image

from gradlib.data.files import MAX_BYTES, MAX_TABLE_BYTES
from gradlib.evidence import predictions
from gradlib.runs.read import load_study

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
PROBE = "step,stage,kind,cosine\n0,p1,conv,0.5\n"


def config(**changed) -> str:
    return json.dumps({**CONFIG, **changed})


def solution(**changed) -> str:
    return config(solution={**SOLUTION, **changed})


def metrics(**test) -> str:
    return json.dumps({"test": {**METRICS, **test}, "cost": COST})


def entry(**changed) -> str:
    return json.dumps([{**ENTRY, **changed}])


HOSTILE = [
    ("config.json", "", "is not valid JSON (Expecting value: line 1"),
    ("config.json", "{", "is not valid JSON"),
    ("config.json", "[]", "holds [], which is no mapping"),
    ("config.json", "[" * 100_000, "is nested too deeply"),
    ("config.json", '{"a":' * 100_000, "is nested too deeply"),
    ("config.json", "\0", "is not valid JSON"),
    ("config.json", config().encode("utf-16"), "line 1: is no UTF-8"),
    ("config.json", " " * MAX_BYTES + "{}", "has 4 MiB; at most 4 MiB of such a file are read"),
    ("config.json", '{"alpha": NaN}', "is not valid JSON (NaN is no finite number)"),
    ("config.json", '{"alpha": 1e999}', "is not valid JSON (1e999 is no finite number)"),
    ("config.json", '{"seed": ' + "9" * 5000 + "}", "is not valid JSON (Exceeds the limit"),
    ("config.json", "{}", "solution is None, which is none"),
    ("config.json", config(solution="gradnorm"), "solution is 'gradnorm', which is none"),
    ("config.json", solution(branch="p9"), "unknown branch 'p9'"),
    ("config.json", solution(branch=["p3"]), "unknown branch ['p3']"),
    ("config.json", solution(weights="12"), "which is none"),
    ("config.json", solution(weights=3), "which is none"),
    ("config.json", solution(options=3), "which is none"),
    ("config.json", solution(width="wide"), "width must be a finite number"),
    ("config.json", config(epochs="2"), "epochs is '2', which is no int"),
    ("config.json", config(epochs=True), "epochs is True, which is no int"),
    ("config.json", config(alpha=[1.5]), "alpha is [1.5], which is no float"),
    ("config.json", config(alpha=10**30), f"alpha is {10**30}, which is no float"),
    ("config.json", config(data=3), "data is 3, which is no str"),
    ("config.json", config(pretrained=["x"]), "pretrained is ['x'], which is no str"),
    (
        "config.json",
        config(classes="AR"),
        "classes is 'AR', which is no list of at most 2000 different names",
    ),
    ("config.json", config(classes=["AR", "AR"]), "classes is ['AR', 'AR'], which is no list"),
    ("config.json", config(classes=[1, 2]), "classes is [1, 2], which is no list"),
    (
        "config.json",
        config(views=["x" * 101]),
        "which is no list of at most 2000 different names of 1 to 100",
    ),
    ("config.json", config(views=list(map(str, range(2001)))), "which is no list of at most 2000"),
    ("config.json", config(data=None), "data is None, which is no str"),
    ("config.json", json.dumps({"solution": SOLUTION, "views": [], "classes": []}), "lacks data"),
    ("pairs.csv", PAIR + "2,0,0.5\n", "has a class or a view that config.json has not"),
    ("pairs.csv", PAIR + "0,-1,0.5\n", "has a class or a view that config.json has not"),
    ("pairs.csv", PAIR + "0.5,1,0.5\n", "has a class or a view that config.json has not"),
    ("environment.json", "3", "holds 3, which is no mapping"),
    ("environment.json", None, "environment.json: not found"),
    ("metrics.json", "", "is not valid JSON"),
    ("metrics.json", "{}", "test is None, which is no mapping"),
    ("metrics.json", '{"test": {}}', "cost is None, which is no mapping"),
    ("metrics.json", metrics(map50="0.5"), "map50 of test is '0.5', which is no number"),
    ("metrics.json", metrics(map50=True), "map50 of test is True, which is no number"),
    ("metrics.json", metrics(map50=[0.5]), "map50 of test is [0.5], which is no number"),
    ("metrics.json", metrics(map50=10**400), "which is no number"),
    ("metrics.json", metrics(ap50={"AR": "<b>"}), "ap50 of test is {'AR': '<b>'}, which is no number"),
    ("predictions.json", None, "predictions.json: not found"),
    ("predictions.json", "{}", "holds {}, which is no list of predictions"),
    ("predictions.json", "[[]]", "entry 0: [] is no mapping"),
    ("predictions.json", entry(image=3), "entry 0: image is 3, which is no name"),
    ("predictions.json", entry(image=""), "entry 0: image is '', which is no name"),
    ("predictions.json", entry(patient=None), "entry 0: patient is None, which is no name"),
    ("predictions.json", entry(view=2), "entry 0: view is 2, which is none of 2"),
    ("predictions.json", entry(view=-2), "entry 0: view is -2, which is none of 2"),
    ("predictions.json", entry(view=True), "entry 0: view is True, which is none of 2"),
    (
        "predictions.json",
        entry(view_scores="ab"),
        "entry 0: view_scores is 'ab', which is no list of 2 numbers",
    ),
    ("predictions.json", entry(view_scores=[0.1] * 3), "which is no list of 2 numbers"),
    ("predictions.json", entry(boxes=None), "entry 0: boxes is None, which is no list of at most 1000 rows"),
    (
        "predictions.json",
        entry(boxes=[[0, 0.5, 0.5, 0.1]]),
        "entry 0: boxes has the row [0, 0.5, 0.5, 0.1], which",
    ),
    ("predictions.json", entry(boxes=[["0", 0.5, 0.5, 0.1, 0.1]]), "which is no 5 numbers"),
    ("predictions.json", entry(boxes=[[2, 0.5, 0.5, 0.1, 0.1]]), "boxes has the class 2, which is none of 2"),
    (
        "predictions.json",
        entry(boxes=[[0.5, 0.5, 0.5, 0.1, 0.1]]),
        "boxes has the class 0.5, which is none of 2",
    ),
    ("predictions.json", entry(detections=[[0, 0.5, 0.5, 0.1, 0.1]]), "which is no 6 numbers"),
    ("predictions.json", entry(detections=[[0] * 6] * 1001), "which is no list of at most 1000 rows"),
    ("predictions.json", json.dumps([ENTRY] * 2), "has two entries of one image"),
    (
        "predictions.json",
        json.dumps([ENTRY, {**ENTRY, "image": "b", "view_scores": None}]),
        "different lengths",
    ),
    ("probes.csv", PROBE[:-3], "is cut short: its last line does not end"),
    ("probes.csv", PROBE + "20,p1\n", "row 2 has 2 cells, and the header 4"),
    ("probes.csv", PROBE + "20,p1,conv,0.5,9\n", "row 2 has 5 cells, and the header 4"),
    ("probes.csv", PROBE + "20,p1,conv,high\n", "row 2: cosine is 'high', not a number"),
    ("probes.csv", PROBE + "20,<b>,conv,0.5\n", "row 2: stage is '<b>', not p1 or p2"),
    ("probes.csv", PROBE + "20,p1,bias,0.5\n", "row 2: kind is 'bias', not conv or norm"),
    ("probes.csv", "step,kind,cosine\n0,conv,0.5\n", "lacks the column 'stage'"),
    ("probes.csv", "step,step\n0,1\n", "has the columns ['step', 'step'], of which one stands for another"),
    ("probes.csv", "seed,step\n0,1\n", "has the columns ['seed', 'step'], of which one stands for another"),
    ("probes.csv", PROBE.encode("utf-16"), "is no UTF-8"),
    ("steps.csv", 'step,loss\n0,"1\n', "is no table"),
    ("steps.csv", "step,loss\n0,x\n" + "1,2\n" * 10_000, "row 1: loss is 'x', not a number"),
    ("steps.csv", f"step,loss\n{'9' * 30},1\n", "row 1: step is"),
    ("epochs.csv", "\0\n", "of which one is no name"),
    ("batches.csv", f"step,image\n0,{'x' * 5000}\n", "not a name"),
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
    assert "steps.csv: has 128 MiB; at most 128 MiB of such a file are read" in line


@pytest.mark.parametrize("name", ["fold=x", "fold=-1", "fold=01", "fold=1e3", "fold=²", f"fold={'9' * 20}"])
def test_a_folder_that_names_no_fold(name, tmp_path):
    make_run(tmp_path)
    (make_run(tmp_path, "bad").parent).rename(tmp_path / "bad" / name)
    (line,) = load_study(tmp_path).unreadable
    assert line.startswith(f"bad/{name}/seed=0: {name!r} is no fold=<number>")


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
    assert "is a link that leaves study" in line
    assert str(tmp_path) not in line


def test_all_runs_of_a_study_have_the_same_classes(tmp_path):
    make_run(tmp_path)
    (make_run(tmp_path, "dual") / "config.json").write_text(config(classes=["MR", "AR"]))
    (line,) = load_study(tmp_path).unreadable
    assert line.startswith(
        "dual/fold=0/seed=0/config.json: has other classes or views than the study's first"
    )


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data set in its place, an image in it and one beside that place; what finds an image there."""
    monkeypatch.chdir(tmp_path)
    for folder in ("place/set/images", "private"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (8, 6), "red").save(tmp_path / folder / "a.png")
    (tmp_path / "place/set/data.yaml").touch()
    return lambda name, path="place/set/data.yaml": predictions.image({"data": path}, name)


def test_a_frame_is_found_in_the_place_of_its_data(data):
    assert data("images/a.png").shape == (6, 8, 3) == data("../set/images/a.png").shape


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../../private/a.png",
            "../../../../../../../etc/passwd",
            "/etc/passwd",
            "images",
            "",
            ".",
            "images/b.png",
        ),
        *("images/\0", "x" * 300, "images/link.png", "images/pipe.png", "images/text.png", "images/huge.png"),
    ],
)
def test_no_other_file_is_taken_for_a_frame(name, data, tmp_path):
    images = tmp_path / "place/set/images"
    (images / "link.png").symlink_to(tmp_path / "private/a.png")
    os.mkfifo(images / "pipe.png")
    (images / "text.png").write_text("root:x:0:0")
    wide = struct.pack(">II5B", 100_000, 100_000, 8, 2, 0, 0, 0)  # a header that claims 30 GB
    chunks = [
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
        for k, d in ((b"IHDR", wide), (b"IDAT", b""))
    ]
    (images / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert data(str(tmp_path / name) if name == "" else name) is None


@pytest.mark.parametrize("path", ["~nobody/data.yaml", "nowhere/data.yaml", "place/set", "\0", "x" * 300, ""])
def test_without_its_data_a_frame_is_not_there(path, data):
    assert data("images/a.png", path) is None


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
    assert f"{name}: is no ordinary file" in line and time.monotonic() - began < 5


def test_a_whole_run_is_read_as_before(tmp_path):
    run = make_run(tmp_path)
    (run / "config.json").write_text(config())
    (run / "predictions.json").write_text(entry())
    (run / "batches.csv").write_text("step,image\n0,7\n")
    (run / "probes.csv").write_text(PROBE + "20,neck,norm,\n")
    study = load_study(tmp_path)
    assert study.unreadable == [] and study.predictions("baseline") == [ENTRY]
    assert study.batches["image"].tolist() == ["7"] and pd.isna(study.probes["cosine"].iloc[1])
