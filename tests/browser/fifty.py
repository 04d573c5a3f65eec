"""A study of 50 runs, as long and as wide as real ones and made in seconds: for what takes long with many."""

import json
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from gradlib import config
from gradlib.data import phantom, read_dataset, views_from_jets
from gradlib.train import evaluation

__all__ = ["study_of_50"]

# Each solution, and the one whose run it is made from.
SOLUTIONS = {
    "baseline": "baseline",
    "gradnorm": "gradnorm",
    "dual": "dual",
    "fusion": "gradnorm",
    "detection-only": "detection-only",
}
FOLDS, SEEDS = 5, 2
PATIENTS, FRAMES = 40, 25  # of the data set, which has about 200 frames a fold
STEPS, EPOCHS, PROBES = 700, 12, 35  # of a run
ROWS = {"steps": STEPS, "epochs": EPOCHS, "batches": PROBES}
ROWS |= {"probes": PROBES, "affinity": PROBES, "parts": PROBES // 5, "pairs": PROBES // 5}
SCORES = ("map50", "map50_95", "precision", "recall", "f1", "confidence", "accuracy", "balanced_accuracy")


def study_of_50(project: Path, small: Path) -> Path:
    """Write the study `fifty` and its data set in the folder `project`; returns the study's folder.

    small: the folder of a study with a run, of fold 0 and seed 0, of each solution that one is made from. The
    new runs have its files, but weights and notebook, and its columns. The numbers are made up: losses that
    fall, cosines that swing, boxes and views near the true ones; the metrics are of these boxes and views.
    """
    phantom.write(project / "many", patients=PATIENTS, videos=1, frames=FRAMES, size=(96, 72))
    dataset = read_dataset(project / "many/data.yaml")
    for fold in range(FOLDS):
        parts = dataset.split("patients", fold, FOLDS)
        known = [frame.name for frame in parts["train"]]
        guesses = views_from_jets(parts["train"], parts["test"], len(dataset.views))
        for number, (name, origin) in enumerate(SOLUTIONS.items()):
            source, solution = small / origin / "fold=0/seed=0", config.find_solution(name)
            made = {
                "data": "many/data.yaml",
                "fold": fold,
                "epochs": EPOCHS,
                "probe_every": STEPS // PROBES,
                "solution": asdict(solution),
                "frames": {part: len(frames) for part, frames in parts.items()},
                "patients": {
                    part: len({frame.patient for frame in frames}) for part, frames in parts.items()
                },
            }
            for seed in range(SEEDS):
                random = np.random.default_rng([fold, number, seed])
                run = project / f"runs/fifty/{name}/fold={fold}/seed={seed}"
                run.mkdir(parents=True)
                _copy(source, run, "config.json", made | {"seed": seed})
                _copy(source, run, "environment.json", {})
                for table in ROWS:
                    rows = _table(source, table, solution, known, random)
                    rows.to_csv(run / f"{table}.csv", index=False)
                # Apart from the tables, whose columns may change. With this seed the first frame that the
                # explorers' test looks at has a jet, found, none missed, and a weak detection beside.
                random = np.random.default_rng([fold, number, seed, 5])
                skill = 0.6 + 0.05 * number + 0.1 * random.random()
                entries = [
                    _entry(frame, dataset, solution.tasks, skill, random) | {"view_from_jet": guess}
                    for frame, guess in zip(parts["test"], guesses, strict=True)
                ]
                (run / "predictions.json").write_text(json.dumps(entries))
                test = evaluation.evaluate(entries, solution.tasks, dataset.classes, confidence=0.4)
                _copy(source, run, "metrics.json", {"test": test | {"frames": len(entries)}})
    return project / "runs/fifty"


def _copy(source: Path, run: Path, name: str, changes: dict) -> None:
    (run / name).write_text(json.dumps(json.loads((source / name).read_text()) | changes))


def _table(
    source: Path, name: str, solution: config.Solution, known: list[str], random: np.random.Generator
) -> pd.DataFrame:
    """A table of a run: its first rows (a step, an epoch, all of a probe), again and again.

    known: the frames of the training part.
    """
    text = (source / f"{name}.csv").read_text().strip()
    if not text:
        return pd.DataFrame()  # nothing is shared, so nothing was probed
    rows = pd.read_csv(StringIO(text))
    rows = rows[rows["epoch" if name == "epochs" else "step"] == 0]
    if name == "probes":
        shared = config.BRANCHES[: config.BRANCHES.index(solution.branch) + 1]
        rows = rows[rows["stage"].isin(shared)]
    t = np.repeat(np.arange(ROWS[name]) / ROWS[name], len(rows))  # 0-1 over training
    rows = pd.concat([rows] * ROWS[name], ignore_index=True)
    for column in rows:
        noise = random.normal(size=len(rows))
        if column in ("step", "epoch"):
            rows[column] = (t * {"step": STEPS, "epoch": EPOCHS}[column]).round().astype(int)
        elif column == "image":
            rows[column] = random.choice(known, len(rows))
        elif column.startswith("lr_"):
            rows[column] = 3e-3 * (1 + np.cos(np.pi * t)) / 2
        elif column.startswith("weight_") and solution.balancer == "gradnorm":
            rows[column] = 1 + (0.5 if column == "weight_detection" else -0.5) * np.sin(2 * t)
        elif "loss" in column or column in ("detection_mse", "seconds"):
            rows[column] *= (0.3 + 0.7 * np.exp(-3 * t)) * np.exp(0.1 * noise)
        elif column.split("_")[0] in ("norm", "signal", "square", "cross", "same"):
            rows[column] *= np.exp(0.3 * noise)
        elif column == "cosine":
            rows[column] = np.clip(0.2 * np.sin(6 * t) + 0.2 * noise, -1, 1)
        elif column == "conflict":
            rows[column] = (rows["cosine"] < 0).astype(int)
        elif column in ("share_detection", "magnitude_similarity"):
            rows[column] = np.clip(rows[column] + 0.1 * noise, 0.01, 0.99)
        elif column in SCORES:
            learnt = np.clip(0.8 - 0.6 * np.exp(-4 * t) + 0.03 * noise, 0, 1)
            rows[column] = np.where(rows[column].isna(), np.nan, learnt)
    return rows


def _entry(frame, dataset, tasks, skill: float, random: np.random.Generator) -> dict:
    """What a network that is right about `skill` of the time says of a frame."""
    found, scores = [], None
    if "detection" in tasks:
        for label, *box in frame.boxes.tolist():
            if random.random() < skill:
                found.append([label, random.uniform(0.3, 1), *(box + random.normal(0, 0.01, 4))])
        for _ in range(random.poisson(2)):  # where nothing is
            label, box = random.integers(len(dataset.classes)), random.uniform(0.1, 0.4, 4)
            found.append([float(label), random.uniform(0, 0.6), *box])
    if "classification" in tasks:
        named = frame.view if random.random() < skill else random.integers(len(dataset.views))
        scores = random.dirichlet(1 + 6 * np.eye(len(dataset.views))[named]).tolist()
    return {
        "image": frame.name,
        "patient": frame.patient,
        "video": frame.video,
        "view": frame.view,
        "view_scores": scores,
        "boxes": frame.boxes.tolist(),
        "detections": sorted(found, key=lambda row: -row[1]),
    }
