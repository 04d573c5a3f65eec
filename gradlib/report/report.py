"""What was run and what came out, as Markdown: environment, one solution, solutions side by side.

The reference report's own figures stand beside the measured ones where they mean the same thing.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from gradlib.evidence import tables
from gradlib.evidence.intervals import Estimate, holm
from gradlib.evidence.tables import COST, METRICS, PERFORMANCE, SCORES, per_cent
from gradlib.report.language import catalogue
from gradlib.report.reference import MOVES, REPORTED
from gradlib.report.rendering import Analysis, bullets, escape, interval, number, signed, table

__all__ = ["against", "comparison", "environment", "overview", "solution", "trained_on"]


def environment(a: Analysis) -> str:
    """Data, split, training, versions and date of the runs; what of the data they left out."""
    configs = [a.study.config(*run) for run in a.study.runs[tables.RUN].itertuples(index=False, name=None)]

    def of(*path: str) -> str:
        found = {}
        for value in configs:
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            text = a.say.listed(map(escape, value)) if isinstance(value, list) else escape(value)
            found["–" if value is None else text] = None
        return "; ".join(found)

    folders = [a.study.folder / path / "metrics.json" for path in a.study.runs["path"]]
    dates = sorted(f"{datetime.fromtimestamp(path.stat().st_mtime, UTC):%Y-%m-%d %H:%M}" for path in folders)
    counts = (
        a.say(
            "environment.part",
            part=a.say(f"part.{part}"),
            frames=of("frames", part),
            patients=of("patients", part),
        )
        for part in ("train", "valid", "test")
    )
    starts = dict.fromkeys(
        Path(config.get("pretrained") or "").name or a.say("nothing") for config in configs
    )
    device = of("environment", "accelerator").replace("–", "CPU")
    rows = {
        "data": "; ".join(trained_on(a)),
        "classes": of("classes"),
        "views": of("views"),
        "split": a.say("environment.fold", split=of("split"), fold=of("fold"), folds=of("folds")),
        "frames": "; ".join(counts),
        "problems": of("problems"),
        "network": a.say(
            "environment.start", size=of("size"), pixels=of("image_size"), start=escape("; ".join(starts))
        ),
        "training": a.say(
            "environment.epochs",
            epochs=of("epochs"),
            batch=of("batch_size"),
            seed=of("seed"),
            precision=of("precision"),
        ),
        "date": a.say("to").join(dict.fromkeys((dates[0], dates[-1]))),
        "device": a.say("environment.on", device=device, asked=of("device")),
        "versions": ", ".join(
            f"{name} {of('environment', *path)[:12]}"
            for name, path in (
                ("Python", ("python",)),
                ("PyTorch", ("versions", "torch")),
                ("gradlib", ("versions", "gradlib")),
                ("git", ("git", "revision")),
            )
        ),
        "complete": f"{len(a.trained)} ({a.say.listed(map(escape, dict.fromkeys(a.trained['solution'])))})",
        "incomplete": len(a.study.incomplete),
        "unreadable": "<br>".join(map(escape, a.study.unreadable)) or 0,
    }
    said = table(
        ((a.say(f"environment.{key}"), text) for key, text in rows.items()), ("", a.say("column.here"))
    )
    return f"{said}\n\n{_left_out(a, configs)}".rstrip()


def _left_out(a: Analysis, configs: list[dict]) -> str:
    """What of the data the runs skipped; "" where runs of an earlier version do not say it."""
    if not all("skipped" in config for config in configs):
        return ""
    found = dict.fromkeys(
        a.say.listed(a.say(f"skipped.{unit}", number=number) for unit, number in config["skipped"].items())
        for config in configs
    )
    if len(found) > 1:
        return a.say("skipped.differs", what=a.say("semicolon").join(found))
    return (
        a.say("skipped.alike", what=next(iter(found))) if configs[0]["skipped"] else a.say("skipped.nothing")
    )


def trained_on(a: Analysis) -> dict[str, bool]:
    """What the runs were trained on, in words (no path of a machine), and whether it is synthetic."""
    found = {}
    for run in a.study.runs[tables.RUN].itertuples(index=False, name=None):
        data = str(a.study.config(*run).get("data", "phantom"))
        synthetic = "phantom" in data
        key = "data.synthetic" if synthetic else "data.given"
        found[a.say(key, name=escape("/".join(Path(data).parts[-2:])))] = synthetic
    return found


def solution(a: Analysis, name: str) -> str:
    """Core metrics, dynamics and efficiency of one solution, with the reference report's figures."""
    if not a.has(name):
        return a.missing(name)
    told, moved = REPORTED.get(name, {}), MOVES.get(name, {})

    def metrics(which: dict) -> str:
        cells = [
            (
                f"**{a.metric(key)}**",
                number(key, told.get(key)),
                interval(key, found),
                a.say(f"meaning.{key}"),
            )
            for key in which
            if np.isfinite((found := a.evidence.level(name, key)).value)
        ]
        return table(cells, [a.say(f"column.{c}") for c in ("metric", "reported", "measured", "meaning")])

    moves = [
        (
            f"**{a.say(f'quantity.{key}')}**",
            a.say("to").join(f"{value:g}" for value in moved[key]) if key in moved else "–",
            f"{row['start']:.4g}",
            f"{row['end']:.4g}",
            signed(row["change"]),
            a.say(f"trend.{row['trend']}")
            + (
                a.say("peak", value=f"{row['highest']:.4g}")
                if row["highest"] > 1.01 * max(row["start"], row["end"])
                else ""
            ),
        )
        for key, row in tables.dynamics(a.study).loc[name].iterrows()
    ]
    columns = ("quantity", "reported", "start", "end", "change", "trend")
    return "\n\n".join(
        [
            a.say("solution.what", name=name, what=a.say(f"solution.{name}"), scope=a.scope(a.runs_of(name))),
            f"#### {a.say('heading.core')}",
            metrics(PERFORMANCE),
            f"#### {a.say('heading.dynamics')}",
            table(moves, [a.say(f"column.{column}") for column in columns]),
            f"#### {a.say('heading.cost')}",
            metrics(COST),
        ]
    )


def overview(a: Analysis) -> str:
    """Every solution in a row: both tasks' scores and delta_m with intervals, and what it costs."""
    rows = []
    for name in a.names:
        gain = a.evidence.delta_m(name) if name in a.joint else None
        rows.append(
            (
                f"`{name}`",
                a.runs_of(name),
                *(
                    interval(metric, a.evidence.level(name, metric))
                    for metric in ("map50", "map50_95", "accuracy", "balanced_accuracy")
                ),
                interval("delta_m", gain, sign=True) if gain else "–",
                *(
                    number(metric, a.evidence.level(name, metric).value)
                    for metric in ("parameters", "seconds_per_epoch")
                ),
            )
        )
    metrics = (
        "map50",
        "map50_95",
        "accuracy",
        "balanced_accuracy",
        "delta_m",
        "parameters",
        "seconds_per_epoch",
    )
    known = [name for name in a.names if f"solution.{name}" in catalogue()]
    return "\n\n".join(
        (
            table(rows, (a.say("column.solution"), a.say("column.runs"), *map(a.metric, metrics))),
            bullets(*(f"`{name}`: {a.say(f'solution.{name}')}" for name in known)),
        )
    )


def comparison(a: Analysis, first: str, second: str) -> str:
    """Tables of `second` against `first`: every metric with interval, corrected p and verdict, then cost."""
    if not a.has(first, second):
        return a.missing(first, second)
    found = holm({metric: a.evidence.difference(first, second, metric) for metric in PERFORMANCE})
    asked = {
        metric: estimate for metric, estimate in found.items() if estimate.insufficient_reason != "values"
    }
    if not asked:
        return a.say("nothing_common", a=escape(first), b=escape(second))
    cost = {metric: a.evidence.difference(first, second, metric) for metric in COST}
    counts = dict.fromkeys(("better", "worse", "no difference shown", "too small"), 0)
    for metric, estimate in asked.items():
        counts[estimate.verdict(METRICS[metric].higher)] += 1
    score = a.say(
        "comparison.count",
        a=escape(first),
        b=escape(second),
        metrics=len(asked),
        **{key.split()[0]: value for key, value in counts.items()},
    )
    one = next(iter(asked.values()))
    basis = a.say("comparison.basis", runs=one.runs, patients=one.patients)
    return "\n\n".join(
        [
            basis,
            f"#### {a.say('heading.performance')}",
            _differences(a, first, second, asked),
            f"#### {a.say('heading.cost')}",
            _differences(a, first, second, cost),
            score,
        ]
    )


def _differences(a: Analysis, first: str, second: str, estimates: dict[str, Estimate]) -> str:
    """Rows of metrics: both levels, the report's difference where it has one, the difference, the verdict."""
    told = [REPORTED.get(name, {}) for name in (first, second)]
    rows = []
    for metric, estimate in estimates.items():
        levels = [a.evidence.level(name, metric).value for name in (first, second)]
        change = per_cent(*(one.get(metric, np.nan) for one in told)).item()
        rows.append(
            (
                f"**{a.metric(metric)}**",
                *(number(metric, level) for level in levels),
                signed(change),
                f"{interval(metric, estimate, sign=True)} ({signed(per_cent(*levels).item())})",
                _p(estimate),
                a.verdict(metric, estimate, second),
            )
        )
    header = ("metric", None, None, "reported_difference", "difference", "p", "verdict")
    names = iter((escape(first), escape(second)))
    return table(rows, [a.say(f"column.{column}") if column else next(names) for column in header])


def _p(estimate: Estimate) -> str:
    if estimate.standard_error == 0:  # the same in every run: nothing to test
        return "–"
    return "–" if pd.isna(estimate.p) else "< 0.001" if estimate.p < 0.001 else f"{estimate.p:.3f}"


def against(a: Analysis, reference: str, others: list[str]) -> str:
    """Table of solutions against a reference: both scores and delta_m, Holm-corrected over the table."""
    asked = {}
    for name in others:
        for metric in SCORES:
            asked[name, metric] = a.evidence.difference(reference, name, metric)
        asked[name, "delta_m"] = a.evidence.delta_m(name, reference)
    found = holm(asked)
    rows = [
        (
            f"`{name}`",
            *(
                f"{interval(metric, one, sign=True)}<br>{a.verdict(metric, one, name)}"
                for metric in (*SCORES, "delta_m")
                for one in (found[name, metric],)
            ),
        )
        for name in others
    ]
    header = (a.say("column.minus", name=f"`{reference}`"), *map(a.metric, (*SCORES, "delta_m")))
    return table(rows, header)
