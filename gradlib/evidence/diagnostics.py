"""What the gradients did: conflict by stage, tasks switched off, how smoothly training went.

Pandas in, pandas out, from a study's `probes`, `steps` and `epochs` (see `compare`).
"""

from functools import partial

import numpy as np
import pandas as pd
import torch

from gradlib.balance.gradnorm import GradNorm
from gradlib.config import BRANCHES, TASKS
from gradlib.evidence.tables import RUN, names, numbers, over_runs, per_cent, window
from gradlib.model import yolo

__all__ = [
    "COLLAPSE_LOSS_FALL",
    "COLLAPSE_SHARE",
    "alarms",
    "by_run",
    "collapse",
    "common_stages",
    "conflict_by_stage",
    "conflicts",
    "imbalance",
    "largest_rises",
    "reached",
    "replay",
    "stability",
]

STAGES = BRANCHES[1:]
# Below this weighted gradient share the shared layers are steered by the other task alone.
COLLAPSE_SHARE = 0.01
# A task that still learns brings its loss down by more than this after its share fell under.
COLLAPSE_LOSS_FALL = 0.02


def conflict_by_stage(study) -> pd.DataFrame:
    """Cosine, conflict rate, magnitude similarity and detection's part of the weighted gradient by (solution,
    kind, stage), and `probes`.

    Mean over a run's probe steps, then over runs. Empty where nothing is shared.
    """
    measures = ["cosine", "conflict", "magnitude_similarity", "share_detection"]
    by = ["solution", "kind", "stage"]
    probes = study.probes.dropna(subset=["cosine"]) if len(study.probes) else study.probes
    frame = probes.reindex(columns=[*RUN, "kind", "stage", *measures])
    per_run = frame.groupby([*RUN, "kind", "stage"], sort=False)[measures].mean().reset_index()
    out = over_runs(per_run, by, measures)
    out["probes"] = frame.groupby(by, sort=False).size()
    out = out.reset_index()
    for column, order in (("solution", names(study)), ("stage", STAGES)):
        out[column] = pd.Categorical(out[column], [*order])
    out = out.sort_values(by).astype({"solution": str, "stage": str})
    return out.set_index(by)


def conflicts(study, kind: str = "conv") -> pd.DataFrame:
    """The same over all shared stages of one `kind` of parameter; one row a solution."""
    table = conflict_by_stage(study).query("kind == @kind")
    measures = ["cosine", "conflict", "magnitude_similarity"]
    out = table.groupby("solution", sort=False)[measures].mean()
    worst = table["conflict"].groupby("solution", sort=False)
    out["worst"] = worst.idxmax().map(lambda key: key[2]) if len(out) else None
    out["worst_conflict"] = worst.max()
    out["probes"] = table.groupby("solution", sort=False)["probes"].sum()
    return out


def collapse(study) -> pd.DataFrame:
    """Whether training switched a task off; one row a (solution, fold, seed, task) with a share.

    `state`: "collapse" where the task's weighted gradient share ends (mean of the last tenth of
    the steps) below `COLLAPSE_SHARE` and its loss, from then on, did not fall by more than
    `COLLAPSE_LOSS_FALL`; "still learning" where it did; "too late to tell" where the share fell
    under within the last fifth of the steps; else "none". A small weight alone is not a collapse.
    `fell_at` (step) is when the share's running median fell under for good.
    """
    rows = [
        dict(zip(RUN, run, strict=True)) | row
        for run, frame in study.steps.groupby(RUN, sort=False)
        for row in _collapses(frame)
    ]
    columns = [*RUN, "task", "weight_start", "weight_end", "share_start", "share_end", "fell_at"]
    columns += ["loss_at_fall", "loss_end", "loss_change", "state"]
    table = pd.DataFrame(rows, columns=columns)
    table["solution"] = pd.Categorical(table["solution"], names(study))
    table = table.sort_values("solution", kind="stable").astype({"solution": str})
    return table.set_index([*RUN, "task"])


def alarms(steps: pd.DataFrame) -> list[str]:
    """A line of evidence for each task that the training with these `steps` switched off; see `collapse`."""
    return [
        f"collapse: {row['task']} has less than {COLLAPSE_SHARE:.0%} of the weighted gradient since step "
        f"{row['fell_at']} (weight {row['weight_start']:.3g} to {row['weight_end']:.3g}), and its loss "
        f"has stood still since ({row['loss_at_fall']:.3f} to {row['loss_end']:.3f})"
        for row in _collapses(steps)
        if row["state"] == "collapse"
    ]


def _collapses(frame: pd.DataFrame) -> list[dict]:
    """The judgement on each task of one run's steps; none where no share was recorded."""
    shares = numbers(frame, ["share_detection"])["share_detection"]
    frame, shares = frame[shares.notna().to_numpy()], shares.dropna()
    if shares.empty:
        return []
    return [
        _collapse(share, numbers(frame, [f"loss_{task}"]).iloc[:, 0].to_numpy(), frame, task)
        for task, share in zip(TASKS, (shares, 1 - shares), strict=True)
    ]


def _collapse(share: pd.Series, loss: np.ndarray, frame: pd.DataFrame, task: str) -> dict:
    n, steps = window(share), frame["step"].to_numpy()
    weight = numbers(frame, [f"weight_{task}"]).iloc[:, 0].to_numpy()
    row = {
        "task": task,
        "weight_start": weight[0],
        "weight_end": weight[-1],
        "share_start": share.iloc[:n].mean(),
        "share_end": share.iloc[-n:].mean(),
        "loss_end": loss[-n:].mean(),
        "state": "none",
    }
    if row["share_end"] >= COLLAPSE_SHARE:
        return row
    # A median, so that one stray step above the limit does not move the moment of the fall.
    above = np.flatnonzero(share.rolling(n, min_periods=1).median() >= COLLAPSE_SHARE)
    fell = min(above[-1] + 1, len(share) - 1) if len(above) else 0
    at_fall = loss[fell : fell + n].mean()
    change = per_cent(at_fall, row["loss_end"]).item()
    row |= {"fell_at": steps[fell], "loss_at_fall": at_fall, "loss_change": change}
    if len(share) - fell < 2 * n:
        return row | {"state": "too late to tell"}
    fallen = change < -100 * COLLAPSE_LOSS_FALL
    return row | {"state": "still learning" if fallen else "collapse"}


def common_stages(study, *solutions: str) -> list[str]:
    """The shared stages that have probes in all of these solutions, from the input on.

    Rates over different stages cannot be compared: late ones conflict more often than early ones, and a
    solution that parts early has only the latter.
    """
    probes = study.probes
    if not len(probes):
        return []
    found = [set(probes.loc[probes["solution"] == name, "stage"]) for name in solutions]
    return [stage for stage in STAGES if all(stage in stages for stages in found)]


def by_run(study, solution: str, measure: str, stages: list[str]) -> pd.Series:
    """A measure of the probes of convolutions, mean over a run's steps and then over `stages`; one value a
    run, indexed by fold and seed."""
    probes = study.probes
    chosen = (probes["solution"] == solution) & (probes["kind"] == "conv") & probes["stage"].isin(stages)
    values = probes[chosen].dropna(subset=["cosine"]).astype({measure: float})
    by_stage = values.groupby(["fold", "seed", "stage"])[measure].mean()
    return by_stage.groupby(["fold", "seed"]).mean()


def imbalance(study, solution: str) -> pd.Series:
    """How far detection's weighted gradient share ends from one half (mean of the last tenth of the steps);
    one value a run, indexed by fold and seed."""
    rows = collapse(study)["share_end"].xs("detection", level="task")
    rows = rows[rows.index.get_level_values("solution") == solution].droplevel("solution")
    return (rows.astype(float) - 0.5).abs()


def reached(study) -> pd.DataFrame:
    """Whose gradient reaches how many parameters: columns both, detection, classification, total.

    Counted on the architecture that each solution's `config.json` describes; one row a solution that has a
    network.
    """
    rows, networks = {}, study.runs.dropna(subset="parameters").drop_duplicates("solution")
    for run in networks[RUN].itertuples(index=False, name=None):
        config = study.config(*run)
        tasks, sizes = config["solution"]["tasks"], (len(config["classes"]), len(config["views"]))
        where = config["solution"]["branch"], config["solution"].get("width", 1.0)  # absent from old runs
        model = yolo.MultiTaskYOLO(config["size"], *sizes, tuple(tasks), *where)
        own = {task: sum(p.numel() for p in model.task_parameters(task)) for task in tasks}
        both = sum(p.numel() for p in model.shared_parameters())
        rows[run[0]] = {"both": both, **dict.fromkeys(TASKS, 0), **own, "total": both + sum(own.values())}
    return pd.DataFrame.from_dict(rows, orient="index").loc[[name for name in names(study) if name in rows]]


@torch.inference_mode()  # its bookkeeping is saved, a fifth of the time
def replay(
    steps: pd.DataFrame, weights: tuple[float, float], alpha: float, learning_rate: float = 0.025, **options
) -> pd.DataFrame:
    """The weights that GradNorm would have given each step of one run, from the losses and gradient norms
    that the run had: columns step, weight_detection, weight_classification, share_detection.

    With the run's own settings, its own weights. With others it is a first look, not a run: other weights
    would have trained the network another way, and its losses and norms would have been others. weights: at
    the start. learning_rate, options: `balancing.GradNorm`'s. ValueError where the run kept no norms.
    """
    losses, norms = (
        torch.tensor(numbers(steps, [f"{what}_{task}" for task in TASKS]).to_numpy())
        for what in ("loss", "norm")
    )
    if norms.isnan().all():
        raise ValueError("nothing is shared in this run, so it kept no gradient norms to balance")
    adam = partial(torch.optim.Adam, foreach=False)  # to find that out in every step takes a fifth longer
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


def largest_rises(study, solution: str) -> np.ndarray:
    """Of each run of a solution, the largest rise of a task's training loss from one epoch to the next, in
    per cent; 0 where none ever rose."""
    rows = []
    for _, frame in study.epochs[study.epochs["solution"] == solution].groupby(RUN, sort=False):
        losses = numbers(frame, [f"train_loss_{task}" for task in TASKS]).dropna(axis=1, how="all")
        rows.append(max(0.0, float((100 * losses.pct_change(fill_method=None)).max(axis=None))))
    return np.nan_to_num(np.array(rows))


def stability(study) -> pd.DataFrame:
    """How smoothly each task's (unweighted) training loss falls; one row a (solution, task).

    `rises`: epochs in which it rose, of `epochs`; `largest_rise` in per cent of the epoch before;
    `norm_ratio`: gradient norm at the last shared layer, end / start. Of several runs the worst.
    """
    rows = []
    for run, frame in study.epochs.groupby(RUN, sort=False):
        steps = study.steps.set_index(RUN).sort_index().loc[[run]]
        for task in TASKS:
            loss = numbers(frame, [f"train_loss_{task}"]).iloc[:, 0]
            if loss.isna().all():
                continue
            change = 100 * loss.pct_change(fill_method=None).dropna()
            norm = numbers(steps, [f"norm_{task}"]).iloc[:, 0].dropna()
            n = window(norm)
            ratio = norm.iloc[-n:].mean() / norm.iloc[:n].mean() if len(norm) else np.nan
            largest = max(change.max(), 0) if len(change) else 0.0
            rows.append((*run, task, (change > 0).sum(), len(change), largest, ratio))
    measures = ["rises", "epochs", "largest_rise", "norm_ratio"]
    frame = pd.DataFrame(rows, columns=[*RUN, "task", *measures])
    # The worst run speaks for stability; a mean would hide it.
    out = frame.groupby(["solution", "task"], sort=False)[measures].max()
    return out.loc[[name for name in names(study) if name in out.index.get_level_values(0)]]
