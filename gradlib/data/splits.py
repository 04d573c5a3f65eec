"""Training, validation and test parts: as published, or patient folds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from gradlib.data.data_yaml import PARTS

if TYPE_CHECKING:
    from gradlib.data.dataset import Dataset, Frame

VALID = 8  # one in so many of the frames that are not test


def split(
    dataset: "Dataset", how: str = "patients", fold: int = 0, folds: int = 5
) -> dict[str, list["Frame"]]:
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


def _folds(frames: Sequence["Frame"], folds: int) -> list[int]:
    """One of `folds` groups for each frame: no patient in two, classes spread evenly."""
    patients = [frame.patient for frame in frames]
    strata = pd.Series([str(frame.classes) for frame in frames])
    counts = strata.map(strata.value_counts())
    # What is too rare to be in every fold cannot be spread; it goes with the commonest.
    strata = strata.where(counts >= folds, strata.mode()[0])
    number = np.empty(len(patients), int)
    for k, (_, test) in enumerate(StratifiedGroupKFold(folds).split(strata, strata, patients)):
        number[test] = k
    return number.tolist()
