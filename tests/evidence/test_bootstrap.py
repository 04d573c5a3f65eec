"""Metrics of resampled patients: the same as the plain ones, only faster."""

import numpy as np
import pytest

from gradlib.evidence.bootstrap import Tally, bootstrap_weights
from gradlib.evidence.tables import PERFORMANCE
from gradlib.train import metrics

TASKS = ("detection", "classification")


def predictions(seed: int, images: int = 60, patients: int = 9) -> list[dict]:
    """Random truth, with detections that hit, miss and repeat it, and no two of one confidence."""
    generator, out = np.random.default_rng(seed), []
    for _ in range(images):
        boxes = [
            [int(generator.integers(3)), *generator.uniform(0.3, 0.7, 2), *generator.uniform(0.1, 0.4, 2)]
            for _ in range(generator.integers(0, 3))
        ]
        near = [
            [box[0], generator.uniform(), *(np.array(box[1:]) + generator.normal(0, 0.02, 4)).clip(0.01, 1)]
            for box in boxes
            for _ in range(3)
        ]
        far = [
            [int(generator.integers(3)), generator.uniform(0, 0.6), *generator.uniform(0.2, 0.7, 4)]
            for _ in range(5)
        ]
        out.append(
            {
                "patient": f"p{generator.integers(patients)}",
                "boxes": boxes,
                "detections": sorted(near + far, key=lambda row: -row[1]),
                "view": int(generator.integers(-1, 3)),
                "view_scores": generator.dirichlet(np.ones(3)).tolist(),
            }
        )
    return out


def plain(entries: list[dict]) -> dict:
    return metrics.detection_metrics(entries, "abc", 0.3) | metrics.classification_metrics(entries)


def test_every_patient_once_gives_the_plain_metrics():
    entries = predictions(0)
    counts = Tally(entries, 3, 3, 0.3, TASKS)
    once = counts.metrics(np.ones((1, len(counts.patients))))
    assert set(once) == set(PERFORMANCE)
    for name, value in plain(entries).items():
        if name in once:
            assert once[name][0] == pytest.approx(value, abs=1e-12), name


def test_a_resample_is_the_data_set_with_its_patients_repeated():
    entries = predictions(1)
    counts = Tally(entries, 3, 3, 0.3, TASKS)
    weights = bootstrap_weights(len(counts.patients), 20, np.random.default_rng(2))
    resampled = counts.metrics(weights)
    for row, drawn in enumerate(weights):
        often = dict(zip(counts.patients, drawn.astype(int), strict=True))
        # A whole copy after the other: COCO's order of equal confidences is that of the images.
        copies = [entry for entry in entries for _ in range(often[entry["patient"]])]
        for name, value in plain(copies).items():
            if name in resampled and value is not None:
                assert resampled[name][row] == pytest.approx(value, abs=1e-12), name


def test_what_a_resample_lacks_is_missing_and_not_zero():
    entry = {"boxes": [[0, 0.5, 0.5, 0.2, 0.2]], "detections": [[0, 0.9, 0.5, 0.5, 0.2, 0.2]]}
    entries = [
        entry | {"patient": "a", "view": 1, "view_scores": [0.1, 0.9]},
        {"patient": "b", "boxes": [], "detections": [], "view": -1, "view_scores": [0.5, 0.5]},
    ]
    counts = Tally(entries, 2, 2, 0.5, TASKS)
    found = counts.metrics(np.array([[1.0, 1.0], [0.0, 1.0]]))  # both patients, then b alone
    for name in PERFORMANCE:
        perfect = 0.0 if name == "detection_mse" else 1.0
        assert found[name][0] == pytest.approx(perfect) and np.isnan(found[name][1]), name


def test_a_specialist_has_the_metrics_of_its_task_alone():
    entries = [entry | {"view_scores": None} for entry in predictions(3)]
    found = Tally(entries, 3, 3, 0.3, ("detection",)).metrics(np.ones((1, 9)))
    assert np.isnan(found["accuracy"][0]) and np.isfinite(found["map50"][0])


def test_a_detector_that_finds_nothing_has_zero_and_not_nothing():
    entries = [entry | {"detections": []} for entry in predictions(4)]
    found = Tally(entries, 3, 3, 0.3, TASKS).metrics(np.ones((1, 9)))
    assert [found[name][0] for name in ("map50", "precision", "recall", "f1")] == [0, 0, 0, 0]
    assert found["detection_mse"][0] == pytest.approx(metrics.detection_mse(entries, 0.3))


def test_one_patient_fewer_is_drawn_than_there_are():
    weights = bootstrap_weights(5, 4000, np.random.default_rng(0))
    assert (weights.sum(1) == 4).all()
    # Mean of patients' values 0, 1, ..., 4: variance s^2 / n = 2.5 / 5 (drawing 5 would give 0.4).
    means = weights @ np.arange(5) / 4
    assert means.var() == pytest.approx(0.5, rel=0.1)
