"""Training, validation and test parts: as published, or patient folds."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from gradlib.data.data_yaml import PARTS

if TYPE_CHECKING:
    from gradlib.data.dataset import Dataset, Frame

VALID = 8  # one in so many of the frames that are not test
MOVED = 100  # patients with the most frames, which are moved between groups


def split(
    dataset: "Dataset", how: str = "patients", fold: int = 0, folds: int = 5
) -> dict[str, list["Frame"]]:
    """Frames by part: {"train": [...], "valid": [...], "test": [...]}.

    "patients": no patient in two parts, classes and effective patients spread evenly; fold `fold` of `folds`
    is test; of the rest about an eighth is valid, for it only watches and sets a confidence, and training
    misses what it takes (with 700 frames to train on, a third more of them was worth more than any setting
    tried). "published": the parts that data.yaml names.
    """
    if how == "published":
        parts = {p: [frame for frame in dataset.frames if frame.part == p] for p in PARTS}
        for part, frames in parts.items():
            if not frames:
                twice = [one.value for one in dataset.problems if one.what == "a folder named twice"]
                same = [f"{value!r} names another's" for value in twice if value.split(":")[0] in PARTS[part]]
                cure = f"{(same or ['none is named'])[0]}; give it a folder in data.yaml or split by patients"
                raise ValueError(f"{dataset.root}: the published {part} part has no frames: {cure}")
        return parts
    if how != "patients":
        raise ValueError(f"split: {how!r} is unknown; write 'patients' or 'published'")
    if not 0 <= fold < folds or folds < 2:
        raise ValueError(f"fold {fold} of folds={folds}: write 2 or more folds, and a fold below that number")
    patients = len(_patients(dataset.frames))
    if patients < max(folds, 3):
        fewer = "write fewer folds, " if patients > 2 else "take the split 'published', "
        found = f"{folds} and a part to validate, but there are only {patients} patients"
        raise ValueError(f"folds: {found}; {fewer}or correct patient in data.yaml")
    test = _groups(dataset.frames, folds)[fold]
    tested = _patients(test)
    rest = [frame for frame in dataset.frames if frame.patient not in tested]
    others = len(_patients(rest))
    if others < 2:
        found = f"fold {fold} of {folds} tests all patients but {others}, and one has to validate"
        raise ValueError(f"folds: {found}; write more folds or correct patient in data.yaml")
    # All classes first, then the most effective patients: one long patient would set the threshold alone.
    groups = _groups(rest, min(VALID, others))
    valid = max(groups, key=lambda group: (len({c for f in group for c in f.classes}), _effective(group)))
    watching = _patients(valid)
    return {"train": [f for f in rest if f.patient not in watching], "valid": valid, "test": test}


def capped(frames: Sequence["Frame"], most: int) -> list["Frame"]:
    """At most so many frames of a patient, evenly spaced in their order; 0: all."""
    of = pd.Series(range(len(frames))).groupby([frame.patient for frame in frames])
    kept = [own.iloc[np.unique(np.linspace(0, len(own) - 1, most or len(own)).astype(int))] for _, own in of]
    return [frames[i] for i in sorted(np.concatenate(kept))]


def _patients(frames: Sequence["Frame"]) -> set[str]:
    return {frame.patient for frame in frames}


def _effective(frames: Sequence["Frame"]) -> float:
    """As many even patients know as much as those of these frames (Kish 1965)."""
    n = np.array([*Counter(frame.patient for frame in frames).values()])
    return n.sum() ** 2 / np.square(n).sum()


def _groups(frames: Sequence["Frame"], count: int) -> list[list["Frame"]]:
    """The frames in `count` groups: no patient in two, classes and effective patients spread evenly.

    A patient with most of a group's frames decides its scores alone, see `_effective`.
    """
    patients = np.array([frame.patient for frame in frames])
    strata = pd.Series([str(frame.classes) for frame in frames])
    counts = strata.map(strata.value_counts())
    # What is too rare to be in every group cannot be spread; it goes with the commonest.
    strata = strata.where(counts >= count, strata.mode()[0])
    by_patient = pd.crosstab(patients, strata)
    place = pd.Series(0, by_patient.index)
    for number, (_, group) in enumerate(StratifiedGroupKFold(count).split(strata, strata, patients)):
        place[patients[group]] = number
    place = _evened(by_patient.to_numpy(float), place.to_numpy(), count)
    place = pd.Series(place, by_patient.index)[patients].to_numpy()
    return [[frames[i] for i in np.flatnonzero(place == number)] for number in range(count)]


def _evened(frames: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    """`place` [P] of patients with so many `frames` [P, C] of each class in `count` groups, one patient moved
    at a time while that makes classes and effective patients more even."""
    n, largest = frames.sum(1), np.argsort(-frames.sum(1), kind="stable")[:MOVED]

    def unevenness(place: np.ndarray) -> float:
        member = np.eye(count)[place]  # [P, count]
        shares = member.T @ frames / frames.sum(0)  # [count, C]
        effective = (member.T @ n) ** 2 / np.maximum(member.T @ n**2, 1)
        return float(np.square(shares * count - 1).mean() + (effective.std() / effective.mean()) ** 2)

    best = unevenness(place)
    while True:
        moves = []
        for patient in largest:
            for group in range(count):
                moved = place.copy()
                moved[patient] = group
                moves.append((unevenness(moved), patient, group))
        found, patient, group = min(moves)
        if not found < best - 1e-9:
            return place
        best, place = found, place.copy()
        place[patient] = group
