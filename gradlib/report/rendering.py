"""From values and tables to Markdown: names are text wherever they are printed, numbers are rounded."""

import html
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
from markupsafe import Markup

from gradlib.data.files import one_line
from gradlib.evidence.diagnostics import COLLAPSE_SHARE, task_collapses
from gradlib.evidence.interference import by_stage
from gradlib.evidence.intervals import Estimate
from gradlib.evidence.tables import METRICS, PERFORMANCE
from gradlib.plots.language import translate


class Text(Markup):
    """Markdown: templates print it as it is, and Jupyter shows it."""

    def _repr_markdown_(self) -> str:
        return str(self)


def escape(text: object) -> str:
    """A name, safe in Markdown and in the HTML that comes of it."""
    safe = html.escape(one_line(text), quote=False)
    safe = "".join(f"\\{c}" if c in "\\`*_{}[]|#$~!@:" else c for c in safe)
    # Where a line would begin an entry of a list.
    return re.sub(r"^(\d*)([-+=.)])(?=[-=\s]|$)", r"\1\\\2", safe)


def markdown(value: object) -> Text:
    """What templates print: Markdown as it is, all else escaped, a missing value as a dash."""
    if value is None:
        return Text("–")
    return value if isinstance(value, Markup) else Text(escape(value))


def form(value: float, spec: str, unit: str = "") -> Text:
    """A number by a format specification; a missing one is a dash."""
    spec = re.sub(r"^\+?(?=.*[fg%]$)", r"\g<0>z", spec)  # no negative zero
    return Text("–" if value is None or not np.isfinite(value) else f"{value:{spec}}{unit}")


def number(value: float | None, metric: str, sign: bool = False) -> Text:
    """A value of a metric in its unit, rounded; a missing one is a dash."""
    return Text(METRICS[metric].text(value, "+" if sign else ""))


def interval(estimate: Estimate, metric: str, sign: bool = False) -> Text:
    """An estimate with its 95 % interval, in the metric's unit; without one where there is none."""
    low, high = estimate.low, estimate.high
    if not sign:  # a level: a share lies in 0-1, a cost is not negative
        low, high = max(low, 0.0), min(high, 1.0) if metric in PERFORMANCE else high
    elif metric in PERFORMANCE:  # so their differences lie in -1 to 1
        low, high = max(low, -1.0), min(high, 1.0)
    text = number(estimate.value, metric, sign)
    if not np.isfinite(estimate.margin_of_error) or estimate.margin_of_error == 0:
        return text
    return Text(f"{text} [{number(low, metric, sign)}, {number(high, metric, sign)}]")


def rho(row: pd.Series, name: str = "rho") -> Text:
    """rho, `name` of a row of `evidence.interference.by_stage`, with its interval, which no cosine leaves."""
    value, *ends = (getattr(row, column) for column in (name, f"{name}_low", f"{name}_high"))
    ends = [form(end, "+.2f") for end in np.clip(ends, -1, 1) if np.isfinite(end)]
    return Text(form(value, "+.2f") + (f" [{', '.join(ends)}]" if ends else ""))


def p_value(estimate: Estimate) -> Text:
    """p of a difference; a dash where the values are the same in every run, which leaves nothing to test."""
    if estimate.standard_error == 0 or pd.isna(estimate.p):
        return Text("–")
    return Text("< 0.001" if estimate.p < 0.001 else f"{estimate.p:.3f}")


def code(name: str) -> Text:
    """The name of a solution as code."""
    return Text("`" + re.sub(r"[`|]", "", one_line(name)) + "`")


def joined(items: Iterable, separator: str = ", ", empty: str = "", say: Callable = markdown) -> Text:
    """The items, each as `say` has it (a macro, which gets a tuple as its arguments)."""
    texts = (say(*item) if isinstance(item, tuple) else say(item) for item in items)
    return Text(str(separator).join(map(str, texts)) or empty)


def header(cells: Iterable) -> Text:
    """The head of a Markdown table."""
    texts = [*map(markdown, cells)]
    return Text("\n".join(f"| {' | '.join(line)} |" for line in (texts, ["---"] * len(texts))))


def bullets(*lines: str) -> Text:
    """A list of lines that are Markdown; empty ones are left out."""
    return Text("\n".join(f"- {line}" for line in lines if line))


def metric(name: str, language: str) -> Text:
    """A metric's name with its unit."""
    unit = METRICS[name].unit
    unit = translate("unit.millions", language) if unit == "millions" else unit
    return Text(term(f"metric.{name}", language) + (f" ({unit})" if unit else ""))


def term(key: str, language: str) -> Text:
    # JupyterLab would take `mAP@0.5` for an address of mail.
    return Text(translate(key, language).replace("@", "\\@"))


def texts(words: Mapping[str, str]) -> dict[str, Text]:
    """The words of a template, which are Markdown."""
    return {key: Text(text) for key, text in words.items()}


def alarms(steps: pd.DataFrame) -> list[str]:
    """A line of evidence for each task that the training with these `steps` switched off."""
    return [
        f"collapse: {row['task']} has less than {COLLAPSE_SHARE:.0%} of the weighted gradient since step "
        f"{row['fell_at']:.0f} (weight {row['weight_start']:.3g} to {row['weight_end']:.3g}), and its loss "
        f"has stood still since ({row['loss_at_fall']:.3f} to {row['loss_end']:.3f})"
        for row in task_collapses(steps)
        if row["state"] == "collapse"
    ]


def interference(probes: pd.DataFrame) -> str:
    """What the probes of one run say of its shared convolutions, in a sentence."""
    table = by_stage(probes, "conv").reset_index().query("stage == 'all'")
    if table.empty:
        return "no stage is shared, or no probe was taken: there is nothing to compare"
    row = table.iloc[0]
    said = f"rho is {rho(row)} over all shared convolutions"
    if np.isnan(row["rho"]):
        said = "the gradients' signal is too weak, or the probes too few, to tell rho"
    return (
        f"{said} ({row['probes']} probes; of half a batch's gradient {row['signal_detection']:.1%} is signal "
        f"in detection, {row['signal_classification']:.1%} in classification); single batches conflict in "
        f"{row['conflict']:.0%}, and noise alone would make tasks that agree conflict in "
        f"{row['null_conflict']:.0%}"
    )


def commonest_confusion(table: pd.DataFrame) -> str:
    """A `view_confusion` in a sentence: how many are right, and what is confused most."""
    counts = table.to_numpy()
    right, total = np.trace(counts), counts.sum()
    if not total:
        return "no test frame has a view."
    text = f"{right} of {total} frames named right ({right / total:.0%})"
    wrong = counts - np.diag(np.diag(counts))
    if not wrong.any():
        return f"{text}, none confused."
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    true, named = escape(table.index[row]), escape(table.columns[column])
    return f"{text}; most often {true} is named {named} ({wrong.max()} times)."
