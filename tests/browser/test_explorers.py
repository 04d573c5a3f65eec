"""The explorers and the training to watch, used as a person uses them; every answer is another picture."""

import re
import subprocess
import sys
from statistics import median

import nbformat

from gradlib import pages

RUNS, CONFLICTS, WHAT_IF, DETECTIONS = (
    f"widgets.{name}" for name in ("explore_runs", "explore_conflicts", "what_if", "explore_detections")
)
TRAIN = "live.train"


def test_the_explorers_of_50_runs_answer(fifty, opened, capsys):
    notebook = opened("02_compare", {"study": fifty.name})
    notebook.run()
    assert notebook.errors() == []

    def slide(label, cell, steps=1):
        return lambda: notebook.slide(label, steps, cell)

    def choose(label, option, cell):
        return lambda: notebook.choose(label, option, cell)

    # Every control, once: each changes the picture, or `changed` raises.
    for cell, action in (
        (RUNS, lambda: notebook.tick("dual", RUNS)),
        (RUNS, lambda: notebook.tick("log scale", RUNS)),
        (RUNS, choose("show", "weights", RUNS)),
        (RUNS, choose("show", "losses by step", RUNS)),
        (CONFLICTS, choose("run", "gradnorm, fold 1, seed 1", CONFLICTS)),
        (CONFLICTS, lambda: notebook.press("normalisation", CONFLICTS)),
        (CONFLICTS, lambda: notebook.click(0.3, 0.3, CONFLICTS)),
        (WHAT_IF, choose("run", "gradnorm, fold 1, seed 1", WHAT_IF)),
        (WHAT_IF, slide("start weight of detection", WHAT_IF, -5)),
        (DETECTIONS, choose("beside it", "dual, fold 0, seed 0", DETECTIONS)),
        (DETECTIONS, choose("run", "gradnorm, fold 0, seed 1", DETECTIONS)),
        (DETECTIONS, choose("show", "misses", DETECTIONS)),
        (DETECTIONS, slide("frame", DETECTIONS)),
        (DETECTIONS, choose("show", "wrong views", DETECTIONS)),
        (DETECTIONS, choose("show", "all", DETECTIONS)),
    ):
        notebook.changed(cell, action)
        notebook.settled(cell)
    # Its ends are far apart: a step of these may move no box across it.
    notebook.changed(DETECTIONS, slide("confidence", DETECTIONS, -60))
    notebook.settled(DETECTIONS)
    notebook.changed(DETECTIONS, slide("IoU", DETECTIONS, 9))
    notebook.settled(DETECTIONS)

    answers = {}
    for cell, label in (
        (RUNS, "smoothing"),
        (CONFLICTS, "step"),
        (WHAT_IF, "alpha"),
        (DETECTIONS, "frame"),
    ):
        took = []
        for turn in range(20):  # there and back again: `smoothing` has ten steps
            took.append(notebook.changed(cell, slide(label, cell, 1 if turn % 18 < 9 else -1)))
            notebook.settled(cell)
        answers[f"{cell}, {label}"] = took
    assert notebook.errors() == []
    with capsys.disabled():
        print()
        for name, took in answers.items():
            print(
                f"{name}: {median(took):.0f} ms (median of {len(took)}, {min(took):.0f} to {max(took):.0f})"
            )


def test_a_training_is_stopped_by_its_button_and_by_the_kernels_and_goes_on(project, opened):
    given = {"data": "small/data.yaml", "image_size": 64, "epochs": 40, "probe_every": 5, "study": "watched"}
    notebook = opened("01_solution", given)
    notebook.start()
    panel = notebook.output(TRAIN)
    for press in (lambda: notebook.press("Stop", TRAIN), notebook.interrupt):
        panel.get_by_text("left").wait_for(timeout=60_000)
        before = notebook.digest(TRAIN)
        notebook.page.wait_for_timeout(3000)
        assert notebook.digest(TRAIN) != before  # the curves are live
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

    written = pages.html(project / "saved.ipynb")
    assert written.stat().st_size < 5e6
    page = page.context.new_page()
    page.goto(written.as_uri())
    images = [output for cell in nbformat.read(project / "saved.ipynb", as_version=4).cells
              for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]  # fmt: skip
    shown = page.locator("img").evaluate_all("all => all.map(image => image.naturalWidth)")
    assert len(shown) == len(images) >= 16 and min(shown) > 0
