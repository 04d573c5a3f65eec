"""The whole line with the real notebooks, on a phantom small enough to train on in seconds."""

import json
import os
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest

from gradlib.__main__ import main
from gradlib.config import TASKS, Training
from gradlib.data import FrameSet, phantom, read_dataset
from gradlib.model import checkpoints
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.runs.read import load_model, load_study
from gradlib.runs.resolve import branch_to_part
from gradlib.runs.schema import TABLES
from gradlib.runs.write import save_weights
from gradlib.train import evaluation

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
STUDY = """\
name: small
data: data.yaml
solutions: [conflict-branch, gradnorm-static, baseline, gradnorm, dual, detection-only]
parameters: {image_size: 64, epochs: 2, probe_every: 2, pretrained: start.pt}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project folder in which the small study has been run."""
    folder = tmp_path_factory.mktemp("project") / "set"
    phantom.write(folder, patients=12, videos=1, frames=4, size=(96, 72))
    shutil.copytree(NOTEBOOKS, folder / "notebooks")
    (folder / "small.yaml").write_text(STUDY)
    detector = MultiTaskYOLO("n", 80, 0, ("detection",), "neck")
    save_weights(folder / "start.pt", checkpoints.export(detector))
    before = Path.cwd()
    os.chdir(folder)
    try:
        status = main(["study", "small.yaml", "--workers", "2"])
    finally:
        os.chdir(before)
    return folder, status


def outputs(project):
    for path in sorted((project / "runs").rglob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                yield path.relative_to(project).as_posix(), output


def test_every_notebook_ends_without_an_error_or_a_warning(project):
    folder, status = project
    said = [
        (path, output.get("text", output.get("traceback")))
        for path, output in outputs(folder)
        if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert (status, said) == (0, [])
    assert len({path for path, _ in outputs(folder)}) == 10  # data, six runs, comparison, two analyses


def test_a_run_leaves_what_the_design_says(project):
    study = load_study(project[0] / "runs" / "small")
    names = ["baseline", "conflict-branch", "detection-only", "dual", "gradnorm", "gradnorm-static"]
    assert study.runs["solution"].tolist() == names
    for run in study.runs.itertuples():
        folder = study.folder / run.path
        files = {path.name for path in folder.iterdir()}
        tables = {f"{name}.csv" for name in TABLES}
        assert files == tables | {
            "config.json",
            "environment.json",
            "metrics.json",
            "predictions.json",
            "model.pt",
            "notebook.ipynb",
            ".lock",
        }
        assert len(pd.read_csv(folder / "epochs.csv")) == 2
        assert run.parameters > 1e6 and run.macs > 1e6 and run.seconds_per_epoch > 0
    config = study.config("gradnorm")
    assert config["image_size"] == 64 and config["solution"]["balancer"] == "gradnorm"
    assert {"python", "versions", "git", "data_fingerprint"} <= set(config["environment"])
    entry = study.predictions("baseline")[0]
    assert (project[0] / entry["image"]).is_file()
    assert set(study.probes["solution"]) == {"baseline", "gradnorm", "gradnorm-static", "conflict-branch"}
    assert set(study.probes["stage"]) == {"p1", "p2", "p3", "p4", "p5", "neck"}
    assert set(study.pairs["solution"]) == set(study.probes["solution"])


def test_what_a_solution_leaves_open_is_settled_by_the_run_it_names(project):
    study = load_study(project[0] / "runs" / "small")
    steps = study.steps[study.steps["solution"] == "gradnorm"]
    weights = study.config("gradnorm-static")["solution"]["weights"]
    assert weights == pytest.approx([steps[f"weight_{task}"].mean() for task in TASKS]) and weights != [1, 1]
    still = study.steps[study.steps["solution"] == "gradnorm-static"]
    assert still["weight_detection"].std() == 0
    probes = study.probes[study.probes["solution"] == "baseline"]
    assert study.config("conflict-branch")["solution"]["branch"] == branch_to_part(probes)


def test_the_pages_can_be_shared_as_they_are(project):
    for name in ("data", "compare", "analysis"):
        page = (project[0] / "runs/small/pages" / f"{name}.html").read_text(encoding="utf-8")
        assert not re.search(r"Traceback|Warning", page)
        assert str(project[0]) not in page and str(Path.home()) + "/" not in page
        assert "data:image/png;base64," in page
    assert "papermill" not in re.sub(r"<[^>]+>", "", page).lower()  # prose, no machinery


def pictures_in_words(path):
    """For each picture of an executed notebook, what is said of it to those who do not see it."""
    cells = nbformat.read(path, as_version=4).cells
    return [
        cell.metadata.get("alt", "")
        for cell in cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


def test_every_figure_is_said_in_words(project):
    for path in (project[0] / "runs").rglob("*.ipynb"):
        words = pictures_in_words(path)
        assert len(words) >= 2 and all(words), path
    page = (project[0] / "runs/small/pages/compare.html").read_text(encoding="utf-8")
    assert page.count("<img") == page.count('alt="') and "No description" not in page


def test_a_run_says_what_it_started_from(project):
    notebook = (project[0] / "runs/small/dual/fold=0/seed=0/notebook.ipynb").read_text(encoding="utf-8")
    assert "starts from start.pt" in notebook and "model.24.m.0.bias, model.24.m.0.weight" in notebook
    assert load_study(project[0] / "runs" / "small").config("dual")["pretrained"] == "start.pt"


def test_the_network_of_a_run_can_be_had_back(project):
    study = load_study(project[0] / "runs" / "small")
    model = load_model(study.folder / "gradnorm/fold=0/seed=0")
    frames = read_dataset(project[0] / "data.yaml").split()["test"]
    training = Training(image_size=64, device="cpu")
    again, _ = evaluation.predict(model, FrameSet(frames, 64), training)
    kept = study.predictions("gradnorm")
    assert len(again) == len(kept)
    for one, other in zip(again, kept, strict=True):
        assert one["view_scores"] == pytest.approx(other["view_scores"], abs=1e-4)


def test_a_detector_leaves_for_yolov5_and_comes_back(project, capsys):
    folder, _ = project
    run, file = folder / "runs/small/dual/fold=0/seed=0", folder / "best.pt"
    assert main(["export", str(run), str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    ended, model = load_model(run), MultiTaskYOLO("n", 4, 0, ("detection",), "neck")
    assert checkpoints.start_from(model, file) == []
    for name, tensor in checkpoints.export(ended).items():
        assert checkpoints.export(model)[name].equal(tensor)


def test_a_run_that_is_not_there_is_one_line(project, capsys):
    assert main(["export", str(project[0] / "runs/small/nobody"), "best.pt"]) == 2
    assert "give the folder of a finished run" in capsys.readouterr().err


def test_predictions_say_what_the_metrics_say(project):
    study = load_study(project[0] / "runs" / "small")
    kept = json.loads((study.folder / study.runs["path"][0] / "metrics.json").read_text())["test"]
    again = evaluation.evaluate(
        study.predictions("baseline"),
        ("detection", "classification"),
        study.config("baseline")["classes"],
        kept["confidence"],
    )
    # Five decimals are kept of a prediction.
    for name in ("map50", "map50_95", "precision", "accuracy", "balanced_accuracy"):
        assert again[name] == pytest.approx(kept[name], abs=1e-3)


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("10_gradnorm_paper", {"seeds": 2, "steps": 20, "samples": 200, "every": 10}),
        ("11_two_digits", {"seeds": 2, "epochs": 1, "pairs": 400}),
        ("12_planted_conflict", {"seeds": 1, "repetitions": 1, "probes": 6, "steps": 12, "large": 500}),
    ],
)
def test_the_notebooks_beside_the_study_run(name, small, tmp_path):
    papermill.execute_notebook(
        NOTEBOOKS / f"{name}.ipynb", tmp_path / "out.ipynb", small, kernel_name="python3", progress_bar=False
    )
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    shown = [output for cell in cells for output in cell.get("outputs", [])]
    words = pictures_in_words(tmp_path / "out.ipynb")
    assert len(words) >= 2 and all(words)
    # tqdm's bar is a widget, or where there are none a line on stderr; nothing else is said there.
    said = [output["text"] for output in shown if output.get("name") == "stderr"]
    assert all(text.lstrip("\r").startswith("runs") for text in said)
