"""Explorers of trainings: curves of runs, conflicts of the tasks' gradients, GradNorm replayed."""

from functools import cache, lru_cache, partial

import ipywidgets
import pandas as pd
import torch

from gradlib.balance.gradnorm import GradNorm
from gradlib.config import TASKS
from gradlib.data.dataset import read_dataset
from gradlib.data.images import FrameSet
from gradlib.evidence import interference, tables
from gradlib.evidence.tables import RUN, numbers
from gradlib.explore import base
from gradlib.explore.base import Explorer, axes_row, choice, rows_of, run_options, set_options, slider
from gradlib.plots import frames, gradients, style, training
from gradlib.runs.read import StudyResults

LABELS = tables.QUANTITIES | {name: one.header for name, one in tables.PERFORMANCE.items()}
LABELS |= {f"loss_{task}": f"Loss of {task}" for task in TASKS}
LABELS |= {f"norm_{task}": f"Gradient norm of {task}" for task in TASKS}
# By what is shown: the table, its horizontal axis, and one panel for each column.
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


def explore_runs(study: StudyResults) -> Explorer:
    """Losses, weights, learning rates and metrics of the solutions, folds and seeds that are ticked."""
    trained = study.steps[RUN].drop_duplicates()
    by_run = cache(lambda table, x, column: training.pivot_runs(getattr(study, table), x, column))

    def ticked(runs: pd.DataFrame, solutions, folds, seeds) -> pd.Series:
        return runs["solution"].isin(solutions) & runs["fold"].isin(folds) & runs["seed"].isin(seeds)

    def draw(figure, solutions, folds, seeds, show, smooth, log) -> str:
        table, x, columns = VIEWS[show]
        axes = axes_row(figure, len(columns), left=0.06, right=0.84)
        for ax, column in zip(axes, columns, strict=True):
            runs = by_run(table, x, column)
            chosen = ticked(runs.columns.to_frame(), solutions, folds, seeds)
            training.curves(runs.loc[:, chosen], LABELS[column], smooth, log, ax)
        style.one_legend(figure)
        return (
            f"{ticked(trained, solutions, folds, seeds).sum()} of {len(trained)} runs. A line is the mean "
            "over a solution's runs, its band goes from the lowest to the highest."
        )

    names = [name for name in tables.names(study) if name in set(trained["solution"])]
    controls = {
        "solutions": base.Checkboxes("solutions", names),
        "folds": base.Checkboxes("folds", sorted(trained["fold"].unique().tolist())),
        "seeds": base.Checkboxes("seeds", sorted(trained["seed"].unique().tolist())),
        "show": choice("show", VIEWS, 22),
        "smooth": slider("smoothing", 0.05, 0, 0.5, 0.05, ".0%"),
        "log": ipywidgets.Checkbox(False, description="log scale", indent=False),
    }
    return Explorer(study, controls, draw)


def explore_conflicts(study: StudyResults) -> Explorer:
    """Where and when the tasks' gradients conflicted in a run: the cosine by stage of all probes, and of one
    probe (slide to it, or click into the map) the cosines and the frames it took."""
    probes = study.probes.dropna(subset=["cosine"])
    probed = set(probes[RUN].itertuples(index=False, name=None))
    runs = [one for one in run_options(study, tables.names(study)) if one[1] in probed]
    if not runs:
        raise ValueError("no run of this study has shared layers and probes: there is no gradient to compare")
    try:
        known_frames = {f.name: f for f in read_dataset(study.config(*runs[0][1])["data"]).frames}
    except (FileNotFoundError, RuntimeError, ValueError):  # no data.yaml, or none of its images
        known_frames = {}
    probes_of = cache(lambda run: rows_of(probes, run))
    rho = cache(lambda run, kind: _rho(probes_of(run).query("kind == @kind")))

    @lru_cache(64)  # half a megabyte each
    def thumbnails(names: tuple[str, ...]) -> FrameSet:
        return FrameSet([known_frames[name] for name in names], 112)

    def steps_of(run, kind) -> list[int]:
        return sorted(probes_of(run).query("kind == @kind")["step"].unique().tolist())

    def clicked(column, stage) -> None:
        steps = steps_of(controls["run"].value, controls["kind"].value)
        controls["step"].value = steps[min(round(column), len(steps) - 1)]

    def draw(figure, run, kind, step) -> str:
        own, steps = probes_of(run), steps_of(run, kind)
        step = set_options(controls["step"], steps, min(steps, key=lambda other: abs(other - step)))
        probe = own[(own["step"] == step) & (own["kind"] == kind)]
        batch = rows_of(study.batches, run).query("step == @step")["image"]
        shown = tuple(name for name in batch if name in known_frames)
        upper, lower = figure.subfigures(2, 1, height_ratios=(3, 2)) if shown else (figure, None)
        left, right = axes_row(upper, 2, width_ratios=(3, 2), bottom=0.16)
        gradients.cosine_heatmap(own, run[0], kind, left)
        left.axvline(steps.index(step), color="0.1", linewidth=1.5)
        widest = 1.05 * own["cosine"].astype(float).abs().max()
        gradients.stage_bars(probe, f"Cosine at step {step}", widest, right)
        if shown:
            config = study.config(*run)
            images, boxes, views, _ = zip(*thumbnails(shown), strict=True)
            frames.batch(
                [image.permute(1, 2, 0).numpy() for image in images],
                [rows.tolist() for rows in boxes],
                config["classes"],
                [config["views"][view] if view >= 0 else "" for view in views],
                ax=axes_row(lower, 1, left=0.01, bottom=0.02, top=0.98)[0],
            )
            below = f"Below: the {len(shown)} frames it took, before augmentation, with boxes and views."
        else:
            reason = base.DATA_MISSING if len(batch) else "the run kept no list of them"
            below = f"The frames it took are not shown: {reason}."
        stages = ", ".join(probe[probe["cosine"].astype(float) < 0]["stage"])
        conflict = f"conflict in {stages}" if stages else "no stage in conflict"
        step_of = f"Step {step}, epoch {int(probe['epoch'].iloc[0]) + 1}: {conflict}"
        return f"rho of this run: {rho(run, kind)}. {step_of}. {below}"

    kinds = [("convolutions", "conv"), ("normalisation", "norm")]
    controls = {
        "run": choice("run", runs, 22),
        "kind": ipywidgets.ToggleButtons(options=kinds, style={"button_width": "9em"}),
        "step": choice("step", steps_of(runs[0][1], "conv"), 22, ipywidgets.SelectionSlider),
    }
    return Explorer(study, controls, draw, (9.6, 5.0), clicked)


def _rho(probes) -> str:
    """rho over all shared stages, in words."""
    one = interference.interference(interference.products(probes))
    known = f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"
    return known if one.value == one.value else "the gradients' signal is too weak, or the probes too few"


def what_if(study: StudyResults) -> Explorer:
    """GradNorm's weights with another alpha and other start weights, on the losses and gradient norms that a
    run had (`replay_gradnorm`)."""
    with_norms = study.steps.dropna(subset=[c for c in study.steps if c.startswith("norm_")])["solution"]
    runs = run_options(study, [name for name in tables.names(study) if name in set(with_norms)])
    if not runs:
        raise ValueError("no run of this study kept gradient norms: in none both tasks share a layer")

    def draw(figure, run, alpha, start) -> str:
        steps, config = rows_of(study.steps, run), study.config(*run)
        gradnorm = config["solution"]["balancer"] == "gradnorm"
        # The norms stay those of the place where the run measured them.
        measured = ("measure_at", "norms")
        options = {k: v for k, v in config["solution"]["options"].items() if gradnorm and k not in measured}
        rate = config["weights_learning_rate"]
        replay = replay_gradnorm(steps, (start, 2 - start), alpha, rate, **options)
        gradients.replayed(steps, replay, *axes_row(figure, 2))
        ends = " and ".join(f"{replay[f'weight_{task}'].iloc[-1]:.2f} for {task}" for task in TASKS)
        own = f"the run had alpha {config['alpha']:g}" if gradnorm else "the run had no GradNorm"
        return (
            f"With alpha {alpha:g} the weights would have ended at {ends}; {own}. A first look, not a run: "
            "with other weights the network, its losses and its norms would have been others."
        )

    controls = {
        "run": choice("run", runs, 22),
        "alpha": slider("alpha", 1.5, 0, 3, 0.05),
        "start": slider("start weight of detection", 1.0, 0.05, 1.95, 0.05),
    }
    return Explorer(study, controls, draw)


@torch.inference_mode()  # a fifth faster
def replay_gradnorm(
    steps: pd.DataFrame, weights: tuple[float, float], alpha: float, learning_rate: float = 0.025, **options
) -> pd.DataFrame:
    """The weights that GradNorm would have given each step of one run, from its losses and gradient norms.

    Columns step, weight_detection, weight_classification, share_detection. With the run's own settings these
    are its own weights. With others it is a first look, not a run: other weights would have trained another
    network, with other losses and norms. weights: at the start. learning_rate, options: see `GradNorm`.
    Raises ValueError where the run recorded no norms.
    """
    losses, norms = (
        torch.tensor(numbers(steps, [f"{what}_{task}" for task in TASKS]).to_numpy())
        for what in ("loss", "norm")
    )
    if norms.isnan().all():
        raise ValueError("nothing is shared in this run, so it kept no gradient norms to balance")
    adam = partial(torch.optim.Adam, foreach=False)  # finding that out in every step takes a fifth longer
    options = {"alpha": alpha, "learning_rate": learning_rate, **options}
    balancer, used = GradNorm(weights, optimizer=adam, **options), []
    for loss, norm in zip(losses, norms, strict=True):
        used.append(balancer.weights.clone())
        balancer.update(loss, norm)
    used = torch.stack(used)
    weighted = used * norms
    table = pd.DataFrame(used.numpy(), columns=[f"weight_{task}" for task in TASKS])
    table.insert(0, "step", steps["step"].to_numpy())
    return table.assign(share_detection=(weighted[:, 0] / weighted.sum(1)).numpy())
