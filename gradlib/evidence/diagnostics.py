"""What the gradients did: their norms by stage, tasks switched off, how smoothly training went.

Pandas in, pandas out, from a study's `probes`, `steps` and `epochs` (see `tables`).
"""

import numpy as np
import pandas as pd

from gradlib.config import BRANCHES, TASKS
from gradlib.evidence.tables import RUN, in_order, numbers, over_runs, per_cent, start_end, window

STAGES = BRANCHES[1:]
MEASURED = ["magnitude_similarity", "share_detection"]
# Below this weighted gradient share of a task, the other task alone steers the shared layers.
COLLAPSE_SHARE = 0.01
# A task that still learns brings its loss down by more than this after its share fell under.
COLLAPSE_LOSS_FALL = 0.02


def norms_by_stage(study) -> pd.DataFrame:
    """Magnitude similarity of the tasks' gradients and detection's part of the weighted gradient, by
    (solution, kind, stage): mean over a run's probes, then over runs. Empty where nothing is shared."""
    by = ["solution", "kind", "stage"]
    probes = study.probes.reindex(columns=[*RUN, *by[1:], *MEASURED])
    means = probes.astype(dict.fromkeys(MEASURED, float)).groupby([*RUN, *by[1:]], sort=False).mean()
    out = over_runs(means.reset_index(), by, MEASURED)
    out = out.sort_values(["kind", "stage"], key=lambda c: c.map(STAGES.index) if c.name == "stage" else c)
    return in_order(study, out)


def common_stages(study, *solutions: str) -> list[str]:
    """The shared stages that have probes in all of these solutions, from the input on.

    Rates over different stages cannot be compared: late ones conflict more often than early ones, and a
    solution that parts early has only the early ones.
    """
    found = study.probes.groupby("solution")["stage"].unique() if len(study.probes) else {}
    return [stage for stage in STAGES if all(stage in found.get(name, ()) for name in solutions)]


def imbalance(study, solution: str, against: str) -> pd.Series:
    """How far detection's weighted gradient share ends from one half in every run of a solution, by fold and
    seed, minus that of another in the same fold and seed."""
    values = (collapse(study)["share_end"].xs("detection", level="task").astype(float) - 0.5).abs()
    own, other = (values[values.index.get_level_values(0) == one].droplevel(0) for one in (solution, against))
    return (own - other).dropna()


def collapse(study) -> pd.DataFrame:
    """Whether training switched a task off: `task_collapses` of every run; one row a (solution, fold, seed,
    task). Columns `weight_start`, `weight_end`, `share_start`, `share_end` (of the weighted gradient),
    `fell_at` (a step), `loss_at_fall`, `loss_end`, `loss_change` (per cent), `state`.
    """
    runs = study.steps.groupby(RUN, sort=False)
    rows = [dict(zip(RUN, run, strict=True)) | row for run, steps in runs for row in task_collapses(steps)]
    columns = [*RUN, "task", "weight_start", "weight_end", "share_start", "share_end", "fell_at"]
    columns += ["loss_at_fall", "loss_end", "loss_change", "state"]
    return in_order(study, pd.DataFrame(rows, columns=columns)).set_index([*RUN, "task"])


def task_collapses(steps: pd.DataFrame) -> list[dict]:
    """Whether the training of one run with these `steps` switched a task off: a row of `collapse` for each
    task, none where no share was recorded.

    state: "collapse" where the task's weighted gradient share ends (mean of the last tenth of the steps)
    below `COLLAPSE_SHARE` and its loss, from then on, did not fall by more than `COLLAPSE_LOSS_FALL`; "still
    learning" where it did; "too late to tell" where the share fell under within the last fifth of the steps;
    else "none". A small weight alone is not a collapse.
    """
    columns = [f"{what}_{task}" for what in ("loss", "weight") for task in TASKS]
    steps = numbers(steps, ["step", "share_detection", *columns]).dropna(subset="share_detection")
    shares, n, rows = steps["share_detection"], window(steps), []
    for task, share in zip(TASKS, (shares, 1 - shares), strict=True) if len(shares) else ():
        loss, weight = (steps[f"{what}_{task}"].to_numpy() for what in ("loss", "weight"))
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


def reached(study) -> pd.DataFrame:
    """How many parameters each task's gradient reaches: columns both, detection (alone), classification
    (alone), total; one row a solution that has a network. NaN in runs that did not record it."""
    columns = ["parameters_shared", *(f"parameters_{task}" for task in TASKS), "parameters"]
    networks = study.runs.dropna(subset="parameters").drop_duplicates("solution").set_index("solution")
    return in_order(study, numbers(networks, columns).set_axis(["both", *TASKS, "total"], axis=1))


def loss_changes(study) -> pd.DataFrame:
    """How smoothly each task's (unweighted) training loss falls; columns solution, fold, seed, task.

    `rises`: epochs in which it rose, of `epochs`; `largest_rise` in per cent of the epoch before, 0 where it
    never rose.
    """
    rows = []
    for run, frame in study.epochs.groupby(RUN, sort=False):
        losses = numbers(frame, [f"train_loss_{task}" for task in TASKS]).set_axis(TASKS, axis=1)
        for task, loss in losses.dropna(axis=1, how="all").items():
            change = 100 * loss.pct_change(fill_method=None).dropna()
            rows.append((*run, task, (change > 0).sum(), len(change), max([0.0, *change])))
    return pd.DataFrame(rows, columns=[*RUN, "task", "rises", "epochs", "largest_rise"])


def stability(study) -> pd.DataFrame:
    """The worst `loss_changes` of a solution's runs (a mean would hide it); one row a (solution, task)."""
    changes = loss_changes(study).drop(columns=["fold", "seed"])
    return in_order(study, changes.groupby(["solution", "task"], sort=False).max())
