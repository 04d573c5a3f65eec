"""The sections of the analysis as Markdown; every sentence is computed from the runs of a study.

No sentence says more than what the runs show: one run says "in this run", several say their mean and
in how many of them. Nothing here is an interval or a test, so nothing here is a verdict.
"""

import html
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from gradlib import compare, diagnostics
from gradlib.compare import COST, METRICS, PERFORMANCE, SCORES
from gradlib.config import SOLUTIONS, TASKS

__all__ = [
    "comparison", "conclusions", "efficiency", "environment", "escape", "interference", "outlook",
    "performance", "solution", "summary", "table",
]  # fmt: skip

NOT = "not supported by these runs"
UNKNOWN = "cannot be said from these runs"
NOT_FOR_RUNS = "not something runs can show"
STEADY = 5.0  # per cent: a training loss that never rises by more from epoch to epoch is called smooth
QUANTITIES = {
    **{f"weight_{task}": f"Weight of {task}" for task in TASKS},
    "share_detection": "Weighted gradient share of detection",
    "lr_shared": "Learning rate, shared part",
    **{f"lr_{task}": f"Learning rate, {task}" for task in TASKS},
    **{f"{part}_loss": f"{name} loss, weighted sum" for part, name in (("train", "Training"), ("valid", "Validation"))},
    **{
        f"{part}_loss_{task}": f"{name} loss of {task}"
        for task in TASKS
        for part, name in (("train", "Training"), ("valid", "Validation"))
    },
}


# --- text ---


def escape(text: object) -> str:
    """A name from the data, safe in Markdown and in the HTML that comes of it."""
    safe = html.escape(" ".join(str(text).split()))
    return "".join(f"\\{c}" if c in "\\`*_{}[]|#$~!" else c for c in safe)


def table(rows: Iterable[Iterable], header: Iterable[str]) -> str:
    """A Markdown table; cells are Markdown already, bars in them are the caller's to escape."""
    lines = [[*header]]
    lines += [["---"] * len(lines[0]), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _scope(n: int) -> str:
    return "in this run" if n == 1 else f"on the mean over {n} runs"


def _missing(*absent: str) -> str:
    plural = len(absent) > 1
    return (
        f"*The study has no complete run of {' and '.join(map(escape, absent))}: what needs "
        f"{'them' if plural else 'it'} is left out. Add {'them' if plural else 'it'} to the study's solutions.*"
    )


def _absent(study, *wanted: str) -> list[str]:
    return [name for name in wanted if name not in compare.names(study)]


def _list(items: Iterable[str], nothing: str = "none") -> str:
    return ", ".join(items) or nothing


def _bullets(*lines: str) -> str:
    return "\n".join(f"- {line}" for line in lines if line)


def _sentence(row: pd.Series, a: str, b: str) -> str:
    """One row of `compare.comparison` in words."""
    metric = METRICS[row.name]
    values = f"{metric.text(row['a'])} for {escape(a)}, {metric.text(row['b'])} for {escape(b)}"
    if row["winner"] == "–":
        return f"**{metric.header}**: {values}; {UNKNOWN} which is better."
    change = "" if pd.isna(row["difference"]) else f" ({row['difference']:+.2f} %)"
    return f"**{metric.header}**: {values}{change}: {_verdict(row)}."


def _verdict(row: pd.Series) -> str:
    """Who is ahead, and no more: `higher for x in this run`."""
    if row["winner"] == "equal":
        return f"equal {_scope(row['runs'])}"
    word = "higher" if METRICS[row.name].higher else "lower"
    often = f", {word} in {row['wins']} of {row['runs']} of them" if row["runs"] > 1 else ""
    return f"{word} for {escape(row['winner'])} {_scope(row['runs'])}{often}"


def _compared(study, a: str, b: str, metrics: Iterable[str]) -> pd.DataFrame | None:
    """The comparison, or None where a solution or a common fold and seed is missing."""
    if not compare.paired(study, a, b):
        return None
    return compare.comparison(study, a, b, tuple(metrics))


def _claim(study, name: str, against: str, metrics: Iterable[str]) -> tuple[str, str]:
    """Measured figure and reading of the claim that `name` is better than `against` in all `metrics`."""
    rows = _compared(study, against, name, metrics)
    if rows is None:
        absent = _absent(study, name, against)
        return f"no run of {_list(map(escape, absent))}" if absent else "no common fold and seed", UNKNOWN
    measured = "<br>".join(_sentence(row, against, name) for _, row in rows.iterrows())
    known = rows[rows["winner"] != "–"]
    ahead = known[known["winner"] == name]
    if known.empty:
        return measured, UNKNOWN
    if len(ahead) == len(known):
        words = {"higher" if METRICS[metric].higher else "lower" for metric in ahead.index}
        often = f", in {ahead['wins'].min()} or more of {known['runs'].iloc[0]}" if known["runs"].iloc[0] > 1 else ""
        return measured, f"{' and '.join(sorted(words))} {_scope(known['runs'].iloc[0])}{often}"
    if (known["winner"] == "equal").all():
        return measured, f"equal {_scope(known['runs'].iloc[0])}"
    if ahead.empty:
        return measured, NOT
    return measured, f"only for {_list(METRICS[metric].label for metric in ahead.index)}; {NOT} as a whole"


# --- what was run ---


def environment(study) -> str:
    """Data, split, training, versions and date of the runs."""
    runs = study.runs[compare.RUN].itertuples(index=False, name=None)
    configs = [study.config(*run) for run in runs]

    def of(*path: str) -> str:
        found = {}
        for value in configs:
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            found[_list(map(escape, value)) if isinstance(value, list) else escape(value)] = None
        return "; ".join(found).replace("None", "–")

    folders = [study.folder / path / "metrics.json" for path in study.runs["path"]]
    dates = sorted(f"{datetime.fromtimestamp(path.stat().st_mtime, UTC):%Y-%m-%d %H:%M}" for path in folders)
    counts = (f"{part} {of('frames', part)} ({of('patients', part)})" for part in ("train", "valid", "test"))
    rows = [
        ("Data", "; ".join(_data(study))),
        ("Classes", of("classes")),
        ("Views", of("views")),
        ("Split", f"{of('split')}; fold {of('fold')} of {of('folds')}"),
        ("Frames (patients)", "; ".join(counts)),
        ("Network", f"YOLOv5{of('size')}, {of('image_size')} px"),
        ("Training", f"{of('epochs')} epochs, batches of {of('batch_size')}, seed {of('seed')}"),
        ("Date (UTC)", " to ".join(dict.fromkeys((dates[0], dates[-1])))),
        ("Device", f"{of('device')}; accelerator {of('environment', 'accelerator')}"),
        (
            "Versions",
            f"Python {of('environment', 'python')}, PyTorch {of('environment', 'versions', 'torch')}, "
            f"gradlib {of('environment', 'versions', 'gradlib')}, "
            f"git {of('environment', 'git', 'revision')[:12]}",
        ),
        ("Complete runs", f"{len(study.runs)}: {_list(map(escape, compare.names(study)))}"),
        ("Begun and not ended", len(study.incomplete)),
    ]
    return table(rows, ("", "of these runs"))


def _data(study) -> list[str]:
    """What the runs were trained on, in words; no path of a machine."""
    found = {}
    for run in study.runs[compare.RUN].itertuples(index=False, name=None):
        data = str(study.config(*run).get("data", "phantom"))
        short = "/".join(Path(data).parts[-2:])
        made = "phantom" in data
        found[f"{escape(short)} ({'synthetic' if made else 'given by its path, not made by gradlib'})"] = None
    return list(found)


def solution(study, name: str) -> str:
    """Core metrics, dynamics and efficiency of one solution."""
    if _absent(study, name):
        return _missing(name)
    core, cost = compare.core_metrics(study).loc[name], compare.efficiency(study).loc[name]
    known = SOLUTIONS.get(name)
    rows = compare.dynamics(study).loc[name]

    def metrics(values: pd.Series, which: dict) -> str:
        cells = [
            (f"**{m.header}**", m.text(values[key], values.get(f"{key} sd")), m.meaning)
            for key, m in which.items()
            if pd.notna(values[key])
        ]
        return table(cells, ("Metric", "Value", "Meaning"))

    def number(row: pd.Series, column: str) -> str:
        spread = row.get(f"{column} sd")
        return f"{row[column]:.4g}" + (f" ± {spread:.2g}" if pd.notna(spread) and spread else "")

    moves = [
        (
            f"**{QUANTITIES[key]}**",
            number(row, "start"),
            number(row, "end"),
            "" if pd.isna(row["change"]) else f"{row['change']:+.1f} %",
            row["trend"] + (f", peak {row['highest']:.4g}" if row["highest"] > 1.01 * max(row["start"], row["end"]) else ""),
        )
        for key, row in rows.iterrows()
    ]
    moved = table(moves, ("Quantity", "Start", "End", "Change", "Trend"))
    efficient = metrics(cost, {**COST, **compare.PER_PARAMETER})
    what = f"{escape(known.description)}; " if known else ""
    runs = f"{int(core['runs'])} run" + ("s, mean ± standard deviation" if core["runs"] > 1 else "")
    return (
        f"{what[:1].upper()}{what[1:]}{runs}.\n\n#### Core metrics (test part)\n\n{metrics(core, PERFORMANCE)}"
        f"\n\n#### Training dynamics\n\n{moved}\n\n#### Efficiency\n\n{efficient}"
    )


def comparison(study, a: str, b: str) -> str:
    """Tables of `b` against `a`: performance and cost, with difference in per cent and winner."""
    absent = _absent(study, a, b)
    if absent:
        return _missing(*absent)
    rows = _compared(study, a, b, [*PERFORMANCE, *COST, ])
    if rows is None:
        return f"*{escape(a)} and {escape(b)} have no fold and seed in common: they cannot be compared.*"
    cells = [
        (
            f"**{METRICS[key].header}**",
            METRICS[key].text(row["a"]),
            METRICS[key].text(row["b"]),
            "–" if pd.isna(row["difference"]) else f"{row['difference']:+.2f} %",
            escape(row["winner"]) + (f" ({row['wins']} of {row['runs']})" if row["runs"] > 1 and row["wins"] else ""),
        )
        for key, row in rows.iterrows()
    ]
    header = ("Metric", escape(a), escape(b), "Difference", "Better value")
    cut = len(PERFORMANCE)
    counts = rows["winner"].iloc[:cut].value_counts()
    score = _list(f"{escape(name)} in {counts.get(name, 0)}" for name in (a, b))
    equal = f", equal in {counts['equal']}" if "equal" in counts else ""
    caution = "".join(f" {line}" for line in _collapses(study, (a, b)))
    return (
        f"#### Performance\n\n{table(cells[:cut], header)}\n\n#### Efficiency\n\n{table(cells[cut:], header)}\n\n"
        f"Of {cut} metrics of performance {_scope(rows['runs'].iloc[0])} the better value: {score}{equal}.{caution}"
    )
