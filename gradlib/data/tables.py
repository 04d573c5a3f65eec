"""Tables of what is in a data set: frames, problems, leakage, folds; and views guessed from the jets."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from gradlib.data.data_yaml import PARTS
from gradlib.data.dataset import Dataset, Frame
from gradlib.data.faults import Problem


def parts_table(dataset: Dataset) -> pd.DataFrame:
    """One row a published part: its frames, patients, videos and boxes."""
    frames = frames_table(dataset)
    frames["video"] = list(zip(frames["patient"], frames["video"], strict=True))
    count = {"frames": ("part", "size"), "patients": ("patient", "nunique"), "videos": ("video", "nunique")}
    table = frames.groupby("part").agg(**count, boxes=("boxes", "sum"))
    return table.reindex(list(PARTS), fill_value=0)


def problems_table(dataset: Dataset) -> pd.DataFrame:
    """One row a problem: file, line, value, what, cure, rule."""
    table = pd.DataFrame(list(dataset.problems), columns=Problem._fields)
    return table.astype({"line": "Int64"})  # integers, though some problems have no line


def frames_table(dataset: Dataset) -> pd.DataFrame:
    """One row a frame: image (relative to the root), part, patient, video, view, boxes, classes.

    `view` is its name or None, `boxes` their number, `classes` as "AR", "AR+MR" or "none".
    """
    rows = [
        {
            "image": frame.name,
            "part": frame.part,
            "patient": frame.patient,
            "video": frame.video,
            "view": dataset.views[frame.view] if frame.view >= 0 else None,
            "boxes": len(frame.boxes),
            "classes": "+".join(dataset.classes[index] for index in frame.classes) or "none",
        }
        for frame in dataset.frames
    ]
    return pd.DataFrame(rows)


def class_by_view(dataset: Dataset) -> pd.DataFrame:
    """Number of boxes of each class (rows) in each view (columns, "none" where one is missing)."""
    counts = np.zeros((len(dataset.classes), len(dataset.views) + 1), int)
    for frame in dataset.frames:
        np.add.at(counts[:, frame.view], frame.boxes[:, 0].astype(int), 1)  # -1 = last column
    table = pd.DataFrame(counts, list(dataset.classes), [*dataset.views, "none"])
    table = table.rename_axis(index="class", columns="view")
    has_none = any(frame.view < 0 for frame in dataset.frames)
    return table if has_none else table.drop(columns="none")


def leakage(dataset: Dataset) -> pd.DataFrame:
    """How far the published valid and test parts (rows) repeat the training part.

    frames, patients; frames and patients whose patient is also in train, frames whose video is;
    patient_share and video_share are those frames over frames.
    """
    table = frames_table(dataset)
    table["video"] = list(zip(table["patient"], table["video"], strict=True))
    train, rows = table[table["part"] == "train"], {}
    for part in ("valid", "test"):
        own = table[table["part"] == part]
        known, seen = (own[key].isin(train[key]) for key in ("patient", "video"))
        rows[part] = {
            "frames": len(own),
            "patients": own["patient"].nunique(),
            "patients_in_train": own["patient"][known].nunique(),
            "frames_patient_in_train": int(known.sum()),
            "frames_video_in_train": int(seen.sum()),
            "patient_share": known.mean(),
            "video_share": seen.mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("part")


def view_changes(dataset: Dataset) -> pd.DataFrame:
    """The videos whose frames do not all have the same view: one row each, patient, video, and the
    number of frames of each view in each part, as `train view 1`.

    A video is rarely of two views: a change is a label to look at, above all where it follows the
    parts, for then a model is trained on one name and tested on another.
    """
    table = frames_table(dataset).dropna(subset=["view"])
    found = table.groupby(["patient", "video"])["view"].transform("nunique") > 1
    kinds = table["part"] + " " + table["view"]
    of_both = [f"{part} {view}" for part in PARTS for view in dataset.views]
    counts = pd.crosstab([table["patient"][found], table["video"][found]], kinds[found])
    return counts.reindex(columns=[kind for kind in of_both if kind in counts]).rename_axis(columns=None)


def folds_table(dataset: Dataset, folds: int = 5) -> pd.DataFrame:
    """One row a fold's test part: frames, patients, and the boxes of each class."""
    rows = []
    for fold in range(folds):
        frames = dataset.split("patients", fold, folds)["test"]
        classes = np.concatenate([frame.boxes[:, 0] for frame in frames]).astype(int)
        boxes = np.bincount(classes, minlength=len(dataset.classes))
        row = {"frames": len(frames), "patients": len({frame.patient for frame in frames})}
        rows.append(row | dict(zip(dataset.classes, boxes.tolist(), strict=True)))
    return pd.DataFrame(rows).rename_axis("fold")


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
