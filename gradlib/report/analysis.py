"""The analysis of a study: every section as Markdown, with sentences computed from the runs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import product

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from gradlib.checks import closest
from gradlib.data.faults import counted
from gradlib.evidence import diagnostics, interference, tables
from gradlib.evidence.controls import VIRTUAL
from gradlib.evidence.intervals import Evidence
from gradlib.plots.language import LANGUAGES
from gradlib.report import facts, reference_report, rendering
from gradlib.report.rendering import Text


@cache
def environment(language: str) -> Environment:
    """The templates in the words of a language. ValueError for an unknown one."""
    if language not in LANGUAGES:
        raise ValueError(f"language: {language!r} is unknown{closest(language, LANGUAGES)}")
    made = Environment(
        loader=PackageLoader("gradlib.report"),
        autoescape=True,
        finalize=rendering.markdown,  # whatever is printed and no Markdown is escaped
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = {name: partial(getattr(rendering, name), language=language) for name in ("metric", "term")}
    names = ("form", "number", "interval", "rho", "p_value", "code", "header", "joined", "texts")
    own |= {name: getattr(rendering, name) for name in names}
    made.filters |= own
    made.tests |= {"finite": np.isfinite, "all_finite": lambda values: np.isfinite([*values]).all()}
    made.globals |= own | {"facts": facts, "tables": tables, "diagnostics": diagnostics}
    made.globals |= {"reference_report": reference_report, "product": product, "number_of": counted}
    made.globals["language"] = language
    return made


def _table(function) -> cached_property:
    """What `function` makes of the study, computed once for all sections."""
    return cached_property(lambda a: function(a.study))


@dataclass(frozen=True)
class Analysis:
    """A study, what its runs are evidence for, and the language to say it in.

    study: `runs.StudyResults`, with or without `evidence.with_controls`. language: "en" or "zh-Hant".
    pairs: of solutions whose metrics are all tested, beside what the claims are about (`facts.family`).
    margin: by metric, of `tables.METRICS` where it is not given: a smaller difference counts as none.
    Tables that several sections need are computed once.
    """

    study: object
    language: str = "en"
    pairs: tuple[tuple[str, str], ...] = facts.PAIRS[:1]
    margin: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        environment(self.language)

    def section(self, name: str, *args) -> Text:
        """A section as Markdown: a macro of `templates/sections.md.j2`, as `section("comparison", "gradnorm",
        "dual")`. ValueError for an unknown one."""
        known = environment(self.language).get_template("sections.md.j2").module
        if not hasattr(known, name):
            raise ValueError(f"section: {name!r} is unknown{closest(name, [*vars(known)])}")
        return Text(re.sub(r"\n{3,}", "\n\n", getattr(known, name)(self, *args)).strip())

    def heading(self, name: str) -> Text:
        """The heading above a section, as Markdown."""
        return self.section("heading", name)

    names = _table(tables.names)
    joint = _table(tables.joint)
    core = _table(tables.core_metrics)
    efficiency = _table(tables.efficiency)
    dynamics = _table(tables.dynamics)
    norms = _table(diagnostics.norms_by_stage)
    affinity = _table(interference.affinities)
    harm = cached_property(lambda a: interference.harm(a.study, a.evidence))
    interference = cached_property(lambda a: interference.by_stage(a.study.probes))
    collapse = _table(diagnostics.collapse)
    stability = _table(diagnostics.stability)
    reached = _table(diagnostics.reached)
    evidence = cached_property(lambda a: Evidence(a.study, margins=a.margin))
    leaks = cached_property(facts.leaks)
    gains = cached_property(facts.gains)
    gained = cached_property(lambda a: {one.b: one.estimate for one in a.gains})
    asked = cached_property(reference_report.asked)
    family = cached_property(facts.family)
    claims = cached_property(reference_report.read)
    views = cached_property(lambda a: a.configs[0].get("views"))  # the same in all runs

    @cached_property
    def configs(self) -> list[dict]:
        """What each run was asked for."""
        runs = self.study.runs[tables.RUN].itertuples(index=False, name=None)
        return [self.study.config(*run) for run in runs]

    @property
    def trained(self) -> pd.DataFrame:
        """The runs that were trained, without the controls that need no training."""
        return self.study.runs[~self.study.runs["solution"].isin([*VIRTUAL])]

    def runs_of(self, name: str) -> int:
        """How many complete runs a solution has."""
        return int((self.study.runs["solution"] == name).sum())

    def lacking(self, *names: str) -> list[str]:
        """Those of these solutions that have no complete run."""
        return [name for name in names if name not in self.names]

    def has(self, *names: str) -> bool:
        """Whether all of these solutions have complete runs."""
        return not self.lacking(*names)
