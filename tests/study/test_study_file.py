"""Mistakes in a study file: one line that names the place, the value and the cure, before anything starts."""

from pathlib import Path

import pytest

from gradlib.__main__ import main
from gradlib.study.spec import read_spec

GOOD = "solutions: [baseline, dual, {name: late, from: gradnorm, branch: p4}]\nseeds: [0]\n"


def study(project: Path, text: str) -> str:
    """Write a study file; its path as one would type it."""
    (project / "notebooks/demo.yaml").write_text(text)
    return "notebooks/demo.yaml"


def refused(project: Path, text: str, capsys: pytest.CaptureFixture) -> str:
    """The one line that this study file is refused with, before anything was started."""
    assert main(["study", study(project, text)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert not (project / "runs").exists()
    return captured.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("solution: [dual]\n", "line 1: solution: unknown key 'solution' here (did you mean 'solutions'?)"),
        (
            GOOD + "parameters:\n  epoch: 3\n",
            "line 4: parameters.epoch: unknown key 'epoch' here (did you mean 'epochs'?)",
        ),
        (GOOD + "parameters:\n  epochs: many\n", "line 4: parameters.epochs: expected integer, got 'many'"),
        (GOOD + "parameters:\n  epochs: true\n", "line 4: parameters.epochs: expected number, got True"),
        (
            GOOD + "parameters:\n  epochs: 0\n",
            "line 4: parameters.epochs: expected greater than or equal to 1, got 0",
        ),
        (GOOD + "parameters:\n  seed: 3\n", "line 4: parameters.seed: 'seed' is set by the study"),
        (GOOD + "parameters: 3\n", "line 3: parameters: expected dictionary, got 3"),
        (
            "solutions: [gradnrm]\n",
            "line 1: solutions[0]: unknown solution 'gradnrm' (did you mean 'gradnorm'?)",
        ),
        ("solutions: [{name: x, brnch: p3}]\n", "unknown setting 'brnch' (did you mean 'branch'?)"),
        ("solutions: [dual, dual]\n", "line 1: solution 'dual' is given twice"),
        ("solutions: [[dual]]\n", "line 1: solutions[0]: unknown solution ['dual'] (did you mean 'dual'?)"),
        ("solutions: [3]\n", "line 1: solutions[0]: unknown solution 3; known: "),
        ("seeds: [0]\n", "demo.yaml: expected a list of solutions, as [baseline"),
        ("solutions: [dual]\nseeds: 3\n", "line 2: seeds: expected list, got 3"),
        ("solutions: [dual]\nseeds: [1, 1]\n", "line 2: seeds: got [1, 1]; give each value once"),
        ("solutions: [dual]\nfolds: [5]\n", "line 2: fold 5 does not exist: of 5, the last is 4"),
        (
            "solutions: [dual]\nfolds: [0, 1]\nsplit: published\n",
            "line 2: the published split has no folds",
        ),
        (
            "solutions: [dual]\nsplit: patient\n",
            "line 2: split: unknown 'patient' (did you mean 'patients'?)",
        ),
        ("solutions: [dual]\ndata: sets/dat.yaml\n", "line 2: data: 'sets/dat.yaml' is no file"),
        (
            "solutions: [dual]\nparameters:\n  pretrained: yolov5n.pt\n",
            "line 3: parameters.pretrained: 'yolov5n.pt' is no file",
        ),
        ("solutions: [dual]\ndata: phantm\n", "(did you mean 'phantom'?)"),
        ("solutions: [dual]\nname: ../x\n", "line 2: name: the study '../x': take letters"),
        ("solutions: [dual]\nseeds: [0]\nseeds: [1]\n", "line 3: the key 'seeds' again, after line 2"),
        ("solutions: [dual\n", "not valid YAML"),
        ("dual\n", "a study file is a mapping"),
        ("", "a study file is a mapping"),
    ],
)
def test_a_mistake_is_one_line(project, capsys, text, expected):
    line = refused(project, text, capsys)
    assert line.startswith("gradlib: notebooks/demo.yaml")
    assert expected in line


def test_a_missing_data_set_names_the_nearest(project, capsys):
    (project / "sets").mkdir()
    (project / "sets/data.yaml").touch()
    line = refused(project, "solutions: [dual]\ndata: sets/dat.yaml\n", capsys)
    assert "(did you mean 'sets/data.yaml'?)" in line


def test_a_missing_study_file_names_the_nearest(project, capsys):
    study(project, GOOD)
    assert main(["study", "notebooks/demos.yaml"]) == 2
    line = capsys.readouterr().err
    assert "notebooks/demos.yaml: no such study file (did you mean 'notebooks/demo.yaml'?)" in line


def test_a_missing_notebook_is_one_line(project, capsys):
    (project / "notebooks/03_analysis.ipynb").unlink()
    assert main(["study", study(project, GOOD)]) == 2
    assert "notebooks/03_analysis.ipynb is missing" in capsys.readouterr().err


def test_an_absolute_path_is_not_shown_in_notebooks(project):
    (project / "sets").mkdir()
    (project / "sets/data.yaml").touch()
    (project / "yolov5n.pt").touch()
    text = f"solutions: [dual]\ndata: {project}/sets/data.yaml\n"
    file = study(project, text + f"parameters: {{pretrained: {project}/yolov5n.pt}}\n")
    given = read_spec(file).runs[0].parameters
    assert (given["data"], given["pretrained"]) == ("sets/data.yaml", "yolov5n.pt")
