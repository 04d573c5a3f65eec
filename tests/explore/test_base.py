"""Controls, figure and note of an explorer: what moves redraws, an error is shown, a name is drawn."""

import json
import threading
import time

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from gradlib.explore import detections, training
from gradlib.explore.base import NOTE, Checkboxes, Explorer, choice, set_options, slider
from gradlib.plots import language
from gradlib.runs.read import StudyResults


def test_boxes_are_ticked_one_by_one():
    ticks = Checkboxes("folds", [0, 1, 2])
    assert ticks.value == (0, 1, 2)
    ticks.children[2].value = False  # after the label and fold 0
    assert ticks.value == (0, 2)


def test_controls_that_move_at_once_in_two_threads_are_both_drawn(study):
    # A widget's first move is heard of in the main thread, while another's may be drawn in a thread.
    begun = threading.Event()

    def draw(figure, alpha, log):
        begun.set()
        time.sleep(0.2)
        return f"alpha {alpha:g}, log {log}"

    controls = {"alpha": slider("alpha", 1.5, 0, 3, 0.5), "log": ipywidgets.Checkbox(False)}
    explorer = Explorer(study, controls, draw)
    begun.clear()
    thread = threading.Thread(target=setattr, args=(controls["alpha"], "value", 2.0))
    thread.start()
    begun.wait()
    controls["log"].value = True
    thread.join()
    assert "alpha 2, log True" in explorer.note.value


def test_a_control_that_is_moved_while_it_is_drawn_is_not_drawn_for_that(study):
    drawn = []

    def draw(figure, alpha):
        drawn.append(alpha)
        controls["alpha"].max = 2.0
        return ""

    controls = {"alpha": slider("alpha", 1.5, 0, 3, 0.5)}
    Explorer(study, controls, draw)
    controls["alpha"].max = 3.0
    controls["alpha"].value = 2.5
    assert drawn == [1.5, 2.5] and controls["alpha"].value == 2.0


def test_new_options_keep_the_chosen_value_where_they_have_it():
    runs = choice("run", [("none", ()), ("a, fold 0", ("a", 0)), ("b, fold 0", ("b", 0))])
    runs.value = ("b", 0)
    heard = []
    runs.observe(lambda change: heard.append(change["new"]), "value")
    assert set_options(runs, runs.options, ("b", 0)) == ("b", 0) and heard == []
    assert set_options(runs, [("none", ()), ("b, fold 1", ("b", 1))], ("b", 1)) == ("b", 1) == runs.value
    assert set_options(runs, [("none", ()), ("a, fold 2", ("a", 2))], ("b", 2)) == () == runs.value
    names = choice("patient", ["any", "p", "q"])
    names.value = "q"
    assert set_options(names, ["any", "q"], "q") == "q" and set_options(names, ["any", "r"], "q") == "any"


def test_an_error_is_said_where_it_is_seen_and_the_last_figure_stays(study):
    explorer = training.what_if(study)
    before = explorer.figure.value
    explorer.controls["alpha"].max = float("inf")
    explorer._draw = lambda figure, **values: 1 / 0
    explorer.controls["alpha"].value = 2.0
    assert explorer.note.value == NOTE.format("<b>ZeroDivisionError</b>: division by zero")
    assert explorer.figure.value == before


@pytest.mark.parametrize(
    "families", [language.FAMILIES, ("A Font That Is Nowhere",)], ids=["font", "no font"]
)
def test_chinese_names_are_drawn_or_the_note_says_which_font_is_missing(study, monkeypatch, families):
    config = StudyResults.config
    chinese = {"classes": ["逆流"] * 4, "views": ["切面"] * 4}
    monkeypatch.setattr(StudyResults, "config", lambda self, *run: config(self, *run) | chinese)
    monkeypatch.setattr(language, "FAMILIES", families)
    with plt.rc_context({"font.family": ["sans-serif"]}):
        for explore in (training.explore_conflicts, detections.explore_detections):
            note = explore(study).note.value
            assert "Warning" not in note  # as which a missing letter would be an error here
            assert ("fonts-noto-cjk" in note) == (language.cjk_font() is None)


def test_a_reader_without_a_kernel_sees_the_figure(study):
    explorer = training.what_if(study)
    bundle = explorer._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    assert bundle["image/png"] == explorer.figure.value and bundle["image/png"].startswith(b"\x89PNG")
    json.dumps(explorer.get_state(["layout"]), default=str)
