"""The study driver, on a project of small notebooks that write what a run writes."""

import concurrent.futures
import json
import subprocess
import sys
from pathlib import Path

from gradlib.__main__ import main
from gradlib.study import executor
from gradlib.study.spec import SOLUTION


def study(project: Path, text: str) -> str:
    """Write a study file; its path as one would type it."""
    (project / "notebooks/demo.yaml").write_text(text)
    return "notebooks/demo.yaml"


GOOD = "solutions: [baseline, dual, {name: late, from: gradnorm, branch: p4}]\nseeds: [0]\n"


def test_a_study_runs_everything_once(project, capsys, monkeypatch, execute_here):
    waits = []

    def wait(*arguments):
        waits.append(arguments)
        return concurrent.futures.wait(*arguments)

    monkeypatch.setattr(executor, "wait", wait)
    file = study(project, GOOD + "parameters: {epochs: 3}\n")
    assert main(["study", file]) == 0
    printed = capsys.readouterr().out
    # Once a second at most and once a run: a driver that does not sleep takes a core from the runs.
    assert len(waits) < 500
    assert "3 runs to do" in printed
    assert "analysis: runs/demo/pages/analysis.html" in printed
    metrics = list((project / "runs/demo").rglob("metrics.json"))
    assert len(metrics) == 3
    # One thread a kernel: the runs share the cores.
    assert {json.loads(path.read_text())["test"]["threads"] for path in metrics} == {1}
    assert "3 runs" in (project / "runs/demo/pages/compare.html").read_text()
    page = (project / "runs/demo/pages/analysis.html").read_text()
    assert "what was seen in en" in page
    assert "print(" not in page
    other = (project / "runs/demo/pages/analysis.zh-Hant.html").read_text()
    assert "what was seen in zh-Hant" in other and '<html lang="zh-Hant">' in other
    for notebook in (project / "runs").rglob("*.ipynb"):  # can be shared as they are
        assert str(project) not in notebook.read_text()
    assert sorted(path.name for path in project.iterdir()) == ["notebooks", "runs"]

    # One more solution: only its run is missing.
    execute_here()
    more = GOOD.replace("[baseline", "[fusion, baseline") + "parameters: {epochs: 3}\n"
    assert main(["study", study(project, more)]) == 0
    assert "1 runs to do, 3 already complete" in capsys.readouterr().out
    assert len(list((project / "runs/demo").rglob("metrics.json"))) == 4
    study(project, GOOD + "parameters: {epochs: 3}\n")

    # Again: nothing to do.
    times = {path: path.stat().st_mtime_ns for path in metrics}
    assert main(["study", file]) == 0
    assert "0 runs to do, 3 already complete" in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in metrics}

    # Other parameters: never mixed with the runs that are there.
    assert main(["study", study(project, GOOD + "parameters: {epochs: 4}\n")]) == 2
    line = capsys.readouterr().err
    assert "runs/demo/baseline/fold=0/seed=0 was run with epochs = 3, and now 4 is asked" in line
    # ... nor where a parameter goes back to the notebook's own value,
    assert main(["study", study(project, GOOD)]) == 2
    assert "epochs = 3, and now 2 is asked" in capsys.readouterr().err
    # ... or the same name stands for another solution.
    other = GOOD.replace("p4", "p3") + "parameters: {epochs: 3}\n"
    assert main(["study", study(project, other)]) == 2
    assert "runs/demo/late/fold=0/seed=0 was run with solution = " in capsys.readouterr().err


def test_a_run_waits_for_the_one_it_starts_from(project, capsys, execute_here):
    execute_here()
    # Named first, and alone on its worker: it would run first if it did not wait.
    file = study(project, "solutions: [gradnorm-static, dual, gradnorm]\n")
    assert main(["study", file]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if ": done in" in line]
    order = [line.split("] ")[1].split()[0] for line in lines if "fold=" in line]
    assert order.index("gradnorm") < order.index("gradnorm-static")
    made = {p.parts[-4]: p.stat().st_mtime for p in (project / "runs/demo").rglob("config.json")}
    assert made["gradnorm"] < made["gradnorm-static"]


def test_a_failed_run_is_named_and_kept_and_the_others_finish(project, capsys, execute_here):
    execute_here(SOLUTION)
    file = study(project, "solutions: [dual, baseline]\nparameters: {epochs: 13}\n")
    assert main(["study", file]) == 1
    printed = capsys.readouterr().out
    failed = "runs/demo/dual/fold=0/seed=0/notebook.ipynb"
    assert f"failed: {failed}: RuntimeError: step 7: inf" in printed
    assert "the loss is not finite" in (project / failed).read_text()
    assert len(list((project / "runs").rglob("metrics.json"))) == 1
    assert (project / "runs/demo/pages/analysis.html").exists()

    # Mended, only the failed one runs; a run that left metrics and then failed counts as failed.
    (project / failed).with_name("metrics.json").write_text("{}")
    notebook = project / "notebooks/01_solution.ipynb"
    notebook.write_text(notebook.read_text().replace("13, ", "14, "))
    assert main(["study", file]) == 0
    assert "1 runs to do, 1 already complete" in capsys.readouterr().out


def test_without_a_complete_run_there_is_nothing_to_compare(project, capsys, execute_here):
    execute_here()
    file = study(project, "solutions: [dual]\nparameters: {epochs: 13}\n")
    assert main(["study", file]) == 1
    assert not (project / "runs/demo/pages/compare.ipynb").exists()


def test_a_reader_that_has_seen_enough_is_no_error(project):
    command = f"{sys.executable} -m gradlib study {study(project, GOOD)} --status | true"
    done = subprocess.run(command, shell=True, cwd=project, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
