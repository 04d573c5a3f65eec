"""The explorers of trainings answer every control with another figure, and say what they cannot show."""

import numpy as np
import pytest

from gradlib.explore import training
from gradlib.runs.read import StudyResults


def test_runs_answer_every_control(study, moves):
    explorer = training.explore_runs(study)
    assert "6 of 6 runs" in explorer.note.value  # virtual solutions have nothing to follow
    for show in list(training.VIEWS)[1:]:
        moves(explorer, "show", show)
    moves(explorer, "show", "losses by step")
    moves(explorer, "smooth", 0.5)
    moves(explorer, "log", True)
    moves(explorer, "solutions", ("gradnorm",))
    assert "2 of 6 runs" in explorer.note.value
    moves(explorer, "seeds", (1,), ())
    assert "0 of 6 runs" in explorer.note.value


def test_conflicts_answer_every_control_and_name_the_stages(study, moves):
    explorer = training.explore_conflicts(study)
    steps = explorer.controls["step"].options
    moves(explorer, "step", *steps[1:])
    moves(explorer, "kind", "norm", "conv")
    moves(explorer, "run", ("gradnorm", 0, 1))
    at = steps[-1]
    probes = study.probes[study.probes["step"] == at].query("solution == 'gradnorm' and seed == 1")
    fights = probes[(probes["kind"] == "conv") & (probes["cosine"] < 0)]["stage"]
    says = f"conflict in {', '.join(fights)}" if len(fights) else "no stage in conflict"
    assert f"Step {at}, epoch 2: {says}." in explorer.note.value
    assert "the 16 frames it took" in explorer.note.value


def test_a_click_into_the_map_of_conflicts_is_its_step(study):
    explorer = training.explore_conflicts(study)
    steps, drawn = explorer.controls["step"].options, explorer._drawn
    for place, at in reversed(list(enumerate(steps))):
        # At half the size that it has as a file, as in a narrow window; rows count from the top.
        across, up = drawn.axes[0].transData.transform((place + 0.3, 1)) / 2
        wide, high = drawn.bbox.size / 2
        size = {"boundingRectWidth": wide, "boundingRectHeight": high}
        explorer._on_click({"relativeX": across, "relativeY": high - up, **size})
        assert explorer.controls["step"].value == at
        assert f"Step {at}, " in explorer.note.value
        explorer._on_click({"relativeX": wide - 1, "relativeY": 1, **size})  # outside of the map
        assert explorer.controls["step"].value == at


def test_conflicts_without_the_data_say_so(study, monkeypatch):
    monkeypatch.setattr(training, "read_dataset", lambda path: (_ for _ in ()).throw(FileNotFoundError(path)))
    note = training.explore_conflicts(study).note.value
    assert "The frames it took are not shown: the data that the study names is not on this" in note


def test_nothing_shared_is_nothing_to_explore(study):
    dual = study.runs["solution"] == "dual"
    alone = StudyResults(**{**vars(study), "runs": study.runs[dual], "probes": study.probes[:0],
                          "steps": study.steps[study.steps["solution"] == "dual"]})  # fmt: skip
    with pytest.raises(ValueError, match="no gradient to compare"):
        training.explore_conflicts(alone)
    with pytest.raises(ValueError, match="in none both tasks share a layer"):
        training.what_if(alone)


def test_a_run_replayed_with_its_own_settings_is_that_run(study):
    steps = study.steps.query("solution == 'gradnorm' and seed == 0")
    again = training.replay_gradnorm(steps, (1.0, 1.0), 1.5)
    for column in ("weight_detection", "weight_classification", "share_detection"):
        assert np.allclose(again[column], steps[column], rtol=0, atol=1e-9)
    other = training.replay_gradnorm(steps, (1.0, 1.0), 0.0)
    assert not np.allclose(other["weight_detection"], steps["weight_detection"])


def test_what_if_answers_every_control(study, moves):
    explorer = training.what_if(study)
    assert "the run had no GradNorm" in explorer.note.value
    moves(explorer, "run", ("gradnorm", 0, 0))
    assert "the run had alpha 1.5" in explorer.note.value
    moves(explorer, "alpha", 0.0, 3.0)
    moves(explorer, "start", 0.1)
