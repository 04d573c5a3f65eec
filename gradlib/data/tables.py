"""Tables of what is in a data set: frames, problems, parts, folds; and views guessed from the jets."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from gradlib.data.data_yaml import PARTS
from gradlib.data.dataset import Dataset, Frame
from gradlib.data.faults import Problem


def problems_table(dataset: Dataset) -> pd.DataFrame:
    """One row a problem: file, line, value, what, cure, rule."""
    table = pd.DataFrame(list(dataset.problems), columns=Problem._fields)
    return table.astype({"line": "Int64"})  # integers, though some problems have no line


def frames_table(dataset: Dataset) -> pd.DataFrame:
    """One row a frame: image (relative to the root), part, patient, video, view, boxes, classes.

    `view` is its name or None, `boxes` their number, `classes` as "AR", "AR+MR" or "none".
    """
    views = [*dataset.views, None]  # -1 = last
    rows = []
    for frame in dataset.frames:
        classes = "+".join(dataset.classes[index] for index in frame.classes) or "none"
        place = frame.name, frame.part, frame.patient, frame.video
        rows.append((*place, views[frame.view], len(frame.boxes), classes))
    return pd.DataFrame(rows, columns=["image", "part", "patient", "video", "view", "boxes", "classes"])


def class_by_view(dataset: Dataset) -> pd.DataFrame:
    """Number of boxes of each class (rows) in each view (columns, "none" where one is missing)."""
    counts = np.zeros((len(dataset.classes), len(dataset.views) + 1), int)
    for frame in dataset.frames:
        np.add.at(counts[:, frame.view], frame.boxes[:, 0].astype(int), 1)  # -1 = last column
    missing = "none"
    while missing in dataset.views:
        missing = f"({missing})"
    has_missing = any(frame.view < 0 for frame in dataset.frames)
    table = pd.DataFrame(counts, list(dataset.classes), [*dataset.views, missing])
    return table.iloc[:, : len(dataset.views) + has_missing].rename_axis(index="class", columns="view")


def parts_table(dataset: Dataset) -> pd.DataFrame:
    """One row a published part: its frames, patients, videos and boxes, and how far it repeats training.

    patients_in_train; frames_patient_in_train and frames_video_in_train, whose patient or video is also in
    the training part; patient_share and video_share: those frames over frames.
    """
    table = frames_table(dataset)
    table["video"] = list(zip(table["patient"], table["video"], strict=True))
    train = table[table["part"] == "train"]
    for key in ("patient", "video"):
        table[f"known_{key}"] = table[key].where(table[key].isin(train[key]))
    parts = table.groupby("part").agg(
        frames=("part", "size"),
        patients=("patient", "nunique"),
        videos=("video", "nunique"),
        boxes=("boxes", "sum"),
        patients_in_train=("known_patient", "nunique"),
        frames_patient_in_train=("known_patient", "count"),
        frames_video_in_train=("known_video", "count"),
    )
    parts = parts.reindex(list(PARTS), fill_value=0)
    shares = parts[["frames_patient_in_train", "frames_video_in_train"]].div(parts["frames"], axis=0)
    return parts.assign(patient_share=shares.iloc[:, 0], video_share=shares.iloc[:, 1])


def view_changes(dataset: Dataset) -> pd.DataFrame:
    """The videos whose frames do not all have the same view: one row each, patient, video, and the
    number of frames of each view in each part, as `train view 1`.

    A video is rarely of two views: a change is a label to look at, above all where it follows the
    parts, for then a model is trained on one name and tested on another.
    """
    table = frames_table(dataset).dropna(subset=["view"])
    table = table[table.groupby(["patient", "video"])["view"].transform("nunique") > 1]
    counts = pd.crosstab([table["patient"], table["video"]], table["part"] + " " + table["view"])
    columns = [f"{part} {view}" for part in PARTS for view in dataset.views]
    return counts[[name for name in columns if name in counts]].rename_axis(columns=None)


def folds_table(dataset: Dataset, folds: int = 5) -> pd.DataFrame:
    """One row a fold's test part: `frames`, `patients`, and under `boxes` those of each class."""
    rows = []
    for fold in range(folds):
        frames = dataset.split("patients", fold, folds)["test"]
        classes = np.concatenate([frame.boxes[:, 0] for frame in frames]).astype(int)
        boxes = np.bincount(classes, minlength=len(dataset.classes))
        rows.append([len(frames), len({frame.patient for frame in frames}), *boxes])
    columns = [("frames", ""), ("patients", ""), *(("boxes", name) for name in dataset.classes)]
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(columns)).rename_axis("fold")


def views_from_jets(train: Sequence[Frame], test: Sequence[Frame], views: int) -> list[list[float]]:
    """The view of each test frame guessed from its jets' classes alone: scores, [len(test)][views].

    The labels of the two tasks are entangled (some jets are seen from one view only), so a network could
    name views by telling jets. The scores are the frequencies of the views among the training frames with
    the same set of jet classes (also: none); among all of them where that set is in none. It is generous:
    the guess is told the TRUE jets of the test frame, which a network has to find.
    """
    counts = defaultdict(lambda: np.zeros(views))
    for frame in train:
        if frame.view >= 0:
            counts[tuple(frame.classes)][frame.view] += 1
    overall = sum(counts.values(), np.zeros(views))
    found = [counts.get(tuple(frame.classes), overall) for frame in test]
    return [(count / max(count.sum(), 1)).round(5).tolist() for count in found]
