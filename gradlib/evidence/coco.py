"""Predictions of any two detectors, as COCO results files: mAP, and its difference with an interval over
patients."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, TypeAdapter

from gradlib.checks import NotNegative, Number
from gradlib.data.files import MAX_TABLE_BYTES
from gradlib.evidence.bootstrap import Tally, bootstrap_weights
from gradlib.evidence.intervals import MIN_PATIENTS, RESAMPLES, Estimate, of_patients, with_p
from gradlib.evidence.tables import PERFORMANCE
from gradlib.runs.schema import read_valid

SCORES = ("map50", "map50_95")


class _Box(BaseModel):
    image_id: int
    category_id: int
    bbox: tuple[Number, Number, NotNegative, NotNegative]  # left, top, width, height in pixels
    iscrowd: int = 0


class _Image(BaseModel):
    id: int
    file_name: str


class _Category(BaseModel):
    id: int


class _Truth(BaseModel):
    images: Annotated[list[_Image], Field(min_length=1)]
    annotations: Annotated[list[_Box], Field(min_length=1)]
    categories: Annotated[list[_Category], Field(min_length=1)]


class _Detection(_Box):
    score: Number


def read_coco(truth: Path, results: Sequence[Path], patients: Path) -> list[list[dict]]:
    """The predictions (as `train.metrics` describes them) of each of these COCO `results` files.

    truth: COCO annotations. patients: a CSV table with columns image (a file's name, or an id) and patient.
    FileNotFoundError, or ValueError in one line: an image without a patient, a result of an image or category
    that `truth` does not know, a crowd's box (which stands for several).
    """
    known = _Truth.model_validate(read_valid(truth, TypeAdapter(_Truth), max_bytes=MAX_TABLE_BYTES))
    table = pd.read_csv(patients, dtype=str, keep_default_na=False)
    if missing := {"image", "patient"} - {*table}:
        raise ValueError(f"{patients}: column {min(missing)!r} is missing; give `image` and `patient`")
    owner = dict(zip(table["image"], table["patient"], strict=True))
    places = {category.id: place for place, category in enumerate(known.categories)}
    entries = {}
    for image in known.images:
        patient = owner.get(image.file_name) or owner.get(str(image.id))
        if not patient:
            raise ValueError(f"{patients}: image {image.file_name!r} (id {image.id}) has no patient; add it")
        entries[image.id] = {
            "patient": patient,
            "boxes": [],
            "detections": [],
            "view": -1,
            "view_scores": None,
        }
    _add(truth, known.annotations, entries, places, "boxes")
    found = []
    for file in results:
        own = {key: {**entry, "detections": []} for key, entry in entries.items()}
        reader = TypeAdapter(list[_Detection])
        rows = reader.validate_python(read_valid(file, reader, max_bytes=MAX_TABLE_BYTES))
        _add(file, rows, own, places, "detections")
        found.append([*own.values()])
    return found


def _add(file: Path, rows: Sequence[_Box], entries: dict, places: dict, to: str) -> None:
    """Add boxes to the `entries` of their images."""
    for number, row in enumerate(rows):
        if row.image_id not in entries or row.category_id not in places:
            text = f"image {row.image_id}, category {row.category_id}"
            raise ValueError(f"{file}: {text}: not among the images and categories of the truth")
        if row.iscrowd:
            raise ValueError(f"{file}: annotation {number}: iscrowd is not supported; remove it")
        x, y, width, height = row.bbox
        score = [row.score] if to == "detections" else []
        box = [places[row.category_id], *score, x + width / 2, y + height / 2, width, height]
        entries[row.image_id][to].append(box)


def compare_detectors(
    predictions: Sequence[Sequence[dict]], margin: float | None = None, resamples: int = RESAMPLES
) -> pd.DataFrame:
    """mAP of two detectors on the same images, and the second's minus the first's: `Estimate`s, one row a
    metric, columns first, second, difference.

    The detectors are taken as they are: what another training of them would bring is not in the intervals.
    """
    classes = 1 + max(int(b[0]) for own in predictions for e in own for b in (*e["boxes"], *e["detections"]))
    tallies = [Tally(own, classes, 1, None, ["detection"]) for own in predictions]
    images = tallies[0].n_images
    weights = bootstrap_weights(len(images), resamples, np.random.default_rng(0))
    weights = np.concatenate([np.ones((1, len(images))), weights])  # the images as they are come first
    values = [tally.metrics(weights) for tally in tallies]
    rows = {}
    for metric in SCORES:
        one, other = (own[metric] for own in values)
        limit = PERFORMANCE[metric].margin if margin is None else margin
        named = {"first": one, "second": other, "difference": other - one}
        rows[metric] = {name: _estimate(own, images) for name, own in named.items()}
        rows[metric]["difference"] = with_p(rows[metric]["difference"], limit)
    return pd.DataFrame.from_dict(rows, orient="index")


def _estimate(values: np.ndarray, images: np.ndarray) -> Estimate:
    few = "patients" if len(images) < MIN_PATIENTS else ""
    variance, df = of_patients(values[1:], images)
    return Estimate(float(values[0]), variance, df, 0.0, len(images), 1, few)
