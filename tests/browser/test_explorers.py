"""The explorers and the training to watch, used as a person uses them; every answer is another picture."""

import json
import os
import re
import subprocess
import sys
from itertools import cycle, islice
from statistics import median

from lab import pictures_of

from gradlib.study import pages

RUNS, CONFLICTS, WHAT_IF, DETECTIONS = (
    f"explore.{name}" for name in ("explore_runs", "explore_conflicts", "what_if", "explore_detections")
)
TRAIN = "explore.train("
OFTEN = {"smoothing", "step", "alpha", "frame"}  # one of each explorer: moved 6 times at least
MOVES = 2 * int(os.environ.get("GRADLIB_MOVES", 1))  # of the others: there and back


def test_the_explorers_of_50_runs_answer_each_control(fifty, opened, capsys):
    notebook = opened("02_compare", {"study": fifty.name})
    notebook.run()
    assert notebook.errors() == []

    def slid(label):  # there and back again
        return [lambda cell, by=by: notebook.slide(label, by, cell) for by in [1] * 3 + [-1] * 3]

    def typed(label, *values):  # where a step may move no box across it: from end to end
        return [lambda cell, value=value: notebook.type(label, value, cell) for value in values]

    def chosen(label, *options):
        return [lambda cell, option=option: notebook.choose(label, option, cell) for option in options]

    def ticked(label):
        return [lambda cell: notebook.tick(label, cell)]

    def ticked_seed(cell):  # seeds and folds have the same numbers
        row = notebook.output(cell).locator(".widget-hbox", has=notebook.page.get_by_text("seeds:"))
        row.locator("input").last.click()

    def pressed(*labels):
        return [lambda cell, label=label: notebook.press(label, cell) for label in labels]

    def clicked(*places):
        return [lambda cell, across=across: notebook.click(across, 0.3, cell) for across in places]

    runs = [f"{name}, fold {fold}, seed 1" for fold in range(5) for name in ("baseline", "gradnorm")]
    tested = json.loads((fifty / "gradnorm/fold=4/seed=1/predictions.json").read_text())
    patients = sorted({entry["patient"] for entry in tested})
    # Every control, from one value to another; each has another picture, or `changed` raises.
    controls = (
        (RUNS, "a solution", ticked("dual")),
        (RUNS, "a fold", ticked("4")),
        (RUNS, "a seed", [ticked_seed]),
        (RUNS, "show", chosen("show", "weights", "losses by step")),
        (RUNS, "log scale", ticked("log scale")),
        (RUNS, "smoothing", slid("smoothing")),
        (CONFLICTS, "run", chosen("run", *runs)),
        (CONFLICTS, "kind", pressed("normalisation", "convolutions")),
        (CONFLICTS, "a click", clicked(0.2, 0.25, 0.3)),
        (CONFLICTS, "step", slid("step")),
        (WHAT_IF, "run", chosen("run", *runs)),
        (WHAT_IF, "start weight", slid("start weight of detection")),
        (WHAT_IF, "alpha", slid("alpha")),
        (DETECTIONS, "run", chosen("run", "gradnorm, fold 0, seed 1", "gradnorm, fold 4, seed 1")),
        (DETECTIONS, "beside it", chosen("beside it", runs[8], "dual, fold 4, seed 1")),
        (DETECTIONS, "show", chosen("show", "misses", "nothing wrong")),
        (DETECTIONS, "jet", chosen("jet", "TR", "AR")),
        (DETECTIONS, "view", chosen("view", "A4C", "PSAX", "PLAX")),
        (DETECTIONS, "patient", chosen("patient", *patients[1:], patients[0])),
        (DETECTIONS, "frame", slid("frame")),
        (DETECTIONS, "IoU", typed("IoU", "0.95", "0.05")),
        (DETECTIONS, "confidence", typed("confidence", "0.05", "1.0")),
    )
    answers, whole = [], {"show": "all", "jet": "any", "view": "any", "patient": "any"}
    for cell, label, actions in controls:
        took = []
        for action in islice(cycle(actions), max(6, MOVES) if label in OFTEN else MOVES):
            try:
                took.append(notebook.changed(cell, lambda action=action, cell=cell: action(cell)))
            except Exception as error:
                error.add_note(f"{cell}, {label}, move {len(took) + 1}")
                raise
        if cell == DETECTIONS and label in whole:  # the next control has all frames to choose from
            notebook.choose(label, whole[label], cell)
        answers.append(f"{cell}, {label}: {median(took):.0f} ms ({len(took)})")
    # What is offered goes with the run: it is one of fold 4.
    offered = {
        label: notebook.widget(label, DETECTIONS).locator("option").all_inner_texts()
        for label in ("beside it", "patient")
    }
    assert offered["patient"] == ["any", *patients]
    assert [*dict.fromkeys(re.findall(r"fold\s(\d)", " ".join(offered["beside it"])))] == ["4"]
    assert notebook.errors() == []
    with capsys.disabled():
        print("", *answers, sep="\n")


def test_a_training_is_stopped_by_its_button_and_by_the_kernels_and_goes_on(project, opened):
    given = {"data": "small/data.yaml", "image_size": 64, "epochs": 40, "probe_every": 5, "study": "watched"}
    notebook = opened("01_solution", given)
    notebook.start()
    panel = notebook.output(TRAIN)
    for press in (lambda: notebook.press("Stop", TRAIN), notebook.interrupt):
        panel.get_by_text("left").wait_for(timeout=60_000)
        before = notebook.digest(TRAIN)
        waits = (notebook.page.wait_for_timeout(500) for _ in range(60))
        assert any(notebook.digest(TRAIN) != before for _ in waits)  # the curves are live
        press()
        notebook.rest()
        (error,) = notebook.errors()
        stopped = re.fullmatch(
            r"stopped after step (\d+) of (\d+), in .*; run this again to go on from there", error
        )
        assert 0 < int(stopped[1]) < int(stopped[2])
        notebook.start(TRAIN)
        panel.get_by_text("left").wait_for(timeout=60_000)
        went_on = re.search(r"step (\d+) of", panel.get_by_text("left").inner_text())
        # Equal where it was stopped between an epoch's last step and its validation, which comes first then.
        assert int(went_on[1]) >= int(stopped[1])
    notebook.rest()
    assert panel.get_by_text("done: ").inner_text().endswith("40 epochs") and notebook.errors() == []
    epochs = project / "runs/watched/gradnorm/fold=0/seed=0/epochs.csv"
    assert len(epochs.read_text().splitlines()) == 41


def test_what_is_saved_shows_its_figures_and_explorers_without_a_kernel(small, project, lab, page):
    # In a process of its own: Playwright has an event loop in this one, and papermill would want another.
    notebook = ["notebooks/02_compare.ipynb", "saved.ipynb", "-p", "study", small.name, "--cwd", "."]
    quiet = ["--no-progress-bar", "--log-level", "WARNING"]
    subprocess.run([sys.executable, "-m", "papermill", *notebook, *quiet], cwd=project, check=True)

    opened = lab("saved.ipynb")  # JupyterLab gives it a kernel, in which nothing has been run
    for cell in (RUNS, CONFLICTS, WHAT_IF, DETECTIONS):
        assert min(opened.figures(cell), default=0) > 0
    assert opened.errors() == []

    written = pages.write_html(project / "saved.ipynb")
    assert written.stat().st_size < 5e6
    shown = pictures_of(project / "saved.ipynb", written, page.context)
    assert len(shown) >= 16 and min(shown) > 0
