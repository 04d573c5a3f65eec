"""The explorer of test frames answers every control with another figure, and counts what it shows."""

import numpy as np
import pandas as pd

from gradlib.data import dataset
from gradlib.explore import detections
from gradlib.explore.base import NOTE
from gradlib.explore.detections import outcomes
from gradlib.runs.read import StudyResults
from gradlib.train import metrics


def test_detections_without_the_data_are_shown_on_black(study, monkeypatch, moves):
    monkeypatch.setattr(dataset, "project_folder", lambda: study.folder)  # where no data is
    explorer = detections.explore_detections(study)
    assert "The frame is black: the data that the study names is not on this machine." in explorer.note.value
    moves(explorer, "at", 2)


def test_detections_answer_every_control(study, moves):
    explorer = detections.explore_detections(study)
    moves(explorer, "at", 2)
    moves(explorer, "confidence", 0.5, 0.9, 0.2)
    assert explorer.controls["at"].max > 2
    moves(explorer, "beside", ("dual", 0, 1), ())
    moves(explorer, "run", ("gradnorm", 0, 1))
    moves(explorer, "only", "misses")
    n = len(study.predictions("gradnorm", 0, 1))
    assert (
        f"Frame 1 of 1 ({n} in the test part)" in explorer.note.value
    )  # the one that `train_run` left alone
    explorer.controls["only"].value = "all"
    others = [name for name in explorer.controls["patient"].options[1:] if name not in explorer.note.value]
    moves(explorer, "patient", others[0])
    assert f" ({n} in the test part)" in explorer.note.value and f"of {n} (" not in explorer.note.value


def test_what_became_of_the_chosen_frames_is_counted(study):
    explorer = detections.explore_detections(study)
    explorer.controls["run"].value = ("gradnorm", 0, 0)  # finds every jet at 0.8, and one too many at 0.3
    entries = study.predictions("gradnorm", 0, 0)
    jets = sum(len(entry["boxes"]) for entry in entries)
    wrong = sum(entry["view"] != np.argmax(entry["view_scores"]) for entry in entries)
    for confidence, too_many in ((0.5, 0), (0.2, len(entries))):
        explorer.controls["confidence"].value = confidence
        said = f"In these {len(entries)} frames: {jets} of {jets} jets found, {too_many} wrong detections; "
        assert said + f"{wrong} of {len(entries)} views wrong." in explorer.note.value
    explorer.controls["patient"].value = explorer.controls["patient"].options[1]
    assert f"In these {len(entries)} frames" not in explorer.note.value


def test_a_run_that_does_not_detect_misses_nothing(study, monkeypatch):
    config = StudyResults.config
    solution = {"solution": {"tasks": ["classification"]}}
    monkeypatch.setattr(StudyResults, "config", lambda self, *run: config(self, *run) | solution)
    explorer = detections.explore_detections(study)
    assert "jets found" not in explorer.note.value and "views wrong" in explorer.note.value
    explorer.controls["only"].value = "misses"
    n = len(study.predictions("gradnorm", 0, 0))
    assert explorer.note.value.startswith(NOTE.partition("{")[0] + f"None of {n} ")


def test_detections_that_do_not_exist_are_said_to_be_none(study):
    explorer = detections.explore_detections(study)
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
    rows = pd.concat([outcomes([entry], [match], c) for c in (0.3, 0.5, 0.9)])
    assert rows["false_positives"].tolist() == [1, 0, 0]
    assert rows["misses"].tolist() == [1, 1, 2]
    assert rows["classes"].tolist() == [{0, 1}] * 3 and rows["wrong_view"].all()
