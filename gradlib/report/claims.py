"""The reference report's claims against these runs: figure, interval, and whether it is carried.

A claim of a difference is `supported` where every figure it needs differs from zero its way, `contradicted`
where one differs the other way, and else `not shown`; p is Holm-corrected over the whole table.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gradlib.config import TASKS
from gradlib.evidence import diagnostics
from gradlib.evidence.intervals import Estimate, across_runs, holm, proportion_interval
from gradlib.evidence.tables import METRICS, SCORES
from gradlib.report.findings import balance, cosine_of, rates
from gradlib.report.rendering import Analysis, escape, interval, number, percent, table

__all__ = ["STEADY", "Figure", "conclusions", "read"]

# Per cent: a training loss that never rises by more from one epoch to the next is called smooth.
STEADY = 5.0
LEAN = ("parameters", "macs", "peak_memory_mb", "seconds_per_epoch")


@dataclass(frozen=True)
class Figure:
    """A difference that a claim needs: its name, its size, and which way the claim has it."""

    text: str
    unit: str  # the metric whose digits and scale it has
    estimate: Estimate
    higher: bool = True


@dataclass(frozen=True)
class Claim:
    """A claim, with the figures it needs, or with its reading where that needs no interval."""

    key: str
    figures: tuple[Figure, ...] = ()
    reading: str = ""
    measured: str = ""


def conclusions(a: Analysis) -> str:
    """Every claim with its figure, interval and verdict, as a table."""
    rows = [
        (claim, measured, f"**{a.say(f'reading.{reading}')}**{why}")
        for claim, measured, reading, why in read(a)
    ]
    return table(rows, [a.say(f"column.{column}") for column in ("claim", "measured", "verdict")])


def read(a: Analysis) -> list[tuple[str, str, str, str]]:
    """Each claim: its text, its figures, its reading (a text `reading.*`), and a remark."""
    claims = list(_claims(a))
    asked = holm({(i, j): f.estimate for i, c in enumerate(claims) for j, f in enumerate(c.figures)})
    out = []
    for i, claim in enumerate(claims):
        found = [asked[i, j] for j in range(len(claim.figures))]
        verdicts = [one.verdict(f.higher) for one, f in zip(found, claim.figures, strict=True)]
        reading = claim.reading
        if not reading:
            reading = "not_shown"
            reading = "supported" if set(verdicts) == {"better"} else reading
            reading = "contradicted" if "worse" in verdicts else reading
        lacking = dict.fromkeys(
            a.say(f"lack.{one.insufficient_reason}")
            for one in found
            if one.insufficient_reason and reading == "not_shown"
        )
        lines = [
            f"{f.text} {interval(f.unit, one, sign=True)}"
            for f, one in zip(claim.figures, found, strict=True)
        ]
        measured = "<br>".join([claim.measured] * bool(claim.measured) + lines) or "–"
        why = a.say("because", why=a.say.listed(lacking)) if lacking else ""
        out.append((a.say(f"claim.{claim.key}"), measured, reading, why))
    return out


def _claims(a: Analysis) -> Iterator[Claim]:
    yield from _interference(a)
    yield from _performance(a)
    yield from _training(a)
    yield from _use(a)
    for key in ("novel", "practice", "transfer"):
        yield Claim(key, reading="not_for_runs")


SPECIALISTS = ("detection-only", "classification-only")


def _against(a: Analysis, key: str, first: str, second: str, *metrics: str) -> Claim:
    """The claim that `second` is better than `first` in all of these metrics."""
    needed = (first, second, *(SPECIALISTS if "delta_m" in metrics else ()))
    if not a.has(*needed):
        return Claim(key, reading="no_runs", measured=a.missing(*needed))
    return Claim(key, tuple(_difference(a, first, second, metric) for metric in metrics))


def _difference(a: Analysis, first: str, second: str, metric: str) -> Figure:
    text = a.say("figure.difference", metric=a.metric(metric), a=escape(first), b=escape(second))
    if metric == "delta_m":
        return Figure(text, metric, a.evidence.delta_m(second, first))
    return Figure(text, metric, a.evidence.difference(first, second, metric), METRICS[metric].higher)


def _interference(a: Analysis) -> Iterator[Claim]:
    lacking = a.missing("baseline")
    if lacking:
        yield Claim("gradients_oppose", reading="no_runs", measured=lacking)
    else:
        figure = Figure(a.say("figure.cosine", name="baseline"), "cosine", cosine_of(a, "baseline"), False)
        yield Claim("gradients_oppose", (figure,))
    lacking = a.missing("baseline", *SPECIALISTS)
    if lacking:
        yield Claim("sharing_harms", reading="no_runs", measured=lacking)
    else:
        text, gain = a.say("figure.delta_m", name="baseline"), a.evidence.delta_m("baseline")
        yield Claim("sharing_harms", (Figure(text, "delta_m", gain, False),))
    lacking = a.missing("baseline", "gradnorm")
    if lacking:
        yield Claim("fewer_conflicts", reading="no_runs", measured=lacking)
        yield Claim("balances", reading="no_runs", measured=lacking)
    else:
        _, change = rates(a, "gradnorm", "baseline")
        yield Claim("fewer_conflicts", (Figure(a.say("figure.rate"), "share", change, False),))
        yield Claim("balances", _imbalance(a, "gradnorm"))
    lacking = a.missing("gradnorm-reported")
    if lacking:
        yield Claim("zero_is_balance", reading="no_runs", measured=lacking)
    else:
        states = diagnostics.collapse(a.study).loc["gradnorm-reported"]["state"]
        reading = "contradicted" if (states == "collapse").any() else ""
        figures = () if reading else _imbalance(a, "gradnorm-reported")
        yield Claim("zero_is_balance", figures, reading, balance(a, "gradnorm-reported"))
    lacking = a.missing("dual")
    if lacking:
        yield Claim("dual_removes", reading="no_runs", measured=lacking)
    else:
        reach = diagnostics.reached(a.study).loc["dual"]
        measured = a.say("figure.reached", both=f"{int(reach['both']):,}", total=f"{int(reach['total']):,}")
        yield Claim("dual_removes", (), "contradicted" if reach["both"] else "by_construction", measured)


def _imbalance(a: Analysis, name: str) -> tuple[Figure, ...]:
    """How much farther from one half a solution's gradient shares end than the baseline's."""
    if not a.has("baseline"):
        return ()
    change = diagnostics.imbalance(a.study, name) - diagnostics.imbalance(a.study, "baseline")
    return (Figure(a.say("figure.imbalance"), "share", across_runs(change.dropna()), False),)


def _performance(a: Analysis) -> Iterator[Claim]:
    yield _against(a, "balance_helps", "baseline", "gradnorm", "delta_m")
    # The controls, where the study has them.
    for key, first, second in (
        ("balance_beats_tuned", "static-tuned", "gradnorm"),
        ("moving_helps", "gradnorm-static", "gradnorm"),
        ("separation_beats_size", "baseline", "dual-equal"),
    ):
        if a.has(first, second):
            yield _against(a, key, first, second, "delta_m")
    yield _against(a, "separation_helps", "baseline", "dual", "delta_m")
    yield _against(a, "fusion_beats_gradnorm", "gradnorm", "fusion", "delta_m")
    yield _against(a, "fusion_beats_dual", "dual", "fusion", "delta_m")
    for name in ("gradnorm", "dual"):
        yield _against(a, f"map_rises.{name}", "baseline", name, "map50")
    yield _against(a, "gradnorm_map", "dual", "gradnorm", "map50")
    if a.has("gradnorm", "dual"):
        precision = _difference(a, "dual", "gradnorm", "precision")
        yield Claim("gradnorm_precise", (precision, _difference(a, "gradnorm", "dual", "recall")))
    else:
        yield Claim("gradnorm_precise", reading="no_runs", measured=a.missing("gradnorm", "dual"))
    yield _against(a, "gradnorm_f1", "dual", "gradnorm", "f1")


def _training(a: Analysis) -> Iterator[Claim]:
    for name in ("gradnorm", "dual"):
        if not a.has(name):
            yield Claim(f"stable.{name}", reading="no_runs", measured=a.missing(name))
            yield Claim(f"trained.{name}", reading="no_runs", measured=a.missing(name))
            continue
        smooth = diagnostics.largest_rises(a.study, name) <= STEADY
        yield _counted(a, f"stable.{name}", "figure.smooth", smooth, limit=f"{STEADY:g}")
        yield _counted(a, f"trained.{name}", "figure.trained", _trained(a, name))


def _trained(a: Analysis, name: str) -> np.ndarray:
    """Of each run, whether both tasks' training losses fell and none collapsed."""
    epochs = a.study.epochs[a.study.epochs["solution"] == name]
    fell = epochs.groupby(["fold", "seed"])[[f"train_loss_{task}" for task in TASKS]].agg(["first", "last"])
    good = np.all([fell[f"train_loss_{t}"]["last"] < fell[f"train_loss_{t}"]["first"] for t in TASKS], axis=0)
    states = diagnostics.collapse(a.study).reset_index()
    off = states[(states["solution"] == name) & (states["state"] == "collapse")]
    switched = {*off[["fold", "seed"]].itertuples(index=False, name=None)}
    return good & np.array([key not in switched for key in fell.index])


def _counted(a: Analysis, key: str, text: str, good: np.ndarray, **values) -> Claim:
    """A claim that holds in so many runs: carried where the exact interval of the share is above a half."""
    count, runs = int(np.sum(good)), len(good)
    low, high = proportion_interval(count, runs)
    reading = "supported" if low > 0.5 else "contradicted" if high < 0.5 else "not_shown"
    measured = a.say(text, count=count, runs=runs, low=percent(low), high=percent(high), **values)
    return Claim(key, reading=reading, measured=measured)


def _use(a: Analysis) -> Iterator[Claim]:
    if a.has("gradnorm", "dual"):
        times = {m: a.evidence.level("dual", m).value / a.evidence.level("gradnorm", m).value for m in LEAN}
        measured = a.say("figure.times", **{m: number("times", value) for m, value in times.items()})
        # The numbers of parameters and operations are the networks', the same in every run.
        lean = times["parameters"] > 1 and times["macs"] > 1
        yield Claim("gradnorm_lean", reading="supported" if lean else "contradicted", measured=measured)
    else:
        yield Claim("gradnorm_lean", reading="no_runs", measured=a.missing("gradnorm", "dual"))
    yield _against(a, "dual_precise", "gradnorm", "dual", *SCORES)
