"""What a study, its status and its search read as untrusted input: one line, and no path of theirs."""

import json

import nbformat
import optuna
import pytest

from gradlib.__main__ import main
from gradlib.study import objective, spec, trials
from gradlib.study.spec import read_spec

FOLDER = "runs/demo/dual/fold=0/seed=0"


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


def test_a_status_does_not_control_the_terminal(file, capsys):
    project, path = file
    (project / FOLDER).mkdir(parents=True)
    error = nbformat.v4.new_output("error", ename="E", evalue="\x1b[2J\u202eevil", traceback=[])
    cell = nbformat.v4.new_code_cell(outputs=[error])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), project / FOLDER / "notebook.ipynb")
    assert main(["study", path, "--status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines) and any("\\u202eevil" in line for line in lines)


@pytest.mark.parametrize("name", ["dual", "pages", "search"])
def test_a_study_is_not_written_through_a_link(name, file, capsys):
    project, path = file
    (project / "runs/demo").mkdir(parents=True)
    (project / "elsewhere").mkdir()
    (project / "runs/demo" / name).symlink_to(project / "elsewhere")
    assert "is outside the folder it belongs to" in refused(["study", path], capsys)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("config.json", "", "config.json: is not valid JSON"),
        ("config.json", "{}", "config.json: solution: missing"),
        ("config.json", None, "config.json: not found"),
        ("metrics.json", "{}", "metrics.json: test: missing"),
        (
            "metrics.json",
            '{"test": {}, "cost": {"seconds": "7"}}',
            "cost.seconds: expected number, got '7'",
        ),
        ("notebook.ipynb", "", "notebook.ipynb: is no notebook"),
        ("notebook.ipynb", "[]", "notebook.ipynb: is no notebook"),
        ("notebook.ipynb", "[" * 100_000, "notebook.ipynb: is no notebook"),
        (
            "notebook.ipynb",
            '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 3}',
            "is no notebook",
        ),
        ("notebook.ipynb", b"\xff\xfe", "notebook.ipynb, line 1: is not UTF-8 text"),
    ],
)
def test_a_broken_run_stops_the_study_before_it_starts(name, content, expected, file, capsys):
    project, path = file
    (project / FOLDER).mkdir(parents=True)
    (project / FOLDER / "config.json").write_text(
        json.dumps(
            {"solution": {"name": "dual", "branch": "input"}, "data": "phantom", "classes": [], "views": []}
        )
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
    with pytest.raises(ValueError, match=r"epochs\.csv: row 1: map50: expected number, got 'high'"):
        objective.curve("map50", [tmp_path], {})


# --- a search ---

ASKED = {"solution": {"name": "gradnorm"}, "objective": "map50", "folds": [0], "seeds": [0]}
ASKED["space"] = {"alpha": {"low": 0.0, "high": 3.0, "step": None, "log": False}, "branch": ["p3", "p4"]}


@pytest.fixture
def search(tmp_path):
    """The folder of a search with one complete trial."""
    (tmp_path / trials.ASKED).write_text(json.dumps(ASKED))
    study = optuna.create_study(study_name="search", storage=trials.storage(tmp_path), direction="maximize")
    trial = study.ask({"alpha": optuna.distributions.FloatDistribution(0, 3)})
    study.tell(trial, 0.5)
    return tmp_path


def test_a_search_is_read(search):
    assert len(trials.load_search(search).trials) == 1 and trials.read_asked(search) == ASKED


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
        trials.load_search(search)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("params", [{"os": 1.0}, {"branch": "$(touch canary)"}])
def test_a_trial_has_values_of_the_space_only(params, search):
    study = optuna.load_study(study_name="search", storage=trials.storage(search))
    space = {name: optuna.distributions.CategoricalDistribution([value]) for name, value in params.items()}
    study.ask(space)
    with pytest.raises(ValueError, match="is no journal of this search"):
        trials.load_search(search)


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
def test_what_was_asked_for_is_untrusted_input(changed, search):
    (search / trials.ASKED).write_text(json.dumps({**ASKED, **changed}))
    with pytest.raises(ValueError, match=r"search\.json: does not say what a search was asked for; remove"):
        trials.read_asked(search)
