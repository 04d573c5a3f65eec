"""What was run and what came out, as Markdown: environment, one solution, two solutions side by side."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from gradlib import compare
from gradlib.compare import COST, METRICS, PERFORMANCE, QUANTITIES
from gradlib.config import SOLUTIONS
from gradlib.wording import absent, collapses, compared, escape, listed, missing, scope, signed, table

__all__ = ["comparison", "environment", "solution", "trained_on"]


def environment(study) -> str:
    """Data, split, training, versions and date of the runs."""
    runs = study.runs[compare.RUN].itertuples(index=False, name=None)
    configs = [study.config(*run) for run in runs]

    def of(*path: str) -> str:
        found = {}
        for value in configs:
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            found[
                listed(map(escape, value))
                if isinstance(value, list)
                else "–"
                if value is None
                else escape(value)
            ] = None
        return "; ".join(found)

    folders = [study.folder / path / "metrics.json" for path in study.runs["path"]]
    dates = sorted(f"{datetime.fromtimestamp(path.stat().st_mtime, UTC):%Y-%m-%d %H:%M}" for path in folders)
    counts = (f"{part} {of('frames', part)} ({of('patients', part)})" for part in ("train", "valid", "test"))
    starts = dict.fromkeys(Path(config.get("pretrained") or "nothing").name for config in configs)
    rows = [
        ("Data", "; ".join(trained_on(study))),
        ("Classes", of("classes")),
        ("Views", of("views")),
        ("Split", f"{of('split')}; fold {of('fold')} of {of('folds')}"),
        ("Frames (patients)", "; ".join(counts)),
        ("Network", f"YOLOv5{of('size')}, {of('image_size')} px, starting from {escape('; '.join(starts))}"),
        ("Training", f"{of('epochs')} epochs, batches of {of('batch_size')}, seed {of('seed')}"),
        ("Date (UTC)", " to ".join(dict.fromkeys((dates[0], dates[-1])))),
        ("Device", f"{of('environment', 'accelerator').replace('–', 'CPU')} (asked for: {of('device')})"),
        (
            "Versions",
            f"Python {of('environment', 'python')}, PyTorch {of('environment', 'versions', 'torch')}, "
            f"gradlib {of('environment', 'versions', 'gradlib')}, "
            f"git {of('environment', 'git', 'revision')[:12]}",
        ),
        ("Complete runs", f"{len(study.runs)}: {listed(map(escape, compare.names(study)))}"),
        ("Begun and not ended", len(study.incomplete)),
    ]
    return table(rows, ("", "of these runs"))


def trained_on(study) -> list[str]:
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
    if absent(study, name):
        return missing(name)
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
            signed(row["change"], 1),
            row["trend"]
            + (
                f", peak {row['highest']:.4g}"
                if row["highest"] > 1.01 * max(row["start"], row["end"])
                else ""
            ),
        )
        for key, row in rows.iterrows()
    ]
    moved = table(moves, ("Quantity", "Start", "End", "Change", "Trend"))
    efficient = metrics(cost, {**COST, **compare.PER_PARAMETER})
    what = f"{escape(known.description)}; " if known else ""
    runs = f"{int(core['runs'])} run" + ("s, mean ± standard deviation" if core["runs"] > 1 else "")
    parts = [f"{what[:1].upper()}{what[1:]}{runs}."]
    parts += ["#### Core metrics (test part)", metrics(core, PERFORMANCE)]
    parts += ["#### Training dynamics", moved, "#### Efficiency", efficient]
    return "\n\n".join(parts)


def comparison(study, a: str, b: str) -> str:
    """Tables of `b` against `a`: performance and cost, with difference in per cent and winner."""
    lacking = absent(study, a, b)
    if lacking:
        return missing(*lacking)
    rows = compared(study, a, b, [*PERFORMANCE, *COST])
    if rows is None:
        return f"*{escape(a)} and {escape(b)} have no fold and seed in common: they cannot be compared.*"
    cells = [
        (
            f"**{METRICS[key].header}**",
            METRICS[key].text(row["a"]),
            METRICS[key].text(row["b"]),
            signed(row["difference"]),
            escape(row["winner"])
            + (f" ({row['wins']} of {row['runs']})" if row["runs"] > 1 and row["wins"] else ""),
        )
        for key, row in rows.iterrows()
    ]
    header = ("Metric", escape(a), escape(b), "Difference", "Better value")
    cut = len(PERFORMANCE)
    counts = rows["winner"].iloc[:cut].value_counts()
    score = listed(f"{escape(name)} in {counts.get(name, 0)}" for name in (a, b))
    equal = f", equal in {counts['equal']}" if "equal" in counts else ""
    caution = "".join(f" {line}" for line in collapses(study, (a, b)))
    where = scope(rows["runs"].iloc[0])
    parts = ["#### Performance", table(cells[:cut], header), "#### Efficiency", table(cells[cut:], header)]
    parts += [f"Of {cut} metrics of performance {where} the better value: {score}{equal}.{caution}"]
    return "\n\n".join(parts)
