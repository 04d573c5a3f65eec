"""Figures of the tasks' gradients: cosines by stage and step, class-view pairs, gradient shares."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlib.config import BRANCHES
from gradlib.plots.language import translate
from gradlib.plots.style import axes, cell_texts, colour, legend
from gradlib.plots.training import draw_runs, pivot_runs

__all__ = ["cosine_heatmap", "cosine_trend", "gradient_share", "pair_map", "replayed", "stage_bars"]


def cosine_heatmap(probes: pd.DataFrame, solution: str, kind: str = "conv", ax: Axes | None = None) -> Axes:
    """Cosine of the two tasks' gradients, stage by step (mean over runs); below 0 is a conflict.

    The colours span the cosines of all solutions in `probes`, so that maps of one study compare.
    """
    of_kind = probes[probes["kind"] == kind]
    part = of_kind[of_kind["solution"] == solution]
    table = part.pivot_table(index="stage", columns="step", values="cosine")
    table = table.reindex([stage for stage in BRANCHES if stage in table.index]).astype(float)
    title = translate("label.cosine_map", solution=solution, kind=translate(f"label.{kind}"))
    ax = axes(ax, title, translate("label.step"), translate("label.stage"), grid=False)
    if table.empty:
        return legend(ax)
    limit = max(0.1, float(of_kind["cosine"].astype(float).abs().quantile(0.99)))
    image = ax.imshow(table, aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit)
    at = np.arange(0, table.shape[1], max(1, -(-table.shape[1] // 7)))
    ax.set_xticks(at, table.columns[at])
    ax.set_yticks(range(len(table)), table.index)
    bar = ax.figure.colorbar(image, ax=ax, label=translate("label.cosine"))
    bar.ax.locator_params(nbins=5)
    return ax


def cosine_trend(probes: pd.DataFrame, kind: str = "conv", ax: Axes | None = None) -> Axes:
    """Cosine by step, mean over a solution's shared stages, running mean over a tenth of training."""
    label = "cosine, mean over stages (below 0: conflict)"
    ax = axes(ax, f"Gradient cosine over training ({kind})", "step", label)
    draw_runs(ax, pivot_runs(probes[probes["kind"] == kind], "step", "cosine"), smooth=0.1)
    ax.axhline(0, color="0.4", linewidth=0.8)
    return legend(ax)


def stage_bars(probe: pd.DataFrame, title: str, widest: float = 1.0, ax: Axes | None = None) -> Axes:
    """The cosine by stage of one probe and one kind of parameter (rows of a study's probes), conflicts red,
    on an axis from -widest to widest."""
    ax = axes(ax, title, "cosine (below 0: conflict)", "shared stage")
    cosines = probe.set_index("stage")["cosine"].astype(float)
    cosines = cosines.reindex([stage for stage in BRANCHES if stage in cosines.index])
    low, high = (plt.get_cmap("RdBu")(share) for share in (0.15, 0.85))
    ax.barh(cosines.index, cosines, color=[low if cosine < 0 else high for cosine in cosines])
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_xlim(-widest, widest)
    ax.invert_yaxis()
    return ax


def pair_map(
    pairs: pd.DataFrame, solution: str, classes: Sequence[str], views: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Mean cosine between detection's gradient on frames with a class (rows) and classification's on frames
    of a view (columns), at the last shared layer, with the share of probes below 0."""
    part = pairs[pairs["solution"] == solution].dropna(subset=["cosine"])
    ax = axes(ax, f"Which jets fight with which views: {solution}", "view", "jet", (5.2, 3.6), False)
    if part.empty:
        return legend(ax)
    mean, conflict = (
        part.assign(conflict=part["cosine"] < 0)
        .pivot_table(index="class", columns="view", values=value, aggfunc="mean")
        .reindex(index=range(len(classes)), columns=range(len(views)))
        .to_numpy(float)
        for value in ("cosine", "conflict")
    )
    limit = max(0.1, float(np.nanmax(np.abs(mean))))
    image = ax.imshow(mean, aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit)
    texts = np.vectorize("{:+.2f}\n{:.0%} below 0".format, otypes=[object])(mean, conflict)
    cell_texts(ax, np.where(np.isfinite(mean), texts, None), np.abs(mean) > 0.6 * limit, fontsize="small")
    ax.set_xticks(range(len(views)), views)
    ax.set_yticks(range(len(classes)), classes)
    ax.figure.colorbar(image, ax=ax, label="mean cosine (below 0: conflict)")
    return ax


def gradient_share(steps: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Detection's part of the weighted gradient at the last shared layer, running mean, by step."""
    ax = axes(ax, translate("quantity.share_detection"), translate("label.step"), translate("label.share"))
    draw_runs(ax, pivot_runs(steps, "step", "share_detection"), smooth=0.1)
    return legend(_share_axis(ax))


def replayed(steps: pd.DataFrame, replay: pd.DataFrame, left: Axes, right: Axes) -> None:
    """A run's own weights and gradient share (grey) beside those of a `replay` of it."""
    axes(left, "Loss weights", "step", "weight (dotted: classification)")
    axes(right, "Weighted gradient share of detection", "step", "share (the rest: classification)")
    for table, shade, label in ((steps, "0.6", "the run"), (replay, colour("gradnorm"), "GradNorm as set")):
        left.plot(table["step"], table["weight_detection"], color=shade, label=label)
        left.plot(table["step"], table["weight_classification"], ":", color=shade)
        share = table["share_detection"].rolling(max(1, len(table) // 10), min_periods=1).mean()
        right.plot(table["step"], share, color=shade, label=label)
    left.set_ylim(0, 2.05)
    legend(left)
    legend(_share_axis(right))


def _share_axis(ax: Axes) -> Axes:
    """`ax` from 0 to 1 with a line at one half."""
    ax.axhline(0.5, color="0.4", linewidth=0.8)
    ax.set_ylim(-0.02, 1.02)
    return ax
