"""The analysis as Markdown: interference, performance, efficiency, what was found and what is left.

Every sentence is computed from the runs of a study; `wording` says how far a sentence may go.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from gradlib.evidence import diagnostics, tables
from gradlib.evidence.controls import GUESSED
from gradlib.evidence.intervals import Estimate, Evidence, holm
from gradlib.evidence.tables import METRICS, SCORES
from gradlib.report.claims import conclusions, read
from gradlib.report.findings import balance, collapses, conflict, drift, rates, stages, steadiness
from gradlib.report.rendering import Analysis, bullets, escape, interval, number, table
from gradlib.report.report import trained_on

__all__ = [
    "conclusions",
    "efficiency",
    "gained",
    "gains",
    "interference",
    "leakage",
    "leaks",
    "outlook",
    "performance",
    "power",
    "summary",
]


def interference(a: Analysis) -> str:
    """Section 1: do the gradients fight, and what did each remedy do about it."""
    reach = diagnostics.reached(a.study)
    parts = [f"#### {a.say('heading.baseline')}"]
    if a.has("baseline"):
        parts += [f"{conflict(a, 'baseline')} {drift(a, 'baseline')}"]
        parts += [stages(a, "baseline")] if "baseline" in diagnostics.conflicts(a.study).index else []
    else:
        parts.append(a.missing("baseline"))
    kinds = a.study.runs.drop_duplicates("solution").set_index("solution")["balancer"]
    for name in [n for n in a.names if isinstance(kinds[n], str) and kinds[n] != "fixed"] or ["gradnorm"]:
        parts.append(f"#### {a.say('heading.balancing', name=escape(name))}")
        if not a.has(name):
            parts.append(a.missing(name))
            continue
        common, change = rates(a, name, "baseline") if a.has("baseline") else ("", None)
        against = (
            a.say(
                "rates",
                stages=escape(common),
                change=interval("points", _points(change), sign=True),
                verdict=a.say(f"rates.{change.verdict(higher=False).split()[0]}"),
            )
            if common
            else ""
        )
        parts.append(
            bullets(
                f"**{a.say('bullet.weights')}** {balance(a, name)}",
                f"**{a.say('bullet.conflicts')}** {conflict(a, name)}{against}",
                f"**{a.say('bullet.stability')}** {steadiness(a, name)}",
            )
        )
    for name in [n for n in a.joint if n in reach.index and reach.loc[n, "both"] == 0] or ["dual"]:
        parts.append(f"#### {a.say('heading.separation', name=escape(name))}")
        if not a.has(name):
            parts.append(a.missing(name))
            continue
        own = {key: f"{int(value):,}" for key, value in reach.loc[name].items()}
        parts.append(
            bullets(
                f"**{a.say('bullet.separation')}** {a.say('separation', name=escape(name), **own)}",
                f"**{a.say('bullet.cost')}** {price(a, 'baseline', name)}" if a.has("baseline") else "",
                f"**{a.say('bullet.stability')}** {steadiness(a, name)}",
            )
        )
    return "\n\n".join(parts)


def _points(estimate):
    """An estimate of a share, in percentage points."""
    return replace(
        estimate,
        value=100 * estimate.value,
        between_patients=1e4 * estimate.between_patients,
        between_runs=1e4 * estimate.between_runs,
    )


def price(a: Analysis, reference: str, name: str) -> str:
    """How many times as much a solution costs as another."""
    times = {}
    for metric in ("parameters", "macs", "peak_memory_mb", "seconds_per_epoch"):
        one, other = (a.evidence.level(which, metric).value for which in (reference, name))
        times[metric] = f"{other / one:.2f}" if one else "–"
    return a.say("price", name=escape(name), reference=escape(reference), **times)


def gained(a: Analysis) -> dict[str, Estimate]:
    """delta_m of every joint solution, Holm-corrected; none where a specialist is missing."""
    if not a.has("detection-only", "classification-only"):
        return {}
    return holm({name: a.evidence.delta_m(name) for name in a.joint})


def gains(a: Analysis) -> str:
    """delta_m of every joint solution with its interval: is it above the single-task specialists?"""
    lacking = a.missing("detection-only", "classification-only")
    if lacking:
        return lacking
    found = gained(a)
    rows = [
        (
            f"`{name}`",
            *(
                interval("delta_m", a.evidence.delta_m(name, task=task), sign=True)
                for task in ("detection", "classification")
            ),
            interval("delta_m", one, sign=True),
            a.say(f"gain.{one.verdict().split()[0]}")
            if not one.insufficient_reason
            else a.say(f"lack.{one.insufficient_reason}"),
        )
        for name, one in found.items()
    ]
    columns = ("solution", "detection", "classification", "delta_m", "verdict")
    return f"{a.say('gains')}\n\n" + table(rows, [a.say(f"column.{column}") for column in columns])


def performance(a: Analysis) -> str:
    """Section 2: mAP, the trade-off of precision and recall, F1, boxes and views."""
    parts = []
    couples = [c for c in (("gradnorm", "dual"), ("baseline", "gradnorm"), ("baseline", "dual")) if a.has(*c)]
    metrics = {
        "map": ("map50", "map50_95"),
        "precision_recall": ("precision", "recall"),
        "f1": ("f1",),
        "boxes_views": ("detection_mse", "accuracy", "balanced_accuracy"),
    }
    asked = {
        (*couple, m): a.evidence.difference(*couple, m)
        for couple in couples
        for ms in metrics.values()
        for m in ms
    }
    found = holm(asked)
    for title, chosen in metrics.items():
        parts.append(f"#### {a.say(f'heading.{title}')}")
        lines = [a.difference(m, *couple, found[(*couple, m)]) for couple in couples for m in chosen]
        if title == "precision_recall":
            lines += [_trade(a, *couple, found) for couple in couples]
        if title == "boxes_views" and a.has(GUESSED):
            lines += entangled(a)
        parts.append(bullets(*lines) if lines else a.missing("baseline", "gradnorm", "dual"))
    return "\n\n".join(parts)


def entangled(a: Analysis) -> list[str]:
    """How far the views follow from the jets, and whether the solutions know more than that."""
    level = a.evidence.level(GUESSED, "balanced_accuracy")
    named = [name for name in ("classification-only", "baseline", "gradnorm", "dual") if a.has(name)]
    found = holm({name: a.evidence.difference(GUESSED, name, "balanced_accuracy") for name in named})
    return [
        a.say("entangled", guess=interval("balanced_accuracy", level)),
        *(a.difference("balanced_accuracy", GUESSED, name, one) for name, one in found.items()),
    ]


def _trade(a: Analysis, first: str, second: str, found: dict) -> str:
    """Whether precision is paid for with recall between two solutions, as far as the verdicts go."""
    precision, recall = (found[first, second, metric].verdict() for metric in ("precision", "recall"))
    names = {"a": escape(first), "b": escape(second)}
    if {precision, recall} == {"better", "worse"}:
        names = names if precision == "worse" else {"a": names["b"], "b": names["a"]}
        return a.say("trade.shown", **names)
    return a.say("trade.not_shown", **names)


def efficiency(a: Analysis) -> str:
    """Section 3: compute, memory, and which solution asks least of a small device."""
    cost = tables.efficiency(a.study)
    trained = cost.index[cost["parameters"].notna()]
    names = [name for name in a.joint if name in trained] or list(trained)
    metrics = ["parameters", "macs", "peak_memory_mb", "seconds", "seconds_per_epoch", *tables.PER_PARAMETER]
    rows = [
        (f"`{name}`", *(number(metric, cost.loc[name, metric]) for metric in metrics)) for name in trained
    ]
    mb = a.say.listed(f"{escape(name)} {4 * cost.loc[name, 'parameters'] / 2**20:.1f} MiB" for name in names)
    lines = [
        f"**{a.say('bullet.compute')}** {_least(a, names, 'macs')} {_least(a, names, 'seconds_per_epoch')}",
        f"**{a.say('bullet.memory')}** {_least(a, names, 'peak_memory_mb')}",
        f"**{a.say('bullet.device')}** {_least(a, names, 'parameters')} {a.say('device', sizes=mb)}",
    ]
    return f"{table(rows, (a.say('column.solution'), *map(a.metric, metrics)))}\n\n{bullets(*lines)}"


def _least(a: Analysis, names: list[str], metric: str) -> str:
    values = tables.efficiency(a.study).loc[names, metric].dropna()
    who = a.say.listed(escape(name) for name in values.index[np.isclose(values, values.min())])
    return a.say("least", metric=a.metric(metric), names=who, value=number(metric, values.min()))


def leaks(a: Analysis) -> dict[str, pd.DataFrame]:
    """By solution that runs on both splits: its scores on each with half their 95 % intervals; columns
    metric (its key), published, published margin, unseen, unseen margin."""
    tables = {}
    published = Evidence(replace(a.study, runs=a.study.published))
    for name, rows in a.study.published.groupby("of"):
        if a.has(name):
            levels = {
                "published": [published.level(rows["solution"].iloc[0], metric) for metric in SCORES],
                "unseen": [a.evidence.level(name, metric) for metric in SCORES],
            }
            columns = {"metric": SCORES}
            for split, found in levels.items():
                columns |= {
                    split: [one.value for one in found],
                    f"{split} margin": [one.margin_of_error for one in found],
                }
            tables[name] = pd.DataFrame(columns)
    return tables


def leakage(a: Analysis) -> str:
    """The same recipe on the published split and on patients it has never seen.

    The interval of the difference comes of the two intervals (Zou and Donner 2008), as of two samples.
    """
    lines = []
    for name, rows in leaks(a).items():
        for _, row in rows.iterrows():
            difference, half = (
                row["published"] - row["unseen"],
                np.hypot(row["published margin"], row["unseen margin"]),
            )
            found = "inside" if not abs(difference) > half else "above" if difference > 0 else "below"
            low, high = (number(row["metric"], difference + end * half, sign=True) for end in (-1, 1))
            lines.append(
                a.say(
                    "leakage",
                    name=escape(name),
                    metric=a.metric(row["metric"]),
                    published=number(row["metric"], row["published"]),
                    unseen=number(row["metric"], row["unseen"]),
                    difference=f"{number(row['metric'], difference, sign=True)} [{low}, {high}]",
                    verdict=a.say(f"leakage.{found}"),
                )
            )
    return bullets(*lines) or a.say("leakage.none")


def power(a: Analysis) -> str:
    """What it would take to show a difference of the size found, for what has no verdict."""
    couples = [
        c for c in (("gradnorm", "dual"), *(("baseline", n) for n in a.joint if n != "baseline")) if a.has(*c)
    ]
    asked = holm({(*c, metric): a.evidence.difference(*c, metric) for c in couples for metric in SCORES})
    rows = [
        (
            escape(second),
            escape(first),
            a.metric(metric),
            interval(metric, one, sign=True),
            number(metric, one.detectable_difference()),
            a.needs(one),
        )
        for (first, second, metric), one in asked.items()
        if one.verdict(METRICS[metric].higher) in ("no difference shown", "too small")
    ]
    if not rows:
        return a.say("power.all")
    columns = ("solution", "against", "metric", "difference", "detectable", "needs")
    return f"{a.say('power')}\n\n" + table(rows, [a.say(f"column.{column}") for column in columns])


def summary(a: Analysis) -> str:
    """What was found, in a few lines: counts of the claims, then each finding with its verdict."""
    found = read(a)
    counts = {
        which: sum(reading == which for _, _, reading, _ in found)
        for which in ("supported", "contradicted", "not_shown")
    }
    fallen, seeds = collapses(a, a.names), len(set(a.study.runs["seed"]))
    found_gains = gained(a)
    by = {
        verdict: [escape(n) for n, one in found_gains.items() if one.verdict() == verdict]
        for verdict in ("better", "worse", "no difference shown", "too small")
    }
    patients = sum(len(images) for images in a.evidence.images_by_fold.values())
    return bullets(
        a.say("summary.claims", total=len(found), **counts, rest=len(found) - sum(counts.values())),
        conflict(a, "baseline") if a.has("baseline") else a.missing("baseline"),
        a.say("summary.gains", **{key.split()[0]: a.say.listed(names) for key, names in by.items()})
        if found_gains
        else a.missing("detection-only", "classification-only"),
        *fallen,
        "" if fallen else a.say("summary.no_collapse"),
        a.say(
            "summary.limits",
            runs=len(a.trained),
            folds=len(set(a.study.runs["fold"])),
            seeds=seeds,
            patients=patients,
        )
        + (a.say("summary.one_seed") if seeds == 1 else ""),
    )


def outlook(a: Analysis) -> str:
    """The reference report's four outlook items: what these runs cover, and what is left."""
    data = trained_on(a)
    runs = a.study.runs[["fold", "seed"]].drop_duplicates()
    fused = [c for c in (("gradnorm", "fusion"), ("dual", "fusion")) if a.has(*c)]
    asked = holm({(*c, metric): a.evidence.difference(*c, metric) for c in fused for metric in SCORES})
    sentences = [a.difference(metric, first, second, one) for (first, second, metric), one in asked.items()]
    tuned = a.say("outlook.tuned" if a.has("static-tuned") else "outlook.untuned")
    texts = {
        "real": a.say(
            "outlook.synthetic" if all(data.values()) else "outlook.given", data=a.say.listed(data)
        ),
        "tuning": a.say("outlook.settings", runs=len(runs), tuned=tuned),
        "transfer": a.say("outlook.tasks"),
        "fusion": " ".join(sentences) or a.missing("fusion", "gradnorm", "dual"),
    }
    return bullets(*(f"**{a.say(f'outlook.{item}')}** {text}" for item, text in texts.items()))
