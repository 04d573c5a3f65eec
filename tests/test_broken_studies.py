"""What a study's driver, its status and its search read of a stranger: one line, and no path of theirs."""

import json

import nbformat
import optuna
import pytest

from gradlib.__main__ import main
from gradlib.study import objective, spec, trials
from gradlib.study.spec import read_spec

FOLDER = "runs/demo/dual/fold=0/seed=0"
STATE = {"status": "failed", "seconds": 1.0, "error": "", "epochs": [1, 2], "left": None}
STATUS = {
    "started": "2026-01-01T00:00:00+00:00",
    "updated": "2026-01-01T00:00:00+00:00",
    "workers": 2,
    "left": 1,
}
NOTEBOOK = nbformat.v4.new_notebook()


@pytest.fixture
def file(project):
    path = project / "notebooks/demo.yaml"
    path.write_text("solutions: [dual]\n")
    return project, str(path)


def refused(arguments, capsys) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.out == ""
    return captured.err


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "3", "null", "{", "{}" * 2, '{"jobs": []}', '{"a":' * 50_000),
        json.dumps(STATUS),
        json.dumps({**STATUS, "jobs": {}}),
        json.dumps({**STATUS, "jobs": {"x": STATE}, "updated": "soon"}),
        json.dumps({**STATUS, "jobs": {"x": STATE}, "left": "never"}),
        json.dumps({**STATUS, "jobs": {"x": {**STATE, "epochs": 3}}}),
        json.dumps({**STATUS, "jobs": {"x": {**STATE, "seconds": "long"}}}),
        json.dumps({**STATUS, "jobs": {"x": {**STATE, "error": 3}}}),
        json.dumps({**STATUS, "jobs": {"x": 3}}),
    ],
)
def test_a_status_that_is_none_is_one_line(content, file, capsys):
    project, path = file
    (project / "runs/demo").mkdir(parents=True)
    (project / "runs/demo/status.json").write_text(content)
    assert "status.json: " in refused(["study", path, "--status"], capsys)


def test_a_status_does_not_control_the_terminal(file, capsys):
    project, path = file
    (project / "runs/demo").mkdir(parents=True)
    state = {**STATE, "error": "\x1b[2J\u202eevil\nline"}
    jobs = {"dual fold=0 seed=0": state}
    (project / "runs/demo/status.json").write_text(json.dumps({**STATUS, "jobs": jobs}))
    assert main(["study", path, "--status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines) and any("evil\ufffdline" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("config.json", "", "config.json: is not valid JSON"),
        ("config.json", "{}", "config.json: solution is None, which is none"),
        ("config.json", None, "config.json: not found"),
        ("metrics.json", "{}", "metrics.json: test is None"),
        (
            "metrics.json",
            '{"test": {}, "cost": {"seconds": "7"}}',
            "seconds of cost is '7', which is no number",
        ),
        ("notebook.ipynb", "", "notebook.ipynb: is no notebook"),
        ("notebook.ipynb", "[]", "notebook.ipynb: is no notebook"),
        ("notebook.ipynb", "[" * 100_000, "notebook.ipynb: is no notebook"),
        (
            "notebook.ipynb",
            '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 3}',
            "is no notebook",
        ),
        ("notebook.ipynb", b"\xff\xfe", "notebook.ipynb, line 1: is no UTF-8"),
    ],
)
def test_a_broken_run_stops_the_study_before_it_starts(name, content, expected, file, capsys):
    project, path = file
    (project / FOLDER).mkdir(parents=True)
    (project / FOLDER / "config.json").write_text(
        json.dumps({"solution": {"name": "dual", "branch": "input"}})
    )
    (project / FOLDER / "metrics.json").write_text('{"test": {}, "cost": {}}')
    assert list(read_spec(path).complete) == ["dual fold=0 seed=0"]
    if content is None:
        (project / FOLDER / name).unlink()
    else:
        (project / FOLDER / name).write_bytes(content.encode() if isinstance(content, str) else content)
    line = refused(["study", path], capsys)
    assert expected in line and ("remove" in line or "save it as UTF-8" in line)


def test_a_notebook_may_say_anything_of_itself(tmp_path):
    for metadata in ({"papermill": []}, {"papermill": "exception"}, {"papermill": {"exception": None}}, {}):
        notebook = {"nbformat": 4, "nbformat_minor": 4, "metadata": metadata, "cells": []}
        (tmp_path / "notebook.ipynb").write_text(json.dumps(notebook))
        assert not spec.ends_in_error(tmp_path / "notebook.ipynb")


def test_a_validation_that_is_no_table_is_one_line(tmp_path):
    (tmp_path / "epochs.csv").write_text("epoch,map50\n0,high\n")
    with pytest.raises(ValueError, match=r"epochs\.csv: row 1: map50 is 'high', not a number"):
        objective.validation(tmp_path)


# --- a search ---

ASKED = {"solution": {"name": "gradnorm"}, "objective": "map50", "folds": [0], "seeds": [0]}
ASKED["space"] = {"alpha": {"low": 0.0, "high": 3.0, "step": None, "log": False}, "branch": ["p3", "p4"]}


@pytest.fixture
def search(tmp_path):
    """The folder of a search with one complete trial."""
    (tmp_path / trials.ASKED).write_text(json.dumps(ASKED))
    with trials.quiet():
        study = optuna.create_study(
            study_name="search", storage=trials._storage(tmp_path), direction="maximize"
        )
    trial = study.ask({"alpha": optuna.distributions.FloatDistribution(0, 3)})
    study.tell(trial, 0.5)
    return tmp_path


def test_a_search_is_read(search):
    assert len(trials.load(search).trials) == 1 and trials.asked(search) == ASKED


@pytest.mark.parametrize(
    "lines",
    [
        b"nonsense\n",
        b"{}\n",
        b"\x80\x05\x95\n",  # the start of a pickle
        b"[" * 100_000 + b"\n" * 2,
    ],
)
def test_a_journal_that_is_none_is_one_line(lines, search):
    with (search / "journal.log").open("ab") as file:
        file.write(lines * 2)
    with pytest.raises(
        ValueError, match=r"journal\.log: is no journal of this search, or damaged \("
    ) as caught:
        trials.load(search)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../../../canary", "/tmp/canary", "trial-", "baseline", 3])
def test_a_trial_is_not_called_what_leads_elsewhere(name, search):
    with trials.quiet():
        study = optuna.load_study(study_name="search", storage=trials._storage(search))
    study.enqueue_trial({"alpha": 1.0}, user_attrs={"name": name})
    with pytest.raises(ValueError, match="is no journal of this search"):
        trials.load(search)


@pytest.mark.parametrize("params", [{"os": 1.0}, {"branch": "$(touch canary)"}])
def test_a_trial_has_values_of_the_space_only(params, search):
    with trials.quiet():
        study = optuna.load_study(study_name="search", storage=trials._storage(search))
    space = {name: optuna.distributions.CategoricalDistribution([value]) for name, value in params.items()}
    study.ask(space)
    with pytest.raises(ValueError, match="is no journal of this search"):
        trials.load(search)


@pytest.mark.parametrize(
    "changed",
    [
        *(
            {"objective": "__class__"},
            {"space": []},
            {"space": {"a b": [1]}},
            {"space": {"alpha": {"low": 0}}},
        ),
        *(
            {"solution": None},
            {"folds": None, "solution": {}},
            {"space": {"alpha": {**ASKED["space"]["alpha"], "low": "x"}}},
        ),
    ],
)
def test_what_was_asked_for_is_read_as_a_strangers(changed, search):
    (search / trials.ASKED).write_text(json.dumps({**ASKED, **changed}))
    with pytest.raises(ValueError, match=r"search\.json: does not say what a search was asked for; remove"):
        trials.asked(search)


def test_what_a_search_found_is_text(search):
    with trials.quiet():
        study = optuna.load_study(study_name="search", storage=trials._storage(search))
    hostile = {
        **ASKED,
        "solution": {"name": "<script>", "description": "```\n<img src=x onerror=alert(1)>\n```"},
    }
    said = trials.findings(study, hostile)
    fence = said[said.index("\n\n") + 2 :].split("yaml\n")[0]
    assert set(fence) == {"`"} and said.count(fence) == 2 and said.endswith(fence)
    assert "&lt;script&gt;" in trials.asked_says(hostile)
