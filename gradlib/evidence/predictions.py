"""What the test predictions look like: curves, confusions, examples."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from gradlib.evidence.tables import FAIR, RUN, in_order, over_runs, run_keys
from gradlib.train import metrics

BLACK = np.zeros((240, 320, 3), np.uint8)


def precision_recall(study) -> pd.DataFrame:
    """Precision at 101 recalls (IoU 0.5): columns solution, class, recall, precision.

    COCO's interpolation: the best precision at that recall or a higher one, mean over runs. Class "" is
    the mean over the classes that occur; the mean of its precision is mAP@0.5.
    """
    recalls, parts = np.linspace(0, 1, 101), []
    for name, fold, seed in study.runs.dropna(subset=["map50"])[RUN].itertuples(index=False):
        classes = study.config(name, fold, seed)["classes"]
        curves = metrics.pr_curve(study.predictions(name, fold, seed), classes)
        for label, curve in curves.groupby("class", sort=False):
            best = curve["precision"][::-1].cummax()[::-1].to_numpy()
            at = np.searchsorted(curve["recall"], recalls)  # the first detection that reaches it
            columns = {"solution": name, "class": label, "recall": recalls}
            parts.append(pd.DataFrame(columns | {"precision": np.append(best, 0.0)[at]}))
    columns = ["solution", "class", "recall", "precision"]
    table = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
    table = table.groupby(columns[:3], as_index=False)["precision"].mean()
    overall = table.groupby(["solution", "recall"], as_index=False)["precision"].mean()
    table = pd.concat([overall.assign(**{"class": ""}), table], ignore_index=True)
    return in_order(study, table)[columns]


def fair_scores(study) -> pd.DataFrame:
    """Scores in which no fold and no patient counts for more than its share; one row a solution.

    `map50_pooled`: of the test frames of all folds together. `map50_by_patient`, `accuracy_by_patient`: mean
    over patients, each by its own frames. All are means over seeds.
    """
    rows = []
    for (name, seed), runs in study.runs.groupby(["solution", "seed"], sort=False):
        config = study.config(*runs[RUN].iloc[0])
        entries = [e for run in runs[RUN].itertuples(index=False, name=None) for e in study.predictions(*run)]
        patients = pd.Series(entries).groupby([entry["patient"] for entry in entries]).agg(list)
        row = {"solution": name, "seed": seed}
        if runs["map50"].notna().all():
            classes, parts = config["classes"], (entries, *patients)
            each = [metrics.average_precision(own, classes)["map50"] for own in parts]
            row |= {"map50_pooled": each[0], "map50_by_patient": pd.Series(each[1:], dtype=float).mean()}
        if runs["accuracy"].notna().all():
            each = [metrics.classification_metrics(own)["accuracy"] for own in patients]
            row["accuracy_by_patient"] = pd.Series(each, dtype=float).mean()
        rows.append(row)
    return over_runs(in_order(study, pd.DataFrame(rows)), ["solution"], FAIR)


def view_confusion(study, solution: str) -> pd.DataFrame:
    """Test images by true view (rows) and named view (columns), summed over the solution's runs."""
    runs = run_keys(study, solution)
    views = study.config(*runs[0])["views"]
    counts = np.zeros((len(views), len(views)), int)
    for entry in (entry for run in runs for entry in study.predictions(*run)):
        if entry["view"] >= 0 and entry["view_scores"]:
            counts[entry["view"], int(np.argmax(entry["view_scores"]))] += 1
    return pd.DataFrame(counts, pd.Index(views, name="true view"), pd.Index(views, name="named view"))


def image(config: Mapping, name: str) -> np.ndarray | None:
    """The frame `name` of the data that a run's `config` names: uint8 [H, W, 3].

    Both names are treated as untrusted input: None where the data is not on this machine, and for what is no
    image or lies outside the data set.
    """
    from gradlib.data.dataset import find_data_yaml  # brings PyTorch
    from gradlib.data.images import read_rgb

    try:
        path = find_data_yaml(config["data"])
        if not path.is_file():
            return None
        return np.asarray(read_rgb(path.parent / name, path.parent.parent)[0])
    except (OSError, RuntimeError, ValueError):  # as for ~nobody/data.yaml, and for a NUL in a name
        return None


def examples(study, solution: str, count: int) -> dict:
    """`count` test frames of a solution's first run, spread evenly over the part.

    Returns the arguments of `plots.detections`: images (uint8 [H, W, 3]; black where they are not on this
    machine), truths, predictions (of at least the confidence that the run chose), classes, titles.
    """
    run = run_keys(study, solution)[0]
    confidence, config = study.runs.set_index(RUN).loc[run, "confidence"], study.config(*run)
    entries = sorted(study.predictions(*run), key=lambda entry: entry["image"])
    places = np.unique(np.linspace(0, len(entries) - 1, count).round().astype(int))
    some = [entries[place] for place in places]
    images = [image(config, entry["image"]) for entry in some]
    return {
        "images": [BLACK if found is None else found for found in images],
        "truths": [entry["boxes"] for entry in some],
        "predictions": [[row for row in e["detections"] if row[1] >= confidence] for e in some],
        "classes": config["classes"],
        "titles": [f"{solution}, patient {entry['patient']}" for entry in some],
    }
