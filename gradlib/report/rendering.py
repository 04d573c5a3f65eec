"""How names, numbers and estimates become Markdown, in the language of the analysis.

A sentence goes as far as its interval: `better`, `worse`, or that no difference was shown. What a study is
too small for is named, with what it would take.
"""

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from gradlib.data.files import one_line
from gradlib.evidence import tables
from gradlib.evidence.controls import VIRTUAL
from gradlib.evidence.intervals import Estimate, Evidence
from gradlib.evidence.tables import COST, METRICS, PERFORMANCE
from gradlib.report.language import Language

__all__ = [
    "Analysis",
    "bullets",
    "escape",
    "interval",
    "number",
    "percent",
    "signed",
    "table",
]


def escape(text: object) -> str:
    """A name, safe in Markdown and in the HTML that comes of it."""
    safe = html.escape(one_line(text), quote=False)
    safe = "".join(f"\\{c}" if c in "\\`*_{}[]|#$~!@:" else c for c in safe)
    # Where a line would begin an entry of a list.
    return re.sub(r"^(\d*)([-+=.)])(?=[-=\s]|$)", r"\1\\\2", safe)


class Prose(Language):
    """The catalogue's texts as Markdown, where JupyterLab would take `mAP@0.5` for an address of mail."""

    def __call__(self, key: str, **values: object) -> str:
        return re.sub(r"(?<!\\)@", r"\\@", super().__call__(key, **values))


@dataclass(frozen=True)
class Analysis:
    """A study, what its predictions carry, and the language to say it in.

    study: `runs.Study`, with or without `controls.with_controls`. language: one of `language.LANGUAGES`.
    """

    study: object
    language: str = "en"

    @cached_property
    def say(self) -> Prose:
        return Prose(self.language)

    @cached_property
    def evidence(self) -> Evidence:
        return Evidence(self.study)

    @cached_property
    def names(self) -> list[str]:
        return tables.names(self.study)

    @cached_property
    def joint(self) -> list[str]:
        return tables.joint(self.study)

    @cached_property
    def trained(self) -> pd.DataFrame:
        """The runs that were trained, without the controls that need no training."""
        return self.study.runs[~self.study.runs["solution"].isin([*VIRTUAL])]

    def has(self, *wanted: str) -> bool:
        """Whether the study has complete runs of all of these solutions."""
        return all(name in self.names for name in wanted)

    def missing(self, *wanted: str) -> str:
        """The paragraph that stands where a section needs runs that are not there; "" where none lacks."""
        lacking = [escape(name) for name in wanted if name not in self.names]
        return self.say("missing", names=self.say.listed(lacking)) if lacking else ""

    def runs_of(self, name: str) -> int:
        """How many complete runs a solution has."""
        return int((self.study.runs["solution"] == name).sum())

    def scope(self, runs: int) -> str:
        """Over what a figure holds: this run, or the mean over so many."""
        return self.say("one_run") if runs == 1 else self.say("mean_over", runs=runs)

    def metric(self, name: str) -> str:
        """A metric's name with its unit."""
        unit = METRICS[name].unit if name in METRICS else "%" if name == "delta_m" else ""
        unit = self.say("millions") if unit == "millions" else unit
        text = self.say(f"metric.{name}")
        return f"{text} ({unit})" if unit else text

    def verdict(self, metric: str, estimate: Estimate, name: str) -> str:
        """The verdict on `name`, of which `estimate` is how much more it has, or why there is none."""
        if estimate.insufficient_reason:
            return self.say(f"lack.{estimate.insufficient_reason}")
        higher = metric == "delta_m" or METRICS[metric].higher
        found = estimate.verdict(higher)
        if found == "no difference shown":
            return self.say("verdict.none")
        word = {"better": "less", "worse": "more"}[found] if metric in COST else found
        return self.say(f"verdict.{word}", name=escape(name))

    def difference(self, metric: str, a: str, b: str, estimate: Estimate) -> str:
        """One sentence on `b` against `a`: both levels, the difference with its interval, the verdict."""
        levels = [self.evidence.level(name, metric).value for name in (a, b)]
        return self.say(
            "difference",
            metric=self.metric(metric),
            a=escape(a),
            b=escape(b),
            value_a=number(metric, levels[0]),
            value_b=number(metric, levels[1]),
            difference=interval(metric, estimate, sign=True),
            verdict=self.verdict(metric, estimate, b),
        )

    def needs(self, estimate: Estimate) -> str:
        """What it would take to show a difference of the size found, four times in five."""
        if estimate.insufficient_reason:
            return self.say(f"needs.lack.{estimate.insufficient_reason}")
        if not estimate.standard_error or not estimate.value:
            return self.say("needs.nothing")
        patients, runs = estimate.required_n()
        ways = [
            self.say(f"needs.{what}", needed=f"{count:,.0f}", had=had)
            for what, count, had in (("patients", patients, estimate.patients), ("runs", runs, estimate.runs))
            if had < count < np.inf
        ]
        return self.say("or").join(ways) or self.say("needs.both")


#: Digits after the point of what is no column of a run.
DIGITS = {"delta_m": 1, "points": 1, "times": 2}


def table(rows: Iterable[Iterable], header: Iterable[str]) -> str:
    """A Markdown table; cells are Markdown already, bars in them are the caller's to escape."""
    lines = [[*header]]
    lines += [["---"] * len(lines[0]), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(*lines: str) -> str:
    """A list; empty lines are left out."""
    return "\n".join(f"- {line}" for line in lines if line)


def number(metric: str, value: float, sign: bool = False) -> str:
    """A value of a metric in its unit, rounded; a missing one is a dash."""
    if value is None or not np.isfinite(value):
        return "–"
    one = METRICS.get(metric)
    scale, digits = (one.scale, one.digits) if one else (1.0, DIGITS.get(metric, 3))
    return f"{value * scale:{'+' if sign else ''},.{digits}f}"


def interval(metric: str, estimate: Estimate, sign: bool = False) -> str:
    """An estimate with its 95 % interval, in the metric's unit; without one where there is none."""
    text = number(metric, estimate.value, sign)
    if not np.isfinite(estimate.margin_of_error) or estimate.margin_of_error == 0:
        return text
    low, high = estimate.low, estimate.high
    if metric in METRICS and not sign:  # a level: a share lies in 0-1, a cost is not negative
        low, high = max(low, 0.0), min(high, 1.0) if metric in PERFORMANCE else high
    return f"{text} [{number(metric, low, sign)}, {number(metric, high, sign)}]"


def percent(value: float, digits: int = 0) -> str:
    """A share in per cent."""
    return "–" if pd.isna(value) else f"{value:.{digits}%}"


def signed(value: float, digits: int = 1) -> str:
    """A change in per cent; a dash where there is none."""
    return "–" if pd.isna(value) else f"{value:+.{digits}f}%"
