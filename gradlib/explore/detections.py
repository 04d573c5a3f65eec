"""The explorer of test frames: true boxes, detections and views, of one run or of two side by side."""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache

import numpy as np
import pandas as pd

from gradlib.config import TASKS
from gradlib.evidence import predictions, tables
from gradlib.explore import base
from gradlib.explore.base import Explorer, axes_row, choice, rows_of, run_options, set_options, slider
from gradlib.plots import frames
from gradlib.runs.read import StudyResults
from gradlib.train import metrics

ANY, NO_RUN = "any", ("nothing", ())
SHOW = {
    "all": lambda table: table["misses"] >= 0,
    "false positives": lambda table: table["false_positives"] > 0,
    "misses": lambda table: table["misses"] > 0,
    "wrong views": lambda table: table["wrong_view"],
    "nothing wrong": lambda table: ~(table["wrong_view"] | (table["misses"] + table["false_positives"] > 0)),
}


def explore_detections(study: StudyResults) -> Explorer:
    """Test frames with their true boxes and a run's detections and view; another run beside it."""
    runs = run_options(study, [name for name in tables.names(study) if name not in study.guessed])
    config = study.config(*runs[0][1])
    classes, views = config["classes"], config["views"]
    image = lru_cache(16)(lambda name: predictions.image(config, name))
    matched = cache(lambda run, iou: [metrics.match(e, np.array([iou])) for e in study.predictions(*run)])

    def draw_run(ax, run, name, confidence, iou) -> None:
        """One run's result on the frame `name`; empty axes where it is not in the run's test part."""
        label = f"{run[0]}, fold {run[1]}, seed {run[2]}"
        results = zip(study.predictions(*run), matched(run, iou), strict=True)
        result = next((result for result in results if result[0]["image"] == name), None)
        if result is None:
            ax.set_axis_off()
            ax.set_title(f"{label}: not a frame of its test part", fontsize="small")
            return
        entry, (detections, taken) = result
        confident = detections[:, 1] >= confidence
        detections, taken = detections[confident], taken[confident, 0]
        if entry["view_scores"]:
            view = int(np.argmax(entry["view_scores"]))
            wrong = ", wrong" if 0 <= entry["view"] != view else ""
            label += f": {views[view]} {entry['view_scores'][view]:.2f}{wrong}"
        detects = "detection" in study.config(*run)["solution"]["tasks"]
        missed = [detects and i not in taken for i in range(len(entry["boxes"]))]
        pixels = predictions.BLACK if image(name) is None else image(name)
        frames.frame(pixels, entry["boxes"], classes, label, ax, detections, taken < 0, missed)

    def draw(figure, run, beside, confidence, iou, only, klass, view, patient, at) -> str:
        entries, tasks = study.predictions(*run), study.config(*run)["solution"]["tasks"]
        others = [one for one in runs if one[1][1] == run[1] and one[1] != run]  # tested on the same fold
        # In another fold: the same solution and seed; no patient is in two folds.
        same = (beside[0], run[1], beside[2]) if beside else ()
        beside = set_options(controls["beside"], [NO_RUN, *others], same)
        patients = [ANY, *sorted({entry["patient"] for entry in entries})]
        patient = set_options(controls["patient"], patients, patient)
        table = outcomes(entries, matched(run, iou), confidence, tasks)
        fits = SHOW[only](table)
        if klass != ANY:
            fits &= np.array([klass in present for present in table["classes"]], bool)
        for column, value in (("view", view), ("patient", patient)):
            if value != ANY:
                fits &= table[column] == value
        chosen = table[fits].sort_values("image")
        last = max(len(chosen), 1)
        controls["at"].max = last
        if chosen.empty:
            figure.text(0.5, 0.5, "no such frame", ha="center", color="0.4")
            return f"None of {len(table)} test frames is like this."
        row = chosen.iloc[min(at, last) - 1]
        axes = axes_row(figure, 2 if beside else 1, left=0.01, bottom=0.02, wspace=0.02)
        for ax, one in zip(axes, (run, beside), strict=False):
            draw_run(ax, one, row["image"], confidence, iou)
        true = f"true view: {views[row['view']]}" if row["view"] >= 0 else "no true view"
        boxes, missed, false, wrong = chosen[["boxes", "misses", "false_positives", "wrong_view"]].sum()
        counts = {
            "detection": f"{boxes - missed} of {boxes} jets found, {false} wrong detections",
            "classification": f"{wrong} of {(chosen['view'] >= 0).sum()} views wrong",
        }
        return (
            f"Frame {min(at, last)} of {len(chosen)} ({len(table)} in the test part): patient "
            f"{row['patient']}, {true}. White: true boxes, thick where missed; "
            f"yellow: right detections; orange, dotted: wrong ones. In these {len(chosen)} frames: "
            f"{'; '.join(counts[task] for task in tasks)}."
            + (f" The frame is black: {base.DATA_MISSING}." if image(row["image"]) is None else "")
        )

    confidence = rows_of(study.runs, runs[0][1]).iloc[0].get("confidence")
    confidence = 0.25 if pd.isna(confidence) else round(float(confidence), 2)
    controls = {
        "run": choice("run", runs, 22),
        "beside": choice("beside it", [NO_RUN], 22),
        "confidence": slider("confidence", confidence, 0.01, 1, 0.01),
        "iou": slider("IoU", 0.5, 0.05, 0.95, 0.05),
        "only": choice("show", SHOW),
        "klass": choice("jet", [(ANY, ANY), *((name, i) for i, name in enumerate(classes))]),
        "view": choice("view", [(ANY, ANY), *((name, i) for i, name in enumerate(views))]),
        "patient": choice("patient", [ANY]),
        "at": slider("frame", 1, 1, 1, 1),
    }
    return Explorer(study, controls, draw)


def outcomes(
    entries: Sequence[Mapping],
    matched: Sequence[tuple[np.ndarray, np.ndarray]],
    confidence: float,
    tasks: Sequence[str] = TASKS,
) -> pd.DataFrame:
    """The outcome of each test image: columns image, patient, view (index, -1 for none), wrong_view, boxes,
    false_positives, misses (numbers of boxes), classes (a set: of true boxes and detections).

    matched: `metrics.match` of each entry at one IoU. confidence: what detections must have to count. tasks:
    of the run; one that does not detect misses nothing.
    """
    rows = []
    for entry, (detections, taken) in zip(entries, matched, strict=True):
        counted = int((detections[:, 1] >= confidence).sum())  # the first ones, for they are sorted
        correct = int((taken[:counted, 0] >= 0).sum())
        named = int(np.argmax(entry["view_scores"])) if entry["view_scores"] else -1
        classes = {int(box[0]) for box in entry["boxes"]} | set(detections[:counted, 0].astype(int).tolist())
        rows.append(
            {
                **{key: entry[key] for key in ("image", "patient", "view")},
                "wrong_view": entry["view"] >= 0 and named >= 0 and named != entry["view"],
                "boxes": len(entry["boxes"]),
                "false_positives": counted - correct,
                "misses": len(entry["boxes"]) - correct if "detection" in tasks else 0,
                "classes": classes,
            }
        )
    return pd.DataFrame(rows)
