"""The whole line with the real notebooks, on a phantom small enough to train on in seconds."""

import json
import os
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from gradlib import phantom, runs
from gradlib.__main__ import main

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
STUDY = """\
name: small
data: data.yaml
solutions: [baseline, gradnorm, dual, detection-only]
parameters: {image_size: 64, epochs: 2, probe_every: 2}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project folder in which the small study has been run."""
    folder = tmp_path_factory.mktemp("project") / "set"
    phantom.write(folder, patients=12, videos=1, frames=4, size=(96, 72))
    shutil.copytree(NOTEBOOKS, folder / "notebooks")
    (folder / "small.yaml").write_text(STUDY)
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
    assert len({path for path, _ in outputs(folder)}) == 7  # data, four runs, comparison, analysis


def test_a_run_leaves_what_the_design_says(project):
    study = runs.load(project[0] / "runs" / "small")
    assert study.runs["solution"].tolist() == ["baseline", "detection-only", "dual", "gradnorm"]
    for run in study.runs.itertuples():
        folder = study.folder / run.path
        files = {path.name for path in folder.iterdir()}
        tables = {f"{name}.csv" for name in ("steps", "probes", "epochs")}
        assert files == tables | {
            "config.json",
            "environment.json",
            "metrics.json",
            "predictions.json",
            "model.pt",
            "notebook.ipynb",
        }
        assert len(pd.read_csv(folder / "epochs.csv")) == 2
        assert run.parameters > 1e6 and run.macs > 1e6 and run.seconds_per_epoch > 0
    config = study.config("gradnorm")
    assert config["image_size"] == 64 and config["solution"]["balancer"] == "gradnorm"
    assert {"python", "versions", "git", "data_fingerprint"} <= set(config["environment"])
    entry = study.predictions("baseline")[0]
    assert (project[0] / entry["image"]).is_file()
    assert set(study.probes["solution"]) == {"baseline", "gradnorm"}
    assert set(study.probes["stage"]) == {"p1", "p2", "p3", "p4", "p5", "neck"}


def test_the_pages_can_be_shared_as_they_are(project):
    for name in ("data", "compare", "analysis"):
        page = (project[0] / "runs" / "small" / f"{name}.html").read_text(encoding="utf-8")
        assert not re.search(r"Traceback|Warning", page)
        assert str(project[0]) not in page and str(Path.home()) + "/" not in page
        assert "data:image/png;base64," in page
    assert "papermill" not in re.sub(r"<[^>]+>", "", page).lower()  # prose, no machinery


def test_predictions_say_what_the_metrics_say(project):
    from gradlib.engine import evaluate

    study = runs.load(project[0] / "runs" / "small")
    kept = json.loads((study.folder / study.runs["path"][0] / "metrics.json").read_text())["test"]
    again = evaluate(
        study.predictions("baseline"),
        ("detection", "classification"),
        study.config("baseline")["classes"],
        kept["confidence"],
    )
    # Five decimals are kept of a prediction.
    for name in ("map50", "map50_95", "precision", "accuracy", "balanced_accuracy"):
        assert again[name] == pytest.approx(kept[name], abs=1e-3)
