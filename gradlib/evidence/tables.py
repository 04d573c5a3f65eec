"""Tables of a study, one row a solution: metrics, cost, training dynamics; and how people read them.

Every function takes a `StudyResults` (or anything with its `runs`, `steps` and `epochs`). A value of a
solution is the mean over its runs; where a solution has several, a column `<metric> sd` holds their standard
deviation (n - 1).
"""

import html
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from gradlib.checks import closest
from gradlib.config import TASKS, in_registry_order

RUN = ["solution", "fold", "seed"]
WINDOW = 0.1  # "start" and "end" of a noisy curve: the mean over this part of its steps


@dataclass(frozen=True)
class Metric:
    """How a column is called, scaled, rounded and judged.

    higher: whether more is better. margin: two solutions that differ by less are alike, where a study does
    not say otherwise. analytic: it is the network's, the same in every run.
    """

    label: str
    higher: bool = True
    unit: str = ""
    scale: float = 1.0
    digits: int = 3
    margin: float = np.nan
    analytic: bool = False

    @property
    def header(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def text(self, value: float | None, sign: str = "") -> str:
        """`value` in this metric's unit, rounded; with `sign` "+", signed. A missing one is a dash."""
        missing = value is None or not np.isfinite(value)
        return "–" if missing else f"{value * self.scale:{sign}z,.{self.digits}f}"


PERFORMANCE = {
    "map50": Metric("mAP@0.5", margin=0.03),
    "map50_95": Metric("mAP@0.5:0.95", margin=0.015),
    "precision": Metric("Precision", margin=0.05),
    "recall": Metric("Recall", margin=0.05),
    "f1": Metric("F1", margin=0.05),
    "detection_mse": Metric("Detection MSE", False, digits=4, margin=0.005),
    "accuracy": Metric("Accuracy", margin=0.03),
    "balanced_accuracy": Metric("Balanced accuracy", margin=0.03),
}
# Beside the means over folds, in which a fold of three patients counts as much as one of twelve.
FAIR = {
    "map50_pooled": Metric("mAP@0.5, folds pooled"),
    "map50_by_patient": Metric("mAP@0.5, mean over patients"),
    "accuracy_by_patient": Metric("Accuracy, mean over patients"),
}
# By task, the one number that stands for it where tasks are averaged.
SCORES = ["map50", "balanced_accuracy"]
COST = {
    "parameters": Metric("Parameters", False, digits=0, analytic=True),
    "macs": Metric("MACs", False, "millions", 1e-6, 1, analytic=True),
    "peak_memory_mb": Metric("Peak memory", False, "MiB", digits=0),
    "seconds": Metric("Training time", False, "s", digits=1),
    "seconds_per_epoch": Metric("Time per epoch", False, "s", digits=2),
}
PER_PARAMETER = {f"{s}_per_million": Metric(f"{PERFORMANCE[s].label} per million parameters") for s in SCORES}
# Measured between solutions, or between the tasks of one.
RELATIVE = {
    "delta_m": Metric("delta_m", unit="%", digits=1, margin=5),
    "rho": Metric("Interference rho", margin=0.1),
    "imbalance": Metric("Distance of detection's share from one half", False, margin=0.05),
}
METRICS = PERFORMANCE | FAIR | COST | PER_PARAMETER | RELATIVE
PARTS = {"train": "Training", "valid": "Validation"}
# What `dynamics` follows, in the order of its rows.
QUANTITIES = {
    **{f"weight_{task}": f"Weight of {task}" for task in TASKS},
    "share_detection": "Weighted gradient share of detection",
    "lr_shared": "Learning rate, shared part",
    **{f"lr_{task}": f"Learning rate, {task}" for task in TASKS},
    **{f"{part}_loss": f"{name} loss, weighted sum" for part, name in PARTS.items()},
    **{f"{part}_loss_{task}": f"{name} loss of {task}" for task in TASKS for part, name in PARTS.items()},
}


def names(study) -> list[str]:
    """The solutions of a study: the registry's order first, then the others by name."""
    return in_registry_order(set(study.runs["solution"]))


def joint(study) -> list[str]:
    """The solutions with metrics of both tasks."""
    return [*core_metrics(study).dropna(subset=SCORES).index]


def in_order(study, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `table` (with a column or index `solution`) in the order of `names`."""
    place = names(study).index
    return table.sort_values("solution", key=lambda column: column.map(place), kind="stable")


def run_keys(study, solution: str) -> list[tuple[str, int, int]]:
    """The (solution, fold, seed) of a solution's complete runs. ValueError where there is none."""
    runs = study.runs[study.runs["solution"] == solution]
    if runs.empty:
        hint = closest(solution, names(study))
        raise ValueError(f"no complete run of {solution!r} in this study{hint}")
    return [*runs[RUN].itertuples(index=False, name=None)]


def numbers(frame: pd.DataFrame, columns) -> pd.DataFrame:
    """`columns` as floats; a column or value that is not there is NaN."""
    return frame.reindex(columns=[*columns]).astype(float)


def over_runs(frame: pd.DataFrame, by: list[str], columns) -> pd.DataFrame:
    """Mean of `columns` by `by`, the number of rows, and standard deviations where rows > 1."""
    groups = pd.concat([frame[by], numbers(frame, columns)], axis=1).groupby(by, sort=False)
    table = groups.mean()
    table.insert(0, "runs", groups.size())
    return table.join(groups.std().add_suffix(" sd")) if (table["runs"] > 1).any() else table


def core_metrics(study) -> pd.DataFrame:
    """Test metrics, one row a solution: `runs`, the names of `PERFORMANCE`, `<metric> sd`."""
    return in_order(study, over_runs(study.runs, ["solution"], PERFORMANCE))


def efficiency(study) -> pd.DataFrame:
    """Cost, one row a solution: the names of `COST`, and scores per million parameters."""
    table = in_order(study, over_runs(study.runs, ["solution"], COST))
    scores = core_metrics(study)
    for name in SCORES:
        table[f"{name}_per_million"] = scores[name] / (table["parameters"] / 1e6)
    return table


def trade_off(evidence) -> pd.DataFrame:
    """Both tasks' scores of every solution of an `intervals.Evidence`; one row a solution.

    Columns `<score>`, `<score> margin` (the 95 % margin of error, NaN where there is none) and `front`:
    whether no other solution has as much of both and more of one (the Pareto front of the means).
    """
    rows = {}
    for name in names(evidence.study):
        levels = {score: evidence.level(name, score) for score in SCORES}
        rows[name] = {score: one.value for score, one in levels.items()}
        rows[name] |= {f"{score} margin": one.margin_of_error for score, one in levels.items()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    points = table[SCORES].to_numpy()
    dominated = (points[None] >= points[:, None]).all(-1) & (points[None] > points[:, None]).any(-1)
    return table.assign(front=~dominated.any(1) & np.isfinite(points).all(1))


def dynamics(study) -> pd.DataFrame:
    """Start and end of what changes in training; one row a (solution, quantity).

    Columns `start`, `end`, `highest`, `runs` (and `sd`), `change` (per cent of the start), `trend`. Weights:
    first and last step; learning rates: peak and last step. Losses: first and last epoch. The gradient share
    is noisy: means of the first and the last tenth of the steps.
    """
    rows = []
    for quantity in QUANTITIES:
        table = study.epochs if "_loss" in quantity else study.steps
        table = pd.concat([table[RUN], numbers(table, [quantity])], axis=1).dropna()
        for run, values in table.groupby(RUN, sort=False)[quantity]:
            start, end = start_end(values, window(values) if quantity.startswith("share") else 1)
            start = values.max() if quantity.startswith("lr_") else start  # the schedule's, after the warm-up
            rows.append((*run, quantity, start, end, values.max()))
    frame = pd.DataFrame(rows, columns=[*RUN, "quantity", "start", "end", "highest"])
    out = over_runs(frame, ["solution", "quantity"], ["start", "end", "highest"])
    out["change"] = per_cent(out["start"], out["end"])
    same = np.isclose(out["start"], out["end"], rtol=0.01, atol=1e-12)
    out["trend"] = np.where(same, "unchanged", np.where(out["end"] < out["start"], "falls", "rises"))
    return in_order(study, out)


def start_to_end(study) -> pd.DataFrame:
    """`dynamics` as text: one row a quantity, one column a solution that was trained, `start → end`."""
    table = dynamics(study)
    start, end = (table[column].map("{:.3g}".format) for column in ("start", "end"))
    cells = (start + "\u00a0→\u00a0" + end).str.replace("-", "\u2011")  # no line break within 1e-05
    table = cells.to_frame("cell").pivot_table("cell", "quantity", "solution", aggfunc="first")
    trained = [name for name in names(study) if name in table]
    table = table.reindex(index=[*QUANTITIES], columns=trained).dropna(how="all")
    return table.fillna("–").rename(index=QUANTITIES).rename_axis(index=None, columns=None)


def window(values) -> int:
    """How many values make a "start" or an "end": a tenth, at least one."""
    return max(1, round(WINDOW * len(values)))


def start_end(values, n: int | None = None) -> tuple[float, float]:
    """Means of the first and of the last `n` values, by default of as many as make a `window`."""
    values = np.asarray(values, float)
    n = n or window(values)
    return values[:n].mean(), values[-n:].mean()


def per_cent(a, b):
    """Relative change from `a` to `b` in per cent; NaN where `a` is zero."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    return np.divide(100 * (b - a), np.abs(a), out=np.full_like(a, np.nan), where=a != 0)


def captioned(table: pd.DataFrame, caption: str, form=None, **options) -> Styler:
    """The table with a caption, to be shown; names in it are escaped, which pandas leaves to the caller.

    form, options: of `Styler.format`.
    """
    style = table.style.format(form, escape="html", **options).set_caption(html.escape(caption))
    return style.format_index(escape="html").format_index(escape="html", axis="columns")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text: headers with units, values rounded, spreads as `mean ± sd`."""
    out = {}
    for column, values in table.items():
        if metric := METRICS.get(column):
            spreads = table.get(f"{column} sd", values * 0)
            spreads = [f" ± {metric.text(sd)}" if sd > 0 else "" for sd in spreads]
            out[metric.header] = values.map(metric.text) + spreads
        elif not column.endswith(" sd"):
            out[column] = values
    return pd.DataFrame(out, index=table.index)
