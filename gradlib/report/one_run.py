"""What the tables of one solution show, in a sentence as Markdown: tasks switched off, views confused."""

import numpy as np
import pandas as pd

from gradlib.evidence.diagnostics import COLLAPSE_SHARE, task_collapses
from gradlib.report.rendering import escape


def alarms(steps: pd.DataFrame) -> list[str]:
    """A line of evidence for each task that the training with these `steps` switched off."""
    return [
        f"collapse: {row['task']} has less than {COLLAPSE_SHARE:.0%} of the weighted gradient since step "
        f"{row['fell_at']} (weight {row['weight_start']:.3g} to {row['weight_end']:.3g}), and its loss "
        f"has stood still since ({row['loss_at_fall']:.3f} to {row['loss_end']:.3f})"
        for row in task_collapses(steps)
        if row["state"] == "collapse"
    ]


def commonest_confusion(table: pd.DataFrame) -> str:
    """A `view_confusion` in a sentence: how many are right, and what is confused most."""
    counts = table.to_numpy()
    right, total = int(np.trace(counts)), int(counts.sum())
    if not total:
        return "no test frame has a view."
    wrong = counts - np.diag(np.diag(counts))
    text = f"{right} of {total} frames named right ({right / total:.0%})"
    if not wrong.any():
        return f"{text}, none confused."
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    true, named = escape(table.index[row]), escape(table.columns[column])
    return f"{text}; most often {true} is named {named} ({wrong.max()} times)."
