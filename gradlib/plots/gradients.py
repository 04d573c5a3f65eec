"""Figures of the tasks' gradients: cosines by stage and step, class-view pairs, gradient shares."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from gradlib.config import BRANCHES
from gradlib.evidence.interference import by_stage, rho_of_parts
from gradlib.plots.language import translate
from gradlib.plots.style import axes, colour, legend
from gradlib.plots.training import draw_runs


def interference(probes: pd.DataFrame, kind: str = "conv", ax: Axes | None = None) -> Axes:
    """rho, the cosine of the tasks' expected gradients, by shared stage and solution, with 95 % intervals.

    probes: of a study. `all`: over all shared stages. A stage whose signal is too weak has no mark.
    """
    title = translate("label.interference", kind=translate(f"label.{kind}"))
    ax = axes(ax, title, translate("label.rho"), translate("label.stage"))
    table = by_stage(probes, kind).reset_index()
    stages = [*(stage for stage in BRANCHES if stage in set(table["stage"])), "all"]
    table = table.dropna(subset="rho")
    names = list(dict.fromkeys(table["solution"]))
    for number, name in enumerate(names):
        own = table[table["solution"] == name]
        places = own["stage"].map(stages.index) + 0.5 * ((number + 0.5) / len(names) - 0.5)
        low, high = (own[end].clip(-1, 1) for end in ("rho_low", "rho_high"))
        errors = [own["rho"] - low, high - own["rho"]]
        style = {"color": colour(name), "capsize": 2, "markersize": 4, "linewidth": 1.2}
        ax.errorbar(own["rho"], places, xerr=errors, fmt="o", label=name, **style)
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_yticks(range(len(stages)), stages)
    ax.set_ylim(len(stages) - 0.5, -0.5)
    ax.set_xlim(-1.05, 1.05)
    return legend(ax)


def parts_map(parts: pd.DataFrame, solution: str, ax: Axes | None = None) -> Axes:
    """rho between detection's parts and classification at the last shared layer, with its margin of error
    (95 %); empty where the signal is too weak. parts: of a study."""
    title = f"Which part of detection fights: {solution}"
    ax = axes(ax, title, "part of the loss", "part of the loss", (5.2, 3.6), grid=False)
    table, margins = rho_of_parts(parts[parts["solution"] == solution])
    if table.isna().all(axis=None):
        return legend(ax)
    said = table.map("{:+.2f}".format) + "\n±" + margins.map("{:.2f}".format)
    options = {"annot": said, "fmt": "", "cbar_kws": {"label": "rho"}}
    sns.heatmap(table, cmap="RdBu", vmin=-1, vmax=1, **options, ax=ax)
    ax.tick_params(rotation=0)
    ax.set(xlabel="part of the loss", ylabel="part of the loss")
    return ax


def harm(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Does conflict predict harm: delta_m over rho, a point a run; `table`: as `evidence.interference.harm`
    has it. Lines are rho's 95 % intervals."""
    ax = axes(ax, translate("label.harm"), translate("label.rho"), translate("label.gains"), (7.0, 4.0))
    for name, own in table.groupby("solution", sort=False):
        style = {"color": colour(name), "label": name, "markersize": 5, "elinewidth": 0.8, "alpha": 0.9}
        ax.errorbar(own["rho"], own["delta_m"], xerr=own["margin"], fmt="o", **style)
    for line in (ax.axhline, ax.axvline):
        line(0, color="0.4", linewidth=0.8)
    ax.set_xlim(-1.05, 1.05)
    return legend(ax, beside=True)


def cosine_heatmap(probes: pd.DataFrame, solution: str, kind: str = "conv", ax: Axes | None = None) -> Axes:
    """Cosine of the two tasks' gradients, stage by step (mean over runs); below 0 is a conflict.

    The colours span the cosines of all solutions in `probes`, so that maps of one study compare.
    """
    of_kind = probes[probes["kind"] == kind].astype({"cosine": float})
    part = of_kind[of_kind["solution"] == solution]
    table = part.pivot_table("cosine", "stage", "step")
    table = table.reindex([stage for stage in BRANCHES if stage in table.index])
    title = translate("label.cosine_map", solution=solution, kind=translate(f"label.{kind}"))
    ax = axes(ax, title, translate("label.step"), translate("label.stage"), grid=False)
    if table.empty:
        return legend(ax)
    limit = max(0.1, of_kind["cosine"].abs().quantile(0.99))
    # Not seaborn's: it draws the whole figure once more, which takes an explorer as long again.
    image = ax.imshow(table, aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit)
    at = np.arange(0, table.shape[1], max(1, -(-table.shape[1] // 7)))
    ax.set_xticks(at, table.columns[at])
    ax.set_yticks(range(len(table)), table.index)
    ax.figure.colorbar(image, ax=ax, label=translate("label.cosine")).ax.locator_params(nbins=5)
    return ax


def stage_bars(probe: pd.DataFrame, title: str, widest: float = 1.0, ax: Axes | None = None) -> Axes:
    """The cosine by stage of one probe and one kind of parameter (rows of a study's probes), conflicts red,
    on an axis from -widest to widest."""
    ax = axes(ax, title, "cosine (below 0: conflict)", "shared stage")
    cosines = probe.set_index("stage")["cosine"].astype(float)
    cosines = cosines.reindex([stage for stage in BRANCHES if stage in cosines.index])
    red, blue = sns.color_palette("RdBu", 8)[::7]
    ax.barh(cosines.index, cosines, color=np.where((cosines < 0).to_numpy()[:, None], red, blue))
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
    rows, columns = (sorted({*part[key]}) for key in ("class", "view"))  # those that were measured
    title = f"Which jets fight with which views: {solution}"
    size = max(5.2, 1.1 * len(columns) + 2), max(3.6, 0.6 * len(rows) + 1.2)  # names may be long
    ax = axes(ax, title, "view", "jet", size, grid=False)
    if part.empty:
        return legend(ax)
    mean, conflict = (
        part.assign(conflict=part["cosine"] < 0).pivot_table(column, "class", "view").astype(float)
        for column in ("cosine", "conflict")
    )
    texts = mean.map("{:+.2f}\n".format) + conflict.map("{:.0%} below 0".format)
    limit, bar = max(0.1, mean.abs().max(axis=None)), {"label": "mean cosine (below 0: conflict)"}
    cells = {"annot": texts, "fmt": "", "annot_kws": {"fontsize": "small"}}
    names = {"xticklabels": [views[i] for i in columns], "yticklabels": [classes[i] for i in rows]}
    sns.heatmap(mean, cmap="RdBu", vmin=-limit, vmax=limit, cbar_kws=bar, **cells, **names, ax=ax)
    ax.tick_params(rotation=0)
    ax.set(xlabel="view", ylabel="jet")
    return ax


def gradient_share(steps: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Detection's part of the weighted gradient norms, running mean, by step."""
    ax = axes(ax, translate("quantity.share_detection"), translate("label.step"), translate("label.share"))
    _from_0_to_1(ax)
    return draw_runs(ax, steps, "step", {"share_detection": "-"}, smooth=0.1)


def replayed(steps: pd.DataFrame, replay: pd.DataFrame, left: Axes, right: Axes) -> None:
    """A run's own weights and gradient share (grey) beside those of a `replay` of it."""
    axes(left, "Loss weights", "step", "weight (dotted: classification)").set_ylim(0, 2.05)
    _from_0_to_1(axes(right, "Weighted gradient share", "step", "detection's share (rest: classification)"))
    for table, shade, label in ((steps, "0.6", "the run"), (replay, colour("gradnorm"), "GradNorm as set")):
        left.plot(table["step"], table["weight_detection"], color=shade, label=label)
        left.plot(table["step"], table["weight_classification"], ":", color=shade)
        share = table["share_detection"].rolling(max(1, len(table) // 10), min_periods=1).mean()
        right.plot(table["step"], share, color=shade, label=label)
    legend(left)
    legend(right)


def _from_0_to_1(ax: Axes) -> None:
    ax.axhline(0.5, color="0.4", linewidth=0.8)
    ax.set_ylim(-0.02, 1.02)
