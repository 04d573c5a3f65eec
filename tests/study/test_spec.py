"""Grids and the parameters of single solutions: which runs a study file asks for."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from gradlib.__main__ import main
from gradlib.config import find_solution
from gradlib.data import dataset
from gradlib.study.spec import check_data, read_spec

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SPECIALIST = "detection-only"


def jobs(project, text: str):
    """The runs that this study file asks for, by solution."""
    (project / "notebooks/demo.yaml").write_text(text)
    return {job.solution: job for job in read_spec("notebooks/demo.yaml").runs}


def test_each_combination_is_a_solution_with_a_name_that_says_which(project):
    found = jobs(project, "solutions: [{from: gradnorm, grid: {alpha: [0.5, 1.0], branch: [p3, p4]}}]\n")
    assert list(found) == [
        "gradnorm-alpha=0.5,branch=p3",
        "gradnorm-alpha=0.5,branch=p4",
        "gradnorm-alpha=1,branch=p3",
        "gradnorm-alpha=1,branch=p4",
    ]
    given = found["gradnorm-alpha=0.5,branch=p4"].parameters
    assert given["alpha"] == 0.5 and "grid" not in given["solution"]
    chosen = find_solution(given["solution"])
    assert (chosen.branch, chosen.balancer) == ("p4", "gradnorm")
    assert found["gradnorm-alpha=1,branch=p3"].output == (
        "runs/demo/gradnorm-alpha=1,branch=p3/fold=0/seed=0/notebook.ipynb"
    )


def test_lists_are_joined(project):
    text = "solutions: [{name: static, from: baseline, grid: {weights: [[1, 0.1], [1, 10]]}}]\n"
    found = jobs(project, text)
    assert list(found) == ["static-weights=1_0.1", "static-weights=1_10"]
    assert find_solution(found["static-weights=1_0.1"].parameters["solution"]).weights == (1, 0.1)


def test_an_entry_with_a_registered_name_starts_from_that_solution(project):
    found = jobs(project, "solutions: [{name: dual, width: 0.5}, {name: dual, grid: {width: [0.25]}}]\n")
    chosen = [find_solution(job.parameters["solution"]) for job in found.values()]
    assert [(one.name, one.branch, one.width) for one in chosen] == [
        ("dual", "input", 0.5),
        ("dual-width=0.25", "input", 0.25),
    ]


def test_the_files_grid_concerns_whoever_takes_the_key(project):
    text = f"""\
solutions: [baseline, gradnorm, {SPECIALIST}, {{name: late, from: gradnorm, grid: {{alpha: [3.0]}}}}]
grid: {{alpha: [0.5], weights: [[1, 2]], epochs: [3]}}
"""
    assert list(jobs(project, text)) == [
        "baseline-weights=1_2,epochs=3",
        "gradnorm-weights=1_2,alpha=0.5,epochs=3",
        f"{SPECIALIST}-epochs=3",
        "late-alpha=3,weights=1_2,epochs=3",
    ]


def test_what_an_entry_says_itself_stands(project):
    text = """\
solutions: [{name: heavy, weights: [1, 3]}, {from: gradnorm, parameters: {alpha: 2}}, gradnorm-static, dual]
grid: {weights: [[1, 2]], alpha: [0.5]}
"""
    with pytest.raises(ValueError, match="no solution here takes 'alpha'"):
        jobs(project, text)
    found = jobs(project, text.replace(", alpha: [0.5]", ""))
    # The weights of gradnorm-static are another run's to settle.
    assert list(found) == ["heavy", "gradnorm-weights=1_2", "gradnorm-static", "dual-weights=1_2"]
    assert found["gradnorm-static"].depends_on == ("gradnorm-weights=1_2 fold=0 seed=0",)


def test_a_solution_starts_from_the_same_point_of_another(project):
    found = jobs(project, "solutions: [conflict-branch, baseline]\ngrid: {epochs: [3, 4]}\n")
    follower = found["conflict-branch-epochs=4"]
    assert follower.depends_on == ("baseline-epochs=4 fold=0 seed=0",)
    chosen = find_solution(follower.parameters["solution"])
    assert (chosen.name, chosen.branch_from) == ("conflict-branch-epochs=4", "baseline-epochs=4")


def test_parameters_of_one_solution_go_to_its_runs_alone(project):
    text = "solutions: [baseline, {from: dual, parameters: {epochs: 4}}]\nparameters: {epochs: 3}\n"
    found = jobs(project, text)
    assert [found[name].parameters["epochs"] for name in ("baseline", "dual")] == [3, 4]
    assert found["dual"].parameters["solution"] == "dual" and found["dual"].epochs == 4


def test_the_published_split_of_one_solution_has_one_fold(project):
    text = "solutions: [baseline, {name: leak, from: baseline, parameters: {split: published}}]\n"
    (project / "notebooks/demo.yaml").write_text(text + "folds: [1, 2]\n")
    labels = [job.label for job in read_spec("notebooks/demo.yaml").runs]
    assert labels == ["baseline fold=1 seed=0", "baseline fold=2 seed=0", "leak fold=1 seed=0"]


def test_a_finished_run_is_compared_with_its_own_parameters(project):
    text = "solutions: [{from: gradnorm, grid: {alpha: [0.5]}, parameters: {epochs: 3}}]\n"
    job = jobs(project, text)["gradnorm-alpha=0.5"]
    folder = project / job.folder
    folder.mkdir(parents=True)
    made = {**job.parameters, "solution": dataclasses.asdict(find_solution(job.parameters["solution"]))}
    made |= {"classes": ["AR"], "views": []}
    del made["solution"]["width"]  # a run from before that field
    (folder / "config.json").write_text(json.dumps(made))
    (folder / "metrics.json").write_text('{"test": {}, "cost": {}}')
    assert list(read_spec("notebooks/demo.yaml").complete) == [job.label]
    with pytest.raises(ValueError, match="was run with epochs = 3, and now 4 is asked for"):
        jobs(project, text.replace("epochs: 3", "epochs: 4"))


def test_a_study_does_not_go_on_over_runs_of_other_data(project, monkeypatch):
    job = jobs(project, "solutions: [baseline]\n")["baseline"]
    folder = project / job.folder
    folder.mkdir(parents=True)
    made = {**job.parameters, "solution": dataclasses.asdict(find_solution("baseline"))}
    for name, content in (
        ("config", made | {"classes": ["AR"], "views": []}),
        ("metrics", {"test": {}, "cost": {}}),
        ("environment", {"data_fingerprint": "old"}),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))
    spec = read_spec("notebooks/demo.yaml")
    assert list(spec.complete) == [job.label]
    for fingerprint in ("old", "new"):
        found = SimpleNamespace(fingerprint=fingerprint)
        monkeypatch.setattr(dataset, "read_dataset", lambda data, found=found: found)
        if fingerprint == "old":
            check_data(spec)
        else:
            with pytest.raises(ValueError, match="baseline/fold=0/seed=0 was run on other data than phantom"):
                check_data(spec)


def test_a_checkpoint_fits_one_width(project):
    (project / "start.pt").touch()
    text = "solutions: [baseline, {name: half, width: 0.5}]\nparameters: {pretrained: start.pt}\n"
    with pytest.raises(
        ValueError, match=r"line 1: 'half' has width 0.5, which 'start.pt' does not fit: leave it out"
    ):
        jobs(project, text)
    found = jobs(project, text.replace("0.5}", "0.5, parameters: {pretrained: ''}}"))
    assert found["half"].parameters["pretrained"] == ""
    assert found["baseline"].parameters["pretrained"] == "start.pt"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "solutions:\n- {from: gradnorm, grid: {alpa: [1.0]}}\n",
            "line 2: solutions[0].grid.alpa: unknown key 'alpa' here (did you mean 'alpha'?)",
        ),
        ("solutions: [gradnorm]\ngrid: {alpha: 1.0}\n", "line 2: grid.alpha: expected list, got 1.0"),
        (
            "solutions: [gradnorm]\ngrid:\n  alpha: [high]\n",
            "line 3: grid.alpha[0]: expected number, got 'high'",
        ),
        ("solutions: [gradnorm]\ngrid: {alpha: [1.0, 1.0]}\n", "give each value once"),
        ("solutions: [gradnorm]\ngrid: {seed: [1]}\n", "line 2: grid.seed: 'seed' is set by the study"),
        ("solutions: [gradnorm]\ngrid: [alpha]\n", "line 2: grid: expected dictionary, got ['alpha']"),
        (
            "solutions: [gradnorm]\ngrid: {branch: [p3, p9]}\n",
            "line 2: grid.branch[1]: unknown 'p9'; known: input",
        ),
        (
            "solutions: [{from: gradnorm, branch: p3, grid: {branch: [p4]}}]\n",
            "line 1: 'branch' has a value beside these; leave one out",
        ),
        (
            "solutions: [{from: gradnorm}]\n",
            "line 1: solutions[0]: solution {'from': 'gradnorm'}: give it a 'name'",
        ),
        (
            "solutions: [{grid: {alpha: [1.0]}}]\n",
            "line 1: solutions[0]: solution {'grid': {'alpha': [1.0]}}: give it a 'name'",
        ),
        ("solutions: [{name: 3}]\n", "line 1: solutions[0].name: solution 3: take letters"),
        (
            "solutions:\n- dual\n- {from: dual, parameters: {epochs: 3}}\n",
            "solution 'dual' is given twice; name one differently",
        ),
        (
            "solutions:\n- from: dual\n  parameters:\n    epoch: 3\n",
            "line 4: solutions[0].parameters.epoch: unknown key 'epoch' here (did you mean 'epochs'?)",
        ),
        (
            "solutions:\n- from: dual\n  parameters: {fold: 3}\n",
            "line 3: solutions[0].parameters.fold: 'fold' is set by the study",
        ),
        (
            "solutions: [{from: dual, parameters: {split: publishd}}]\n",
            "line 1: solutions[0].parameters.split: unknown 'publishd' (did you mean 'published'?)",
        ),
        (
            "solutions: [gradnorm-static, gradnorm]\ngrid: {alpha: [0.5, 1.5]}\n",
            "line 1: weights_from is 'gradnorm', which is several here: name one of gradnorm-alpha=0.5, ",
        ),
        (
            "solutions: [{name: a, weights_from: a}]\n",
            "starts from the next: a fold=0 seed=0, a fold=0 seed=0;",
        ),
        (
            "solutions: [{name: a, weights_from: b}, {name: b, branch_from: a}]\n",
            "line 1: each starts from the next: ",
        ),
        ("solutions: [{name: Pages, from: dual}]\n", "solution 'Pages': a study has a folder of this name"),
        (
            "solutions: [conflict-branch, {from: baseline, parameters: {split: published}}]\nfolds: [0, 1]\n",
            "'conflict-branch fold=1 seed=0' starts from 'baseline fold=1 seed=0', which is no run",
        ),
    ],
)
def test_a_mistake_is_one_line(project, capsys, text, expected):
    (project / "notebooks/demo.yaml").write_text(text)
    assert main(["study", "notebooks/demo.yaml"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.startswith("gradlib: notebooks/demo.yaml")
    assert expected in line


@pytest.mark.parametrize("path", [*NOTEBOOKS.glob("*.yaml")], ids=lambda path: path.stem)
def test_the_projects_own_studies_compare_with_the_specialists(path, tmp_path, monkeypatch):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns("figures"))
    for name in re.findall(r"(?:data|pretrained): (data/\S+)", path.read_text()):  # no part of the project
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    spec = read_spec(f"notebooks/{path.name}")
    assert {job.solution for job in spec.runs} >= {"detection-only", "classification-only", "baseline"}
