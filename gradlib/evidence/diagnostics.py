"""What the gradients did: conflicts by stage, tasks switched off, how smoothly training went.

Pandas in, pandas out, from a study's `probes`, `steps` and `epochs` (see `tables`).
"""

import numpy as np
import pandas as pd

from gradlib.config import BRANCHES, TASKS
from gradlib.evidence.tables import RUN, in_order, numbers, over_runs, per_cent, start_end, window

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
    out = out.sort_values(["kind", "stage"], key=lambda c: c.map(STAGES.index) if c.name == "stage" else c)
    return in_order(study, out)


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
    return in_order(study, table).set_index([*RUN, "task"])


def task_collapses(steps: pd.DataFrame) -> list[dict]:
    """Whether the training of one run with these `steps` switched a task off: a row of `collapse` for each
    task, none where no share was recorded.

    state: "collapse" where the task's weighted gradient share ends (mean of the last tenth of the steps)
    below `COLLAPSE_SHARE` and its loss, from then on, did not fall by more than `COLLAPSE_LOSS_FALL`; "still
    learning" where it did; "too late to tell" where the share fell under within the last fifth of the steps;
    else "none". A small weight alone is not a collapse.
    """
    steps = steps[numbers(steps, ["share_detection"])["share_detection"].notna().to_numpy()]
    shares, n, rows = numbers(steps, ["share_detection"])["share_detection"], window(steps), []
    for task, share in zip(TASKS, (shares, 1 - shares), strict=True) if len(shares) else ():
        loss, weight = numbers(steps, [f"loss_{task}", f"weight_{task}"]).to_numpy().T
        row = {"task": task, "weight_start": weight[0], "weight_end": weight[-1], "state": "none"}
        row["share_start"], row["share_end"] = start_end(share)
        row["loss_end"] = loss[-n:].mean()
        if row["share_end"] < COLLAPSE_SHARE:
            # A median, so that one stray step above the limit does not move the moment of the fall.
            above = np.flatnonzero(share.rolling(n, min_periods=1).median() >= COLLAPSE_SHARE)
            fell = min(above[-1] + 1, len(share) - 1) if len(above) else 0
            at_fall = loss[fell : fell + n].mean()
            change = per_cent(at_fall, row["loss_end"]).item()
            row |= {"fell_at": steps["step"].to_numpy()[fell], "loss_at_fall": at_fall, "loss_change": change}
            learns = "still learning" if change < -100 * COLLAPSE_LOSS_FALL else "collapse"
            row["state"] = "too late to tell" if len(share) - fell < 2 * n else learns
        rows.append(row)
    return rows


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
    return in_order(study, counts)


def loss_changes(study) -> pd.DataFrame:
    """How smoothly each task's (unweighted) training loss falls; columns solution, fold, seed, task.

    `rises`: epochs in which it rose, of `epochs`; `largest_rise` in per cent of the epoch before;
    `norm_ratio`: gradient norm at the last shared layer, end / start.
    """
    rows, steps_of = [], dict(iter(study.steps.groupby(RUN)))
    for run, frame in study.epochs.groupby(RUN, sort=False):
        for task in TASKS:
            loss = numbers(frame, [f"train_loss_{task}"]).iloc[:, 0]
            if loss.notna().any():
                change = 100 * loss.pct_change(fill_method=None).dropna()
                norm = numbers(steps_of.get(run, study.steps[:0]), [f"norm_{task}"]).iloc[:, 0].dropna()
                start, end = start_end(norm) if len(norm) else (np.nan, np.nan)
                largest = max(0.0, change.max()) if len(change) else 0.0
                rows.append((*run, task, (change > 0).sum(), len(change), largest, end / start))
    return pd.DataFrame(rows, columns=[*RUN, "task", "rises", "epochs", "largest_rise", "norm_ratio"])


def largest_rises(study, solution: str) -> np.ndarray:
    """The largest rise of a task's training loss from one epoch to the next in per cent, in each run of a
    solution; 0 where none ever rose."""
    changes = loss_changes(study)
    own = changes[changes["solution"] == solution]
    return own.groupby(["fold", "seed"], sort=False)["largest_rise"].max().to_numpy()


def stability(study) -> pd.DataFrame:
    """The worst `loss_changes` of a solution's runs (a mean would hide it); one row a (solution, task)."""
    changes = loss_changes(study).drop(columns=["fold", "seed"])
    return in_order(study, changes.groupby(["solution", "task"], sort=False).max())
