"""A study that adds seeds until its intervals are narrow, or its budget is spent."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gradlib.__main__ import main
from gradlib.evidence.intervals import Evidence
from gradlib.runs.read import load_study
from gradlib.study import driver
from gradlib.study.executor import Result
from gradlib.study.spec import SOLUTION

from .test_analysis import write_run

SKILLS = {"detection-only": 0.6, "classification-only": 0.6, "baseline": 0.5, "dual": 0.6}
STUDY = f"solutions: [{', '.join(SKILLS)}]\nseeds: [0, 1]\nparameters: {{epochs: 5}}\n"


@pytest.fixture
def trained(monkeypatch):
    """The runs that were trained, by label: trainings of chance in place of notebooks. Told to `stop_at` a
    label, the study is killed there."""
    found = {"labels": [], "stop_at": "", "ended": {}}

    def run(pool, jobs, project):
        for job in jobs:
            if job.label == found["stop_at"]:
                raise KeyboardInterrupt
            if job.notebook == SOLUTION:
                fold, seed = job.parameters["fold"], job.parameters["seed"]
                chance = np.random.default_rng([seed, *job.solution.encode()]).normal(0, 0.04)
                write_run(Path("runs/demo"), job.solution, SKILLS[job.solution] + chance, fold, seed)
                found["labels"].append(job.label)
            elif "ended" in job.parameters:
                found["ended"][job.label] = job.parameters["ended"]
            yield Result(job, "done")

    monkeypatch.setattr(driver, "_run", run)
    monkeypatch.setattr(driver.pages, "write", lambda *_: [])
    return found


def start(project, text: str) -> int:
    (project / "notebooks/demo.yaml").write_text(STUDY + text)
    return main(["study", "notebooks/demo.yaml"])


def widths() -> list[float]:
    """Of delta_m without the last round, which was added after they were narrow."""
    study = load_study(Path("runs/demo"))
    runs = study.runs[study.runs["seed"] < study.runs["seed"].max()]
    evidence = Evidence(replace(study, runs=runs))
    return [evidence.level(name, "delta_m").margin_of_error for name in ("baseline", "dual")]


def test_seeds_are_added_until_the_intervals_are_narrow(project, capsys, trained):
    assert start(project, "precision: {delta_m: 11}\nbudget: {runs: 100}\n") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "differences decided" in line]
    n_seeds = len(trained["labels"]) // 4
    assert 3 < n_seeds < 20 and len(said) == n_seeds - 1
    assert "all intervals asked for are narrow enough" in said[-1]
    assert "too wide: " in said[0] and "another round takes 4 runs, about 0:20 of training" in said[0]
    assert max(widths()) <= 11
    assert main(["study", "notebooks/demo.yaml"]) == 0  # nothing is left to do
    assert len(trained["labels"]) == 4 * n_seeds
    capsys.readouterr()
    assert main(["study", "notebooks/demo.yaml", "--status"]) == 0
    assert said[-1].partition(": ")[2] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("budget", "runs", "line"),
    [("runs: 18", 16, "18 runs"), ("minutes: 1.4", 16, "1.4 minutes"), ("runs: 4", 8, "4 runs")],
)
def test_a_budget_ends_a_study(project, capsys, trained, budget, runs, line):
    # A run is 5 s of training, a round 20 s.
    assert start(project, f"precision: {{delta_m: 0.1}}\nbudget: {{{budget}}}\n") == 0
    assert len(trained["labels"]) == runs
    ended = f"the budget of {line} is spent"
    assert ended in capsys.readouterr().out
    assert trained["ended"] == dict.fromkeys(("analysis", "analysis.zh-Hant"), ended)


def test_a_study_that_was_killed_goes_on_in_the_round_where_it_was(project, trained):
    text = "precision: {delta_m: 11}\nbudget: {runs: 100}\n"
    trained["stop_at"] = "baseline fold=0 seed=3"
    assert start(project, text) == 130
    assert trained["labels"][-1] == "classification-only fold=0 seed=3"
    trained["stop_at"] = ""
    assert start(project, text) == 0
    assert len({*trained["labels"]}) == len(trained["labels"]) and max(widths()) <= 11


def test_without_a_budget_a_precision_is_refused(project, capsys, trained):
    assert start(project, "precision: {delta_m: 5}\n") == 2
    assert "give a 'budget' of runs or minutes" in capsys.readouterr().err
    assert start(project, "precision: {speed: 5}\nbudget: {runs: 9}\n") == 2
    assert "unknown 'speed'" in capsys.readouterr().err
