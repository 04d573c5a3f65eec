"""The figures of a search, drawn by Optuna, and what each of them shows in words."""

import contextlib
from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import optuna
import pandas as pd
from matplotlib.axes import Axes

from gradlib.plots import style
from gradlib.report.rendering import escape
from gradlib.study.objective import text
from gradlib.study.trials import best_first, described, ended, name_of, quiet

__all__ = [
    "history",
    "history_says",
    "importance",
    "importance_says",
    "importances",
    "parallel",
    "parallel_says",
]

FEWEST = 4  # complete trials, below which values are not compared
FEW = f"Fewer than {FEWEST} trials are complete: too few to compare their values."


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    """Optuna sets a style for everything that is drawn after; here it ends with the figure."""
    with quiet(), plt.rc_context():
        yield
        shown = plt.isinteractive()
    matplotlib.interactive(shown)  # with its first figure, Jupyter's backend sets that it shows them


def history(study: optuna.Study, objective: str) -> Axes | None:
    """The objective of each complete trial, and the best until then; None without one."""
    if not best_first(study):
        return None
    with _drawing():
        return optuna.visualization.matplotlib.plot_optimization_history(study, target_name=objective)


def history_says(study: optuna.Study, objective: str) -> str:
    """How late the best trial came, and what the second half of the trials brought."""
    found = best_first(study)
    if not found:
        return "No trial is complete."
    order = [name_of(trial) for trial in sorted(ended(study), key=lambda trial: trial.number)]
    best = found[0]
    line = f"The best is {escape(described(best, objective))}; "
    line += f"it came as number {order.index(name_of(best)) + 1} of {len(order)} trials."
    early = [trial for trial in found if name_of(trial) in order[: len(order) // 2]]
    if not early:
        return line
    if early[0] is best:
        return f"{line} The second half of the trials brought nothing better."
    return f"{line} Of the first half of the trials the best had {escape(text(objective, early[0].value))}."


def importances(study: optuna.Study) -> dict[str, float]:
    """The part that each value has in how good a trial is, as Optuna estimates it, highest first; empty where
    too few trials are complete or all are alike."""
    found = best_first(study)
    if len(found) < FEWEST or found[0].value == found[-1].value:
        return {}
    with quiet():
        return optuna.importance.get_param_importances(study)


def importance(study: optuna.Study, objective: str) -> Axes | None:
    """`importances` as bars; None where there are none."""
    if not importances(study):
        return None
    with _drawing():
        return optuna.visualization.matplotlib.plot_param_importances(study, target_name=objective)


def importance_says(study: optuna.Study) -> str:
    """Which value matters most, and which least."""
    parts, number = importances(study), len(best_first(study))
    if not parts:
        return FEW if number < FEWEST else "All complete trials are alike: no value made a difference."
    names = list(parts)
    line = f"Judged by {number} complete trials, `{names[0]}` matters most ({parts[names[0]]:.0%})"
    return line + (f", `{names[-1]}` least ({parts[names[-1]]:.0%})." if len(names) > 1 else ".")


def parallel(study: optuna.Study, objective: str) -> Axes | None:
    """A line a complete trial through its values, the darker the better; None where there are too few."""
    if len(best_first(study)) < FEWEST:
        return None
    with _drawing():
        ax = optuna.visualization.matplotlib.plot_parallel_coordinate(study, target_name=objective)
    for one in ax.figure.axes:
        if one.get_yscale() == "log":
            style.log_scale(one)
    ax.figure.set_size_inches(10, 4.8)  # room for the numbers of each axis
    return ax


def parallel_says(study: optuna.Study) -> str:
    """Where the values of the best quarter of the trials lie, beside all of them."""
    found = best_first(study)
    if len(found) < FEWEST:
        return FEW
    table = pd.DataFrame([trial.params for trial in found])
    best = table.head(max(2, len(table) // 4))
    parts = [f"`{name}` {_where(best[name])} (of all: {_where(table[name])})" for name in table]
    return f"In the best {len(best)} of {len(table)} complete trials: {'; '.join(parts)}."


def _where(values: pd.Series) -> str:
    """The range of numbers, or the other values by how often they were taken."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        low, high = values.min(), values.max()
        return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return ", ".join(f"{escape(value)} ({count})" for value, count in values.value_counts().items())
