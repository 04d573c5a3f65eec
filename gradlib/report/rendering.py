"""From values to Markdown: names are text wherever they are printed, numbers are rounded in their unit."""

import html
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
from markupsafe import Markup

from gradlib.data.files import one_line
from gradlib.evidence.intervals import Estimate
from gradlib.evidence.tables import METRICS, PERFORMANCE
from gradlib.plots.language import translate

#: Scale and digits of what is no column of a run.
UNITS = {"delta_m": (1, 1), "points": (100, 1)}


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
    return Text("–" if value is None or not np.isfinite(value) else f"{value:{spec}}{unit}")


def number(value: float, metric: str, sign: bool = False) -> Text:
    """A value of a metric in its unit, rounded; a missing one is a dash."""
    one = METRICS.get(metric)
    scale, digits = (one.scale, one.digits) if one else UNITS.get(metric, (1, 3))
    return form(None if value is None else value * scale, f"{'+' if sign else ''},.{digits}f")


def interval(estimate: Estimate, metric: str, sign: bool = False) -> Text:
    """An estimate with its 95 % interval, in the metric's unit; without one where there is none."""
    low, high = estimate.low, estimate.high
    if metric in METRICS and not sign:  # a level: a share lies in 0-1, a cost is not negative
        low, high = max(low, 0.0), min(high, 1.0) if metric in PERFORMANCE else high
    text = number(estimate.value, metric, sign)
    if not np.isfinite(estimate.margin_of_error) or estimate.margin_of_error == 0:
        return text
    return Text(f"{text} [{number(low, metric, sign)}, {number(high, metric, sign)}]")


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
    unit = METRICS[name].unit if name in METRICS else "%" if name == "delta_m" else ""
    unit = translate("unit.millions", language) if unit == "millions" else unit
    return Text(term(f"metric.{name}", language) + (f" ({unit})" if unit else ""))


def term(key: str, language: str) -> Text:
    # JupyterLab would take `mAP@0.5` for an address of mail.
    return Text(translate(key, language).replace("@", "\\@"))


def texts(words: Mapping[str, str]) -> dict[str, Text]:
    """The words of a template, which are Markdown."""
    return {key: Text(text) for key, text in words.items()}
