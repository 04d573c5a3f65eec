"""YOLO data sets whose label files may also hold a one-hot row: tables of what is in them, leakage, folds."""

from collections.abc import Sequence
from dataclasses import astuple, fields

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from gradlib.data.dataset import PARTS, Dataset, Frame, read, resolve
from gradlib.data.faults import Problem
from gradlib.data.images import (
    FrameSet,
    collate,
    letterbox,
    letterbox_boxes,
    load_images,
    unletterbox_boxes,
)

__all__ = [
    "PARTS",
    "Dataset",
    "Frame",
    "FrameSet",
    "Problem",
    "class_by_view",
    "collate",
    "folds_table",
    "frames_table",
    "leakage",
    "letterbox",
    "letterbox_boxes",
    "load_images",
    "parts_table",
    "problems_table",
    "read",
    "resolve",
    "split",
    "unletterbox_boxes",
    "view_changes",
]

VALID = 8  # one in so many of the frames that are not test


def parts_table(dataset: Dataset) -> pd.DataFrame:
    """One row a published part: its frames, patients, videos and boxes."""
    frames = frames_table(dataset)
    videos = frames.drop_duplicates(["part", "patient", "video"])
    patients = videos.drop_duplicates(["part", "patient"])
    table = {
        "frames": frames.groupby("part").size(),
        "patients": patients.groupby("part").size(),
        "videos": videos.groupby("part").size(),
        "boxes": frames.groupby("part")["boxes"].sum(),
    }
    return pd.DataFrame(table).reindex(PARTS, fill_value=0)


def problems_table(dataset: Dataset) -> pd.DataFrame:
    """One row a problem: file, line, value, what, cure, rule."""
    columns = [field.name for field in fields(Problem)]
    table = pd.DataFrame([astuple(problem) for problem in dataset.problems], columns=columns)
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
            "classes": "+".join(dataset.classes[c] for c in _class_indices(frame)) or "none",
        }
        for frame in dataset.frames
    ]
    return pd.DataFrame(rows)


def _class_indices(frame: Frame) -> list[int]:
    return np.unique(frame.boxes[:, 0]).astype(int).tolist()


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
    train = [frame for frame in dataset.frames if frame.part == "train"]
    patients = {frame.patient for frame in train}
    videos = {(frame.patient, frame.video) for frame in train}
    rows = {}
    for part in PARTS[1:]:
        frames = [frame for frame in dataset.frames if frame.part == part]
        own = {frame.patient for frame in frames}
        known = sum(frame.patient in patients for frame in frames)
        seen = sum((frame.patient, frame.video) in videos for frame in frames)
        rows[part] = {
            "frames": len(frames),
            "patients": len(own),
            "patients_in_train": len(own & patients),
            "frames_patient_in_train": known,
            "frames_video_in_train": seen,
            "patient_share": known / len(frames) if frames else float("nan"),
            "video_share": seen / len(frames) if frames else float("nan"),
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


def split(dataset: Dataset, how: str = "patients", fold: int = 0, folds: int = 5) -> dict[str, list[Frame]]:
    """Frames by part: {"train": [...], "valid": [...], "test": [...]}.

    "patients": no patient in two parts, classes spread evenly; fold `fold` of `folds` is test; of the rest
    about an eighth is valid, for it only watches and sets a confidence, and training misses what it takes
    (with 700 frames to train on, a third more of them was worth more than any setting tried). "published":
    the parts that data.yaml names.
    """
    if how == "published":
        parts = {p: [frame for frame in dataset.frames if frame.part == p] for p in PARTS}
        for part, frames in parts.items():
            if not frames:
                cure = "name its folder in data.yaml or split by patients"
                raise ValueError(f"{dataset.root}: the published {part} part has no frames; {cure}")
        return parts
    if how != "patients":
        raise ValueError(f"split: {how!r} is unknown; write 'patients' or 'published'")
    if folds < 2:
        raise ValueError(f"folds: {folds} leaves nothing to train on; write 2 or more")
    if not 0 <= fold < folds:
        raise ValueError(f"fold: {fold} is not below folds={folds}; write 0 to {folds - 1}")
    patients = len({frame.patient for frame in dataset.frames})
    if patients < max(folds, 3):
        found = f"{folds}, but there are only {patients} patients"
        raise ValueError(f"folds: {found}; write fewer folds or correct patient in data.yaml")
    number = _folds(dataset.frames, folds)
    test = [frame for frame, own in zip(dataset.frames, number, strict=True) if own == fold]
    rest = [frame for frame, own in zip(dataset.frames, number, strict=True) if own != fold]
    others = len({frame.patient for frame in rest})
    if others < 2:
        found = f"fold {fold} of {folds} tests all patients but {others}, and one has to validate"
        raise ValueError(f"folds: {found}; write more folds or correct patient in data.yaml")
    groups = [[] for _ in range(min(VALID, others))]
    for frame, own in zip(rest, _folds(rest, len(groups)), strict=True):
        groups[own].append(frame)
    # The group of most patients for its frames: one long patient would set the threshold alone.
    valid = max(groups, key=lambda group: len({frame.patient for frame in group}) / len(group))
    watching = {frame.patient for frame in valid}
    return {"train": [f for f in rest if f.patient not in watching], "valid": valid, "test": test}


def _folds(frames: Sequence[Frame], folds: int) -> list[int]:
    """One of `folds` groups for each frame: no patient in two, classes spread evenly."""
    patients = [frame.patient for frame in frames]
    strata = pd.Series([str(_class_indices(frame)) for frame in frames])
    counts = strata.map(strata.value_counts())
    # What is too rare to be in every fold cannot be spread; it goes with the commonest.
    strata = strata.where(counts >= folds, strata.mode()[0])
    number = np.empty(len(patients), int)
    for k, (_, test) in enumerate(StratifiedGroupKFold(folds).split(strata, strata, patients)):
        number[test] = k
    return number.tolist()


def folds_table(dataset: Dataset, folds: int = 5) -> pd.DataFrame:
    """One row a fold's test part: frames, patients, and the boxes of each class."""
    rows = []
    for fold in range(folds):
        frames = split(dataset, "patients", fold, folds)["test"]
        classes = np.concatenate([frame.boxes[:, 0] for frame in frames]).astype(int)
        boxes = np.bincount(classes, minlength=len(dataset.classes))
        row = {"frames": len(frames), "patients": len({frame.patient for frame in frames})}
        rows.append(row | dict(zip(dataset.classes, boxes.tolist(), strict=True)))
    return pd.DataFrame(rows).rename_axis("fold")
