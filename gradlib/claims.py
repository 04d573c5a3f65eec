"""The reference report's conclusions as a table: claim, measured figure, reading.

A claim reads as "higher in this run" at most; what the runs do not carry reads as not supported.
"""

from collections.abc import Iterator

from gradlib import compare, diagnostics, findings
from gradlib.compare import SCORES
from gradlib.config import TASKS
from gradlib.wording import NOT, NOT_FOR_RUNS, UNKNOWN, absent, claim, collapses, escape, scope, table

__all__ = ["STEADY", "conclusions"]

# Per cent: a training loss that never rises by more from one epoch to the next is called smooth.
STEADY = 5.0
LEAN = ["parameters", "macs", "peak_memory_mb", "seconds_per_epoch"]


def conclusions(study) -> str:
    """Every claim of the reference report's conclusions against these runs."""
    rows = [*_interference(study), *_training(study), *_use(study), *_novelty(study)]
    return table(rows, ("Claim", "Measured", "Reading"))


def _interference(study) -> Iterator[tuple[str, str, str]]:
    rates = diagnostics.conflict_against(study, "gradnorm", "baseline")
    text = "GradNorm removes the interference by moving the weights"
    if rates is not None:
        base, rate = rates["baseline"], rates["gradnorm"]
        fallen = collapses(study, ["gradnorm"])
        reading = f"fewer conflicts {_where(study, 'gradnorm')}; not none" if 0 < rate < base else NOT
        reading = f"no conflict {_where(study, 'gradnorm')}" if rate == 0 < base else reading
        yield (
            text,
            f"conflicts in {base:.1%} of probes (baseline), {rate:.1%} (gradnorm)",
            (f"{NOT}: a task collapsed" if fallen else reading),
        )
    else:
        yield text, _none(study, "baseline", "gradnorm"), UNKNOWN

    text = "Weights that go to 0 (detection) and 4 (classification) balance the tasks: gradnorm-reported"
    if absent(study, "gradnorm-reported"):
        yield text, _none(study, "gradnorm-reported"), UNKNOWN
    else:
        states = diagnostics.collapse(study).loc["gradnorm-reported"]["state"]
        reading = "no collapse; whether that is balance, the shares say"
        reading = UNKNOWN if (states == "too late to tell").any() else reading
        reading = "**a collapse**, not a balance" if (states == "collapse").any() else reading
        yield text, findings.balance(study, "gradnorm-reported"), reading

    text = "Two backbones remove the interference"
    if absent(study, "dual"):
        yield text, _none(study, "dual"), UNKNOWN
    else:
        reach = diagnostics.reached(study).loc["dual"]
        measured = f"{reach['both']:,} of {reach['total']:,} parameters are reached by both tasks"
        reading = "true by construction, not a measurement" if reach["both"] == 0 else NOT
        yield text, measured, reading


def _training(study) -> Iterator[tuple[str, str, str]]:
    for name in ("gradnorm", "dual"):
        yield f"{name}: mAP rises", *claim(study, name, "baseline", ["map50"])
        measured, reading = claim(study, name, "detection-only", ["map50"])
        if reading == NOT:
            reading = f"{NOT}: no level was named, and the specialist's is not exceeded"
        elif reading.startswith("higher"):
            reading = f"{reading} than the specialist's; no level was named"
        yield f"{name}: mAP reaches a reasonable level", measured, reading
    smooth = diagnostics.stability(study)
    for name in ("gradnorm", "dual"):
        text = f"{name}: smooth loss curves, no exploding or vanishing gradient"
        if absent(study, name):
            yield text, _none(study, name), UNKNOWN
            continue
        rows = smooth.loc[name]
        ratios = rows["norm_ratio"].dropna()
        norms = "".join(f"; gradient norm of {task} {r:.2f} times its start" for task, r in ratios.items())
        steady = rows["largest_rise"].max() <= STEADY
        reading = (
            f"no rise above {STEADY:g}% {_where(study, name)}"
            if steady
            else f"{NOT}: a rise above {STEADY:g}%"
        )
        yield text, f"{findings.steadiness(study, name)}{norms}", reading
    moves, states = compare.dynamics(study), diagnostics.collapse(study).reset_index()
    for name in ("gradnorm", "dual"):
        text = f"{name}: both tasks are trained"
        if absent(study, name):
            yield text, _none(study, name), UNKNOWN
            continue
        losses = {task: moves.loc[(name, f"train_loss_{task}")] for task in TASKS}
        measured = "; ".join(
            f"training loss of {t} {r['start']:.3f} to {r['end']:.3f}" for t, r in losses.items()
        )
        off = states.query("solution == @name and state == 'collapse'")["task"].unique()
        fell = all(row["trend"] == "falls" for row in losses.values())
        reading = f"both losses fall {_where(study, name)}" if fell else NOT
        yield text, measured, f"{NOT}: **{off[0]} collapsed**" if len(off) else reading


def _use(study) -> Iterator[tuple[str, str, str]]:
    yield "gradnorm suits scarce resources (against dual)", *claim(study, "gradnorm", "dual", LEAN)
    yield "dual suits high demands on precision (against gradnorm)", *claim(study, "dual", "gradnorm", SCORES)


def _novelty(study) -> Iterator[tuple[str, str, str]]:
    yield "Theory: first use in joint detection and classification of medical images", "–", NOT_FOR_RUNS
    runs = f"{len(study.runs)} complete runs, {len(study.incomplete)} begun and not ended"
    yield "Practice: a complete implementation and verification", runs, NOT_FOR_RUNS
    yield "Transfer: a new way for multi-task learning", "one data set, two tasks", NOT_FOR_RUNS


def _none(study, *wanted: str) -> str:
    lacking = absent(study, *wanted)
    return f"no run of {', '.join(map(escape, lacking))}" if lacking else "no probe of a shared stage"


def _where(study, name: str) -> str:
    return scope(int((study.runs["solution"] == name).sum()))
