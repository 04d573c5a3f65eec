"""What the gradients did: conflicts by stage, tasks switched off, how smoothly training went.

Pandas in, pandas out, from a study's `probes`, `steps` and `epochs` (see `tables`).
"""

import numpy as np
import pandas as pd

from gradlib.config import BRANCHES, TASKS
from gradlib.evidence.tables import RUN, names, numbers, over_runs, per_cent, window

STAGES = BRANCHES[1:]
# Below this weighted gradient share of a task, the other task alone steers the shared layers.
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
    """The same over all shared stages of one `kind` of parameter, and the worst stage; one row a solution."""
    table = conflict_by_stage(study).query("kind == @kind")
    groups = table.groupby("solution", sort=False)
    out = groups[["cosine", "conflict", "magnitude_similarity"]].mean()
    out["worst"] = groups["conflict"].idxmax().map(lambda key: key[2]) if len(out) else None
    out["worst_conflict"] = groups["conflict"].max()
    out["probes"] = groups["probes"].sum()
    return out


def common_stages(study, *solutions: str) -> list[str]:
    """The shared stages that have probes in all of these solutions, from the input on.

    Rates over different stages cannot be compared: late ones conflict more often than early ones, and a
    solution that parts early has only the early ones.
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


def collapse(study) -> pd.DataFrame:
    """Whether training switched a task off; one row a (solution, fold, seed, task) with a share.

    Columns: weight and share at start and end, `fell_at` (the step at which the share's running median fell
    under `COLLAPSE_SHARE` for good), the loss from then on, and the `state` (see `task_collapses`).
    """
    rows = [
        dict(zip(RUN, run, strict=True)) | row
        for run, frame in study.steps.groupby(RUN, sort=False)
        for row in task_collapses(frame)
    ]
    columns = [*RUN, "task", "weight_start", "weight_end", "share_start", "share_end", "fell_at"]
    columns += ["loss_at_fall", "loss_end", "loss_change", "state"]
    table = pd.DataFrame(rows, columns=columns)
    table["solution"] = pd.Categorical(table["solution"], names(study))
    table = table.sort_values("solution", kind="stable").astype({"solution": str})
    return table.set_index([*RUN, "task"])


def task_collapses(steps: pd.DataFrame) -> list[dict]:
    """Whether the training of one run with these `steps` switched a task off: a row of `collapse` for each
    task, none where no share was recorded.

    state: "collapse" where the task's weighted gradient share ends (mean of the last tenth of the steps)
    below `COLLAPSE_SHARE` and its loss, from then on, did not fall by more than `COLLAPSE_LOSS_FALL`; "still
    learning" where it did; "too late to tell" where the share fell under within the last fifth of the steps;
    else "none". A small weight alone is not a collapse.
    """
    shares = numbers(steps, ["share_detection"])["share_detection"]
    steps, shares = steps[shares.notna().to_numpy()], shares.dropna()
    if shares.empty:
        return []
    return [
        _task_collapse(share, steps, task) for task, share in zip(TASKS, (shares, 1 - shares), strict=True)
    ]


def _task_collapse(share: pd.Series, steps: pd.DataFrame, task: str) -> dict:
    n = window(share)
    loss, weight = numbers(steps, [f"loss_{task}", f"weight_{task}"]).to_numpy().T
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
    row |= {"fell_at": steps["step"].to_numpy()[fell], "loss_at_fall": at_fall, "loss_change": change}
    if len(share) - fell < 2 * n:
        return row | {"state": "too late to tell"}
    return row | {"state": "still learning" if change < -100 * COLLAPSE_LOSS_FALL else "collapse"}


def imbalance(study, solution: str) -> pd.Series:
    """How far detection's weighted gradient share ends from one half (mean of the last tenth of the steps);
    one value a run, indexed by fold and seed."""
    rows = collapse(study)["share_end"].xs("detection", level="task")
    rows = rows[rows.index.get_level_values("solution") == solution].droplevel("solution")
    return (rows.astype(float) - 0.5).abs()


def reached(study) -> pd.DataFrame:
    """How many parameters each task's gradient reaches: columns both, detection (alone), classification
    (alone), total; one row a solution that has a network. NaN in runs that did not record it."""
    columns = {"both": "parameters_shared"} | {task: f"parameters_{task}" for task in TASKS}
    networks = study.runs.dropna(subset="parameters").drop_duplicates("solution").set_index("solution")
    counts = numbers(networks, [*columns.values(), "parameters"]).set_axis([*columns, "total"], axis=1)
    counts = counts.astype(object).map(lambda count: count if pd.isna(count) else int(count))
    return counts.loc[[name for name in names(study) if name in counts.index]]


def largest_rises(study, solution: str) -> np.ndarray:
    """The largest rise of a task's training loss from one epoch to the next in per cent, in each run of a
    solution; 0 where none ever rose."""
    rows = []
    for _, frame in study.epochs[study.epochs["solution"] == solution].groupby(RUN, sort=False):
        losses = numbers(frame, [f"train_loss_{task}" for task in TASKS]).dropna(axis=1, how="all")
        rows.append(max(0.0, float((100 * losses.pct_change(fill_method=None)).max(axis=None))))
    return np.nan_to_num(np.array(rows))


def stability(study) -> pd.DataFrame:
    """How smoothly each task's (unweighted) training loss falls; one row a (solution, task).

    `rises`: epochs in which it rose, of `epochs`; `largest_rise` in per cent of the epoch before;
    `norm_ratio`: gradient norm at the last shared layer, end / start. The worst of several runs.
    """
    rows = []
    all_steps = study.steps.set_index(RUN).sort_index()
    for run, frame in study.epochs.groupby(RUN, sort=False):
        steps = all_steps.loc[[run]]
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
    # The worst run counts; a mean would hide it.
    out = frame.groupby(["solution", "task"], sort=False)[measures].max()
    return out.loc[[name for name in names(study) if name in out.index.get_level_values(0)]]
