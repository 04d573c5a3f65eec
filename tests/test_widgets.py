"""Every explorer answers each of its controls with another figure, and says what it cannot show."""

import json
import threading
import time

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from lightning_fabric import seed_everything

from gradlib.config import SOLUTIONS, Training
from gradlib.data import phantom, tables
from gradlib.evidence import controls, diagnostics, predictions
from gradlib.explore import panels
from gradlib.explore.base import NOTE, Explorer, Ticks, choice, offer, slider
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.plots import fonts
from gradlib.runs import write
from gradlib.train import metrics, step
from gradlib.train.trainer import Trainer

NAMES = ("baseline", "gradnorm", "dual")


def trainer_of(dataset, name, seed):
    """Two epochs on small frames, with a probe every second step."""
    seed_everything(seed, verbose=False)
    parts, chosen = tables.split(dataset), SOLUTIONS[name]
    sets = {part: tables.FrameSet(frames, 64) for part, frames in parts.items()}
    training = Training(image_size=64, epochs=2, batch_size=8, probe_every=2, seed=seed, device="cpu")
    model = MultiTaskYOLO("n", len(dataset.classes), len(dataset.views), chosen.tasks, chosen.branch)
    made = Trainer(model, chosen, training, sets["train"], sets["valid"], dataset.classes)
    return made, parts, sets


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A study of three solutions and two seeds on a phantom, in a project of its own; its data and folder."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        path = phantom.write(folder / "set", patients=12, videos=1, frames=4, size=(96, 72))
        dataset = tables.read(path)
        for name in NAMES:
            for seed in (0, 1):
                run = write.run_folder("runs", "small", name, 0, seed)
                trainer, parts, sets = trainer_of(dataset, name, seed)
                asked = {"data": "set/data.yaml", **vars(trainer.training)}
                write.begin(run, asked, SOLUTIONS[name], dataset, parts)
                model, history = trainer.run()
                write.save_tables(run, history.tables())
                found, _ = step.predict(model, sets["test"], trainer.training)
                for entry in found[seed:]:  # so little training finds nothing
                    entry["detections"] = [[k, 0.8, *box] for k, *box in entry["boxes"]]
                    entry["detections"] += [[0, 0.3, 0.2, 0.2, 0.1, 0.1]]
                scores = step.evaluate(found, model.tasks, dataset.classes, 0.02)
                guess = controls.views_from_jets(parts["train"], parts["test"], len(dataset.views))
                write.finish(run, model, found, {"test": scores, "cost": {"parameters": 1}}, guess)
    return folder, dataset


@pytest.fixture
def study(project, monkeypatch):
    monkeypatch.chdir(project[0])
    return controls.with_controls(write.load("runs/small"))


def shown(explorer) -> tuple[bytes, str]:
    return explorer.figure.value, explorer.note.value


def moves(explorer, name, *values):
    """Set a control to each value; every one must change the figure."""
    for value in values:
        before = shown(explorer)
        explorer.controls[name].value = value
        assert shown(explorer)[0] != before[0], (name, value, explorer.note.value)
        assert "Error" not in explorer.note.value, explorer.note.value


def test_runs_answer_every_control(study):
    explorer = panels.explore_runs(study)
    assert "6 of 6 runs" in explorer.note.value  # virtual solutions have nothing to follow
    for show in list(panels.VIEWS)[1:]:
        moves(explorer, "show", show)
    moves(explorer, "show", "losses by step")
    moves(explorer, "smooth", 0.5)
    moves(explorer, "log", True)
    moves(explorer, "solutions", ("gradnorm",))
    assert "2 of 6 runs" in explorer.note.value
    moves(explorer, "seeds", (1,), ())
    assert "0 of 6 runs" in explorer.note.value


def test_boxes_are_ticked_one_by_one():
    ticks = Ticks("folds", [0, 1, 2])
    assert ticks.value == (0, 1, 2)
    ticks.children[2].value = False  # after the label and fold 0
    assert ticks.value == (0, 2)


def test_conflicts_answer_every_control_and_name_the_stages(study):
    explorer = panels.explore_conflicts(study)
    steps = explorer.controls["step"].options
    moves(explorer, "step", *steps[1:])
    moves(explorer, "kind", "norm", "conv")
    moves(explorer, "run", ("gradnorm", 0, 1))
    at = steps[-1]
    probes = study.probes[study.probes["step"] == at].query("solution == 'gradnorm' and seed == 1")
    fights = probes[(probes["kind"] == "conv") & (probes["cosine"] < 0)]["stage"]
    says = f"conflict in {', '.join(fights)}" if len(fights) else "no stage in conflict"
    assert f"Step {at}, epoch 2: {says}." in explorer.note.value
    assert "the 8 frames of its batch" in explorer.note.value


def test_a_click_into_the_map_of_conflicts_is_its_step(study):
    explorer = panels.explore_conflicts(study)
    steps, drawn = explorer.controls["step"].options, explorer._drawn
    for place, at in reversed(list(enumerate(steps))):
        # At half the size that it has as a file, as in a narrow window; rows count from the top.
        across, up = drawn.axes[0].transData.transform((place + 0.3, 1)) / 2
        wide, high = drawn.bbox.size / 2
        size = {"boundingRectWidth": wide, "boundingRectHeight": high}
        explorer._click({"relativeX": across, "relativeY": high - up, **size})
        assert explorer.controls["step"].value == at
        assert f"Step {at}, " in explorer.note.value
        explorer._click({"relativeX": wide - 1, "relativeY": 1, **size})  # outside of the map
        assert explorer.controls["step"].value == at


def test_conflicts_without_the_data_say_so(study, monkeypatch):
    monkeypatch.setattr(panels.dataset, "read", lambda path: (_ for _ in ()).throw(FileNotFoundError(path)))
    note = panels.explore_conflicts(study).note.value
    assert "The frames of its batch are not shown: the data that the study names is not on this" in note


def test_detections_without_the_data_are_shown_on_black(study, monkeypatch):
    monkeypatch.setattr(predictions, "project_folder", lambda: study.folder)  # where no data is
    explorer = panels.explore_detections(study)
    assert "The frame is black: the data that the study names is not on this machine." in explorer.note.value
    moves(explorer, "at", 2)


def test_nothing_shared_is_nothing_to_explore(study):
    dual = study.runs["solution"] == "dual"
    alone = write.Study(**{**vars(study), "runs": study.runs[dual], "probes": study.probes[:0],
                          "steps": study.steps[study.steps["solution"] == "dual"]})  # fmt: skip
    with pytest.raises(ValueError, match="no gradient to compare"):
        panels.explore_conflicts(alone)
    with pytest.raises(ValueError, match="in none both tasks share a layer"):
        panels.what_if(alone)


def test_detections_answer_every_control(study):
    explorer = panels.explore_detections(study)
    moves(explorer, "at", 2)
    moves(explorer, "confidence", 0.5, 0.9, 0.2)
    assert explorer.controls["at"].max > 2
    moves(explorer, "beside", ("dual", 0, 1), ())
    moves(explorer, "run", ("gradnorm", 0, 1))
    moves(explorer, "only", "misses")
    assert "Frame 1 of 1 (9 in the test part)" in explorer.note.value  # the frame that `project` left alone
    explorer.controls["only"].value = "all"
    moves(explorer, "patient", explorer.controls["patient"].options[-1])
    assert " (9 in the test part)" in explorer.note.value and "of 9 (" not in explorer.note.value


def test_what_became_of_the_chosen_frames_is_counted(study):
    explorer = panels.explore_detections(study)
    explorer.controls["run"].value = ("gradnorm", 0, 0)  # finds every jet at 0.8, and one too many at 0.3
    entries = study.predictions("gradnorm", 0, 0)
    jets = sum(len(entry["boxes"]) for entry in entries)
    wrong = sum(entry["view"] != np.argmax(entry["view_scores"]) for entry in entries)
    for confidence, too_many in ((0.5, 0), (0.2, 9)):
        explorer.controls["confidence"].value = confidence
        said = f"In these 9 frames: {jets} of {jets} jets found, {too_many} wrong detections; "
        assert said + f"{wrong} of 9 views wrong." in explorer.note.value
    explorer.controls["patient"].value = explorer.controls["patient"].options[1]
    assert "In these 9 frames" not in explorer.note.value


def test_a_run_that_does_not_detect_misses_nothing(study, monkeypatch):
    config = write.Study.config
    solution = {"solution": {"tasks": ["classification"]}}
    monkeypatch.setattr(write.Study, "config", lambda self, *run: config(self, *run) | solution)
    explorer = panels.explore_detections(study)
    assert "jets found" not in explorer.note.value and "views wrong" in explorer.note.value
    explorer.controls["only"].value = "misses"
    assert explorer.note.value.startswith(NOTE.partition("{")[0] + "None of 9 ")


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


def test_what_is_offered_anew_keeps_what_is_chosen_where_it_can():
    runs = choice("run", [("none", ()), ("a, fold 0", ("a", 0)), ("b, fold 0", ("b", 0))])
    runs.value = ("b", 0)
    heard = []
    runs.observe(lambda change: heard.append(change["new"]), "value")
    assert offer(runs, runs.options, ("b", 0)) == ("b", 0) and heard == []
    assert offer(runs, [("none", ()), ("b, fold 1", ("b", 1))], ("b", 1)) == ("b", 1) == runs.value
    assert offer(runs, [("none", ()), ("a, fold 2", ("a", 2))], ("b", 2)) == () == runs.value
    names = choice("patient", ["any", "p", "q"], "q")
    assert offer(names, ["any", "q"], "q") == "q" and offer(names, ["any", "r"], "q") == "any"


def test_detections_that_do_not_exist_are_said_to_be_none(study):
    explorer = panels.explore_detections(study)
    explorer.controls["confidence"].value = 1.0
    explorer.controls["only"].value = "false positives"
    assert explorer.note.value.startswith(NOTE.partition("{")[0] + "None of ")


def test_outcomes_are_counted_by_hand():
    # The better detection takes the box; the second one of the same place has none left.
    box, beside = [0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]
    entry = {
        "image": "a", "patient": "p", "view": 1, "view_scores": [0.9, 0.1],
        "boxes": [[0, *box], [1, *beside]], "detections": [[0, 0.4, *box], [0, 0.8, *box]],
    }  # fmt: skip
    detections, taken = match = metrics.match(entry, np.array([0.5]))
    assert detections[:, 1].tolist() == [0.8, 0.4] and taken[:, 0].tolist() == [0, -1]
    rows = pd.concat([predictions.outcomes([entry], [match], c) for c in (0.3, 0.5, 0.9)])
    assert rows["false_positives"].tolist() == [1, 0, 0]
    assert rows["misses"].tolist() == [1, 1, 2]
    assert rows["classes"].tolist() == [{0, 1}] * 3 and rows["wrong_view"].all()


def test_a_run_replayed_with_its_own_settings_is_that_run(study):
    steps = study.steps.query("solution == 'gradnorm' and seed == 0")
    again = diagnostics.replay(steps, (1.0, 1.0), 1.5)
    for column in ("weight_detection", "weight_classification", "share_detection"):
        assert np.allclose(again[column], steps[column], rtol=0, atol=1e-9)
    other = diagnostics.replay(steps, (1.0, 1.0), 0.0)
    assert not np.allclose(other["weight_detection"], steps["weight_detection"])


def test_what_if_answers_every_control(study):
    explorer = panels.what_if(study)
    assert "the run had no GradNorm" in explorer.note.value
    moves(explorer, "run", ("gradnorm", 0, 0))
    assert "the run had alpha 1.5" in explorer.note.value
    moves(explorer, "alpha", 0.0, 3.0)
    moves(explorer, "start", 0.1)


def test_an_error_is_said_where_it_is_seen_and_the_last_figure_stays(study):
    explorer = panels.what_if(study)
    before = explorer.figure.value
    explorer.controls["alpha"].max = float("inf")
    explorer._draw = lambda figure, **values: 1 / 0
    explorer.controls["alpha"].value = 2.0
    assert explorer.note.value == NOTE.format("<b>ZeroDivisionError</b>: division by zero")
    assert explorer.figure.value == before


@pytest.mark.parametrize("families", [fonts.FAMILIES, ("A Font That Is Nowhere",)], ids=["font", "no font"])
def test_chinese_names_are_drawn_or_the_note_says_which_font_is_missing(study, monkeypatch, families):
    config = write.Study.config
    chinese = {"classes": ["逆流"] * 4, "views": ["切面"] * 4}
    monkeypatch.setattr(write.Study, "config", lambda self, *run: config(self, *run) | chinese)
    monkeypatch.setattr(fonts, "FAMILIES", families)
    with plt.rc_context({"font.family": ["sans-serif"]}):
        for explore in (panels.explore_conflicts, panels.explore_detections):
            note = explore(study).note.value
            assert "Warning" not in note  # as which a missing letter would be an error here
            assert ("fonts-noto-cjk" in note) == bool(fonts.lacks("zh-Hant"))


def test_a_reader_without_a_kernel_sees_the_figure(study):
    explorer = panels.what_if(study)
    bundle = explorer._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    assert bundle["image/png"] == explorer.figure.value and bundle["image/png"].startswith(b"\x89PNG")
    json.dumps(explorer.get_state(["layout"]), default=str)
