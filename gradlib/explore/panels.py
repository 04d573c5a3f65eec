"""Explorers of a study for JupyterLab, each one line in a notebook: controls above a figure.

    widgets.explore_runs(study)
    widgets.explore_conflicts(study)
    widgets.explore_detections(study)
    widgets.what_if(study)

Thin: what is drawn comes from `plots` and `pictures`.
"""

from collections.abc import Sequence
from functools import cache, lru_cache

import ipywidgets
import numpy as np
import pandas as pd

from gradlib.config import TASKS
from gradlib.data import dataset
from gradlib.data.images import FrameSet
from gradlib.evidence import diagnostics, predictions, tables
from gradlib.evidence.tables import RUN
from gradlib.explore.base import NARROW, SNUG, WIDE, Explorer, Ticks, choice, offer, panels, slider
from gradlib.plots import frames, style, training
from gradlib.runs.write import Study, project_folder
from gradlib.train import metrics

__all__ = ["explore_conflicts", "explore_detections", "explore_runs", "what_if"]


def _runs_of(study: Study, names: Sequence[str]) -> list[tuple[str, tuple]]:
    """The runs of these solutions to choose from: what they are called, and their key."""
    rows = study.runs[study.runs["solution"].isin(names)]
    keys = rows[RUN].itertuples(index=False, name=None)
    return sorted((f"{name}, fold {fold}, seed {seed}", (name, fold, seed)) for name, fold, seed in keys)


def _of_run(table: pd.DataFrame, run: tuple) -> pd.DataFrame:
    return table[(table[RUN] == list(run)).all(axis=1)]


# --- runs ---

LABELS = tables.QUANTITIES | {name: one.header for name, one in tables.PERFORMANCE.items()}
LABELS |= {
    "loss_detection": "Loss of detection",
    "loss_classification": "Loss of classification",
    "norm_detection": "Gradient norm of detection",
    "norm_classification": "Gradient norm of classification",
}
# What is shown: table, horizontal axis, a panel a column.
VIEWS = {
    "losses by step": ("steps", "step", ("loss_detection", "loss_classification")),
    "training losses": ("epochs", "epoch", ("train_loss_detection", "train_loss_classification")),
    "validation losses": ("epochs", "epoch", ("valid_loss_detection", "valid_loss_classification")),
    "weights": ("steps", "step", ("weight_detection", "weight_classification")),
    "gradient share": ("steps", "step", ("share_detection",)),
    "gradient norms": ("steps", "step", ("norm_detection", "norm_classification")),
    "learning rates": ("steps", "step", ("lr_shared", "lr_detection", "lr_classification")),
    "mAP (validation)": ("epochs", "epoch", ("map50", "map50_95")),
    "precision, recall (validation)": ("epochs", "epoch", ("precision", "recall")),
    "views (validation)": ("epochs", "epoch", ("accuracy", "balanced_accuracy")),
}


def _ticked(runs: pd.DataFrame, solutions: tuple, folds: tuple, seeds: tuple) -> pd.Series:
    return runs["solution"].isin(solutions) & runs["fold"].isin(folds) & runs["seed"].isin(seeds)


def explore_runs(study: Study) -> Explorer:
    """Losses, weights, learning rates and metrics of the solutions, folds and seeds that are ticked."""
    trained = study.steps[RUN].drop_duplicates()
    names = [name for name in tables.names(study) if name in set(trained["solution"])]

    by_run = cache(lambda table, x, column: training.by_run(getattr(study, table), x, column))

    def draw(figure, solutions, folds, seeds, show, smooth, log) -> str:
        table, x, columns = VIEWS[show]
        axes = panels(figure, len(columns), left=0.06, right=0.84)
        for ax, column in zip(axes, columns, strict=True):
            runs = by_run(table, x, column)
            wanted = _ticked(runs.columns.to_frame(), solutions, folds, seeds)
            training.curves(runs.loc[:, wanted], LABELS[column], smooth, log, ax)
        style.one_legend(figure)
        return (
            f"{_ticked(trained, solutions, folds, seeds).sum()} of {len(trained)} runs. A line is the mean "
            "over a solution's runs, the band goes from the lowest to the highest; where there is no line, "
            "the solution does not have it."
        )

    controls = {
        "solutions": Ticks("solutions", names),
        "folds": Ticks("folds", sorted(trained["fold"].unique().tolist())),
        "seeds": Ticks("seeds", sorted(trained["seed"].unique().tolist())),
        "show": choice("show", VIEWS, layout=WIDE),
        "smooth": slider("smoothing", 0.05, 0, 0.5, 0.05, ".0%"),
        "log": ipywidgets.Checkbox(False, description="log scale", indent=False, layout=NARROW),
    }
    return Explorer(study, controls, draw)


# --- gradients ---

THUMBNAIL = 112  # pixels
NOT_HERE = "the data that the study names is not on this machine"


def explore_conflicts(study: Study) -> Explorer:
    """Where and when the tasks' gradients fought in a run: the map of all probes, and of the one that is
    chosen (slid to, or clicked in the map) the cosine by stage and the frames of its batch."""
    compared = study.probes.dropna(subset=["cosine"])
    probed = set(compared[RUN].itertuples(index=False, name=None))
    runs = [one for one in _runs_of(study, tables.names(study)) if one[1] in probed]
    if not runs:
        raise ValueError("no run of this study has shared layers and probes: there is no gradient to compare")
    frames = _frames(study)

    probes_of = cache(lambda run: _of_run(compared, run))

    def columns(run, kind) -> list[int]:
        """The steps of the map's columns."""
        return sorted(probes_of(run).query("kind == @kind")["step"].unique().tolist())

    def clicked(column, stage) -> None:
        steps = columns(controls["run"].value, controls["kind"].value)
        controls["step"].value = steps[min(round(column), len(steps) - 1)]

    @lru_cache(64)  # half a megabyte each
    def thumbnails(names: tuple[str, ...]) -> FrameSet:
        return FrameSet([frames[name] for name in names], THUMBNAIL)

    def draw(figure, run, kind, step) -> str:
        probes, steps = probes_of(run), columns(run, kind)
        at = offer(controls["step"], steps, min(steps, key=lambda probe: abs(probe - step)))
        now = probes[(probes["step"] == at) & (probes["kind"] == kind)]
        batch = _of_run(study.batches, run).query("step == @at")["image"]
        shown = tuple(name for name in batch if name in frames)
        upper, lower = figure.subfigures(2, 1, height_ratios=(3, 2)) if shown else (figure, None)
        left, right = panels(upper, 2, width_ratios=(3, 2), bottom=0.16)
        training.cosine_heatmap(probes, run[0], kind, left)
        left.axvline(steps.index(at), color="0.1", linewidth=1.5)
        widest = 1.05 * probes["cosine"].astype(float).abs().max()
        training.stage_bars(now, f"Cosine at step {at}", widest, right)
        if shown:
            config = study.config(*run)
            images, boxes, views, _ = zip(*thumbnails(shown), strict=True)
            frames.batch(
                [image.permute(1, 2, 0).numpy() for image in images],
                [rows.tolist() for rows in boxes],
                config["classes"],
                [config["views"][view] if view >= 0 else "" for view in views],
                ax=panels(lower, 1, left=0.01, bottom=0.02, top=0.98)[0],
            )
        fights = now[now["cosine"].astype(float) < 0]["stage"].tolist()
        says = f"conflict in {', '.join(fights)}" if fights else "no stage in conflict"
        lacking = NOT_HERE if len(batch) else "the run kept no list of them"
        below = (
            f"Below: the {len(shown)} frames of its batch before augmentation, with their boxes and views."
            if shown
            else f"The frames of its batch are not shown: {lacking}."
        )
        return f"Step {at}, epoch {int(now['epoch'].iloc[0]) + 1}: {says}. {below}"

    controls = {
        "run": choice("run", runs, layout=WIDE),
        "kind": ipywidgets.ToggleButtons(
            options=[("convolutions", "conv"), ("normalisation", "norm")],
            style=ipywidgets.ToggleButtonsStyle(button_width="9em"),
        ),
        "step": ipywidgets.SelectionSlider(
            options=columns(runs[0][1], "conv"), description="step", layout=WIDE, style=SNUG
        ),
    }
    return Explorer(study, controls, draw, (9.6, 5.0), clicked)


def _frames(study: Study) -> dict[str, dataset.Frame]:
    """The frames of a study's data by name; none where the data is not on this machine."""
    config = study.config(*study.runs.iloc[0][RUN])
    try:
        return {f.name: f for f in dataset.read(dataset.resolve(config["data"], project_folder())).frames}
    except (FileNotFoundError, RuntimeError, ValueError):  # no data.yaml, or none of its images
        return {}


# --- detections ---

ANY = "any"
KINDS = {
    "all": lambda table: table["misses"] >= 0,
    "false positives": lambda table: table["false_positives"] > 0,
    "misses": lambda table: table["misses"] > 0,
    "wrong views": lambda table: table["wrong_view"],
    "nothing wrong": lambda table: ~(table["wrong_view"] | (table["misses"] + table["false_positives"] > 0)),
}


def explore_detections(study: Study) -> Explorer:
    """Test frames with their true boxes, what a run found, and the view it named; another run beside it."""
    runs = _runs_of(study, [name for name in tables.names(study) if name not in study.guessed])
    config = study.config(*runs[0][1])
    classes, views = config["classes"], config["views"]
    entries = cache(lambda run: study.predictions(*run))
    image = lru_cache(16)(lambda name: predictions.image(config, name))
    tasks = cache(lambda run: study.config(*run)["solution"]["tasks"])
    matched = cache(lambda run, iou: [metrics.match(entry, np.array([iou])) for entry in entries(run)])

    def side(ax, run, name, confidence, iou) -> None:
        """One run's view of the frame `name`; empty axes where it was not in its test part."""
        places = [i for i, entry in enumerate(entries(run)) if entry["image"] == name]
        label = f"{run[0]}, fold {run[1]}, seed {run[2]}"
        if not places:
            ax.set_axis_off()
            ax.set_title(f"{label}: not a frame of its test part", fontsize="small")
            return
        entry, (found, taken) = entries(run)[places[0]], matched(run, iou)[places[0]]
        counted = found[:, 1] >= confidence
        found, taken = found[counted], taken[counted, 0]
        if entry["view_scores"]:
            named = int(np.argmax(entry["view_scores"]))
            wrong = ", wrong" if 0 <= entry["view"] != named else ""
            label += f": {views[named]} {entry['view_scores'][named]:.2f}{wrong}"
        missed = [i not in taken for i in range(len(entry["boxes"]))] if "detection" in tasks(run) else None
        pixels = predictions.BLACK if image(name) is None else image(name)
        frames.frame(pixels, entry["boxes"], classes, label, found, ax, taken < 0, missed)

    def besides(run) -> list[tuple[str, tuple]]:
        """Other runs that were tested on the same fold."""
        return [("nothing", ()), *(one for one in runs if one[1][1] == run[1] and one[1] != run)]

    def patients(run) -> list[str]:
        return [ANY, *sorted({entry["patient"] for entry in entries(run)})]

    def draw(figure, run, beside, confidence, iou, only, klass, view, patient, at) -> str:
        # In another fold: the same solution and seed; no patient is in two.
        wanted = (beside[0], run[1], beside[2]) if beside else ()
        beside = offer(controls["beside"], besides(run), wanted)
        patient = offer(controls["patient"], patients(run), patient)
        table = predictions.outcomes(entries(run), matched(run, iou), confidence, tasks(run))
        wanted = KINDS[only](table)
        if klass != ANY:
            wanted &= np.array([klass in found for found in table["classes"]], bool)
        if view != ANY:
            wanted &= table["view"] == view
        if patient != ANY:
            wanted &= table["patient"] == patient
        chosen = table[wanted].sort_values("image")
        bound = max(len(chosen), 1)
        controls["at"].max = bound
        if chosen.empty:
            figure.text(0.5, 0.5, "no such frame", ha="center", color="0.4")
            return f"None of {len(table)} test frames is like this."
        row = chosen.iloc[min(at, bound) - 1]
        axes = panels(figure, 2 if beside else 1, left=0.01, bottom=0.02, wspace=0.02)
        for ax, one in zip(axes, (run, beside), strict=False):
            side(ax, one, row["image"], confidence, iou)
        true = f"true view: {views[row['view']]}" if row["view"] >= 0 else "no true view"
        return (
            f"Frame {min(at, bound)} of {len(chosen)} ({len(table)} in the test part): patient "
            f"{row['patient']}, {true}. White: true boxes, thick where none was found; "
            f"yellow: right detections; orange, dotted: wrong ones. {_tally(chosen, tasks(run))}"
            + (f" The frame is black: {NOT_HERE}." if image(row["image"]) is None else "")
        )

    every = [(ANY, ANY)]
    run = runs[0][1]
    first = _of_run(study.runs, run).iloc[0]
    chosen = first["confidence"] if "confidence" in first and pd.notna(first["confidence"]) else 0.25
    controls = {
        "run": choice("run", runs, layout=WIDE),
        "beside": choice("beside it", besides(run), (), WIDE),
        "confidence": slider("confidence", round(float(chosen), 2), 0.01, 1, 0.01),
        "iou": slider("IoU", 0.5, 0.05, 0.95, 0.05),
        "only": choice("show", KINDS),
        "klass": choice("jet", every + [(name, i) for i, name in enumerate(classes)]),
        "view": choice("view", every + [(name, i) for i, name in enumerate(views)]),
        "patient": choice("patient", patients(run)),
        "at": ipywidgets.IntSlider(1, min=1, max=1, description="frame", layout=WIDE, style=SNUG),
    }
    return Explorer(study, controls, draw)


def _tally(table: pd.DataFrame, tasks: Sequence[str]) -> str:
    """What a run made of the frames of `predictions.outcomes`, in words."""
    said = {
        "detection": f"{table['boxes'].sum() - table['misses'].sum()} of {table['boxes'].sum()} jets found, "
        f"{table['false_positives'].sum()} wrong detections",
        "classification": f"{table['wrong_view'].sum()} of {(table['view'] >= 0).sum()} views wrong",
    }
    return f"In these {len(table)} frames: {'; '.join(said[task] for task in tasks)}."


# --- GradNorm ---


def what_if(study: Study) -> Explorer:
    """The weights that GradNorm would have given with another alpha and other start weights, on the losses
    and gradient norms that a run had (`diagnostics.replay`)."""
    normed = study.steps.dropna(subset=[c for c in study.steps if c.startswith("norm_")])["solution"]
    runs = _runs_of(study, [name for name in tables.names(study) if name in set(normed)])
    if not runs:
        raise ValueError("no run of this study kept gradient norms: in none both tasks share a layer")

    def draw(figure, run, alpha, start) -> str:
        steps, config = _of_run(study.steps, run), study.config(*run)
        options = {**config["solution"]["options"]} if config["solution"]["balancer"] == "gradnorm" else {}
        options.pop("layer", None)  # where the norms were measured; they are what they are
        rate = config["weights_learning_rate"]
        table = diagnostics.replay(steps, (start, 2 - start), alpha, rate, **options)
        left, right = panels(figure, 2)
        training.replayed(steps, table, left, right)
        ends = " and ".join(f"{table[f'weight_{task}'].iloc[-1]:.2f} for {task}" for task in TASKS)
        own = config["alpha"] if config["solution"]["balancer"] == "gradnorm" else None
        return (
            f"With alpha {alpha:g} the weights would have ended at {ends}"
            + (f"; the run had alpha {own:g}. " if own is not None else "; the run had no GradNorm. ")
            + "A first look, not a run: other weights would have trained the network another way, and its "
            "losses and norms would have been others."
        )

    controls = {
        "run": choice("run", runs, layout=WIDE),
        "alpha": slider("alpha", 1.5, 0, 3, 0.05),
        "start": slider("start weight of detection", 1.0, 0.05, 1.95, 0.05),
    }
    return Explorer(study, controls, draw)
