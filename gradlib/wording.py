"""The wording of the report: how names, numbers and comparisons become Markdown.

No sentence says more than the runs show: one run says "in this run", several say their mean and in
how many of them. Nothing here is an interval or a test, so nothing here is a verdict on a method.
"""

import html
from collections.abc import Iterable

import pandas as pd

from gradlib import compare, diagnostics
from gradlib.compare import METRICS

__all__ = [
    "NOT",
    "NOT_FOR_RUNS",
    "UNKNOWN",
    "absent",
    "bullets",
    "claim",
    "collapses",
    "compared",
    "escape",
    "figures",
    "listed",
    "missing",
    "scope",
    "sentence",
    "signed",
    "table",
    "verdict",
]

NOT = "not supported by these runs"
UNKNOWN = "cannot be said from these runs"
NOT_FOR_RUNS = "not something runs can show"


def escape(text: object) -> str:
    """A name from the data, safe in Markdown and in the HTML that comes of it."""
    safe = html.escape(" ".join(str(text).split()), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_{}[]|#$~!" else c for c in safe)


def table(rows: Iterable[Iterable], header: Iterable[str]) -> str:
    """A Markdown table; cells are Markdown already, bars in them are the caller's to escape."""
    lines = [[*header]]
    lines += [["---"] * len(lines[0]), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def scope(n: int) -> str:
    """Over what a figure holds."""
    return "in this run" if n == 1 else f"on the mean over {n} runs"


def missing(*names: str) -> str:
    """The paragraph that stands where a section needs a run that is not there."""
    it = "them" if len(names) > 1 else "it"
    return (
        f"*The study has no complete run of {' and '.join(map(escape, names))}: what needs {it} is left "
        f"out. Add {it} to the study's solutions.*"
    )


def absent(study, *wanted: str) -> list[str]:
    """Those of `wanted` that the study has no complete run of."""
    return [name for name in wanted if name not in compare.names(study)]


def listed(items: Iterable[str], nothing: str = "none") -> str:
    """The items with commas between them."""
    return ", ".join(items) or nothing


def bullets(*lines: str) -> str:
    """A list; empty lines are left out."""
    return "\n".join(f"- {line}" for line in lines if line)


def figures(row: pd.Series, a: str, b: str) -> str:
    """One row of `compare.comparison`: both values and their difference."""
    metric = METRICS[row.name]
    values = f"{metric.text(row['a'])} for {escape(a)}, {metric.text(row['b'])} for {escape(b)}"
    return f"**{metric.header}**: {values}" + (
        f" ({signed(row['difference'])})" if row["winner"] != "–" else ""
    )


def sentence(row: pd.Series, a: str, b: str) -> str:
    """The same, and who is ahead."""
    return f"{figures(row, a, b)}: {verdict(row)}."


def signed(value: float, digits: int = 2) -> str:
    """A change in per cent; a dash where there is none."""
    return "–" if pd.isna(value) else f"{value:+.{digits}f}%"


def verdict(row: pd.Series) -> str:
    """Who is ahead, and no more: `higher for x in this run`."""
    if row["winner"] == "–":
        return UNKNOWN
    if row["winner"] == "equal":
        return f"equal {scope(row['runs'])}"
    word = "higher" if METRICS[row.name].higher else "lower"
    often = f", and in {row['wins']} of {row['runs']}" if row["runs"] > 1 else ""
    return f"{word} for {escape(row['winner'])} {scope(row['runs'])}{often}"


def compared(study, a: str, b: str, metrics: Iterable[str]) -> pd.DataFrame | None:
    """The comparison, or None where a solution or a common fold and seed is missing."""
    if not compare.paired(study, a, b):
        return None
    return compare.comparison(study, a, b, tuple(metrics))


def claim(study, name: str, against: str, metrics: Iterable[str]) -> tuple[str, str]:
    """Measured figure and reading of the claim that `name` is better than `against` in all `metrics`."""
    rows = compared(study, against, name, metrics)
    if rows is None:
        lacking = absent(study, name, against)
        return f"no run of {listed(map(escape, lacking))}" if lacking else "no common fold and seed", UNKNOWN
    measured = "<br>".join(figures(row, against, name) for _, row in rows.iterrows())
    known = rows[rows["winner"] != "–"]
    ahead = known[known["winner"] == name]
    if known.empty:
        return measured, UNKNOWN
    if len(ahead) == len(known):
        words = {"higher" if METRICS[metric].higher else "lower" for metric in ahead.index}
        often = (
            f", in {ahead['wins'].min()} or more of {known['runs'].iloc[0]}"
            if known["runs"].iloc[0] > 1
            else ""
        )
        return measured, f"{' and '.join(sorted(words))} {scope(known['runs'].iloc[0])}{often}"
    if (known["winner"] == "equal").all():
        return measured, f"equal {scope(known['runs'].iloc[0])}"
    if ahead.empty:
        return measured, NOT
    return measured, f"only for {listed(METRICS[metric].label for metric in ahead.index)}; {NOT} as a whole"


def collapses(study, names: Iterable[str]) -> list[str]:
    """A sentence for every task of these solutions that training switched off, or may have."""
    lines = []
    states = diagnostics.collapse(study).reset_index()
    for (name, task), rows in states[states["solution"].isin([*names])].groupby(
        ["solution", "task"], sort=False
    ):
        for state, words in (
            ("collapse", "**collapse**"),
            ("too late to tell", "a collapse or the start of one"),
        ):
            hit = rows[rows["state"] == state]
            if len(hit):
                mean = hit.mean(numeric_only=True)
                often = "in this run" if len(rows) == 1 else f"in {len(hit)} of {len(rows)} runs"
                lines.append(
                    f"In {escape(name)} the {task} task ends with {mean['share_end']:.2%} of the weighted "
                    f"gradient (weight {mean['weight_start']:.3f} to {mean['weight_end']:.3f}) and from step "
                    f"{mean['fell_at']:.0f} on its training loss changes by {mean['loss_change']:+.1f}% "
                    f"({mean['loss_at_fall']:.3f} to {mean['loss_end']:.3f}): {words} {often}."
                )
    return lines
