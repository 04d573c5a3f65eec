"""Whether the tasks' gradients fight, beyond noise: from the inner products on two halves of a batch.

Rows are those of a study's `probes` (or `parts`), with the columns of `probe.split.SplitGradients.products`.
The expected gradients are hidden in noise that a batch's own cosine does not tell from them. On two halves
without a common frame the noise is independent, so that products of one half with the other are unbiased.
They are averaged over probes before anything is divided.
"""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from gradlib.config import TASKS, in_registry_order
from gradlib.evidence.diagnostics import STAGES, common_stages
from gradlib.evidence.intervals import NO_ESTIMATE, Estimate, across_runs, with_p
from gradlib.evidence.pooling import combined_df
from gradlib.evidence.tables import RUN, in_order, numbers

# A signal of fewer standard errors is not told from none, and nothing is divided by it.
MIN_SIGNAL = 2.0
KEYS = ("solution", "kind", "stage")
#: The parts of a training, by the first and the last of its probes (as shares of all).
WINDOWS = {"all": (0.0, 1.0), "early": (0.0, 1 / 3), "late": (2 / 3, 1.0)}


def products(probes: pd.DataFrame, first: str = TASKS[0], second: str = TASKS[1]) -> pd.DataFrame:
    """The inner products of two tasks' gradients on different halves, in units of their norms on one half.

    One row a probe of a run: index RUN and step, columns `first`, `second` (of each with itself), `cross`,
    `same` (of both on the same half); `cosine`, of whole batches, as a probe without halves has it; and
    `fraction`, f below.

    Rows of one probe (stages, kinds) are summed: their gradients are parts of one. Norms vary by orders of
    magnitude over a training, and without the division a few probes would make the mean.
    Frames are drawn without replacement: two halves with a share f of all training frames each agree less
    than independent ones; with f of the products within a half, and 1 - f of those across, they do not.
    """
    tasks = {"first": first, "second": second}
    names = {place: f"signal_{task}" for place, task in tasks.items()}
    names |= {kind: f"{kind}_{first}_{second}" for kind in ("cross", "same")}
    names |= {f"square_{place}": f"square_{task}" for place, task in tasks.items()}
    table = numbers(probes, names.values()).set_axis([*names], axis=1)
    keys = [*(key for key in RUN if key in probes), "step"]
    table = pd.concat([probes[keys], table, numbers(probes, ["fraction"])], axis=1).dropna()
    rows = table.groupby(keys, sort=False)
    summed, f = rows[[*names]].sum(), rows["fraction"].first()
    one, other = (np.sqrt(summed[f"square_{place}"]) for place in tasks)
    found = pd.DataFrame({"first": summed["first"] / one**2, "second": summed["second"] / other**2})
    found = found.assign(cross=summed["cross"] / (one * other), same=summed["same"] / (one * other))
    whole = (1 + found["first"]) * (1 + found["second"])  # 0 where halves cancel, or a rounding less
    found["cosine"] = (found["same"] + found["cross"]) / np.sqrt(whole.where(whole > 0))
    found = found.fillna(0.0)  # no gradient: no box, or no view, in the batch
    found[["first", "second"]] += f.to_numpy()[:, None] * (1 - found[["first", "second"]])
    return found.assign(cross=found["cross"] + f * (found["same"] - found["cross"]), fraction=f)


def window(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """The rows of `products` in this part of `WINDOWS` of each run."""
    runs = rows["first"].groupby(_runs(rows.index))
    place, count = runs.cumcount(), runs.transform("size")
    low, high = WINDOWS[part]
    return rows[(place >= np.floor(low * count)) & (place < np.ceil(high * count))]


def ratio(rows: pd.DataFrame, over: str, first: str, second: str) -> Estimate:
    """mean(`over`) / sqrt(mean(`first`) mean(`second`)) over `rows`, with its interval.

    `patients` counts the probes. `insufficient_reason`: `signal` where a mean below the root is not told
    from 0, `runs` for one run.
    """
    if lacking := _lacking(rows, first, second):
        return lacking
    top, one, two = (rows[name].mean() for name in (over, first, second))
    root = np.sqrt(one * two)
    value = top / root
    linear = (rows[over] - top) / root - value / 2 * ((rows[first] - one) / one + (rows[second] - two) / two)
    return _estimate(value, linear)


def _lacking(rows: pd.DataFrame, *names: str) -> Estimate | None:
    """Why nothing can be divided by the means of these columns; None where it can."""
    if len(rows) < 4:
        return NO_ESTIMATE
    for name in names:
        centred = rows[name] - rows[name].mean()
        if not rows[name].mean() > MIN_SIGNAL * _variance(centred)[0] ** 0.5:
            runs = len({*_runs(rows.index)})
            return Estimate(np.nan, patients=len(rows), runs=runs, insufficient_reason="signal")
    return None


def _estimate(value: float, linear: pd.Series) -> Estimate:
    """`value` with its interval from the linear part of what it is of (the delta method), one value a probe:
    the variance of blocks of neighbouring probes within each run, with Student's t, and of the runs beyond
    that."""
    within, df = _variance(linear)
    runs = _runs(linear.index)
    n_runs, between = int(runs.max()) + 1, np.nan
    if n_runs > 1:
        # Of each run's part in the value; what its variance exceeds the probes' by is the runs'.
        parts = linear.groupby(runs).sum() / len(linear)
        between = max(0.0, n_runs / (n_runs - 1) * float(np.square(parts).sum()) - within)
    variances, dfs = (within, between)[: min(n_runs, 2)], (df, n_runs - 1)[: min(n_runs, 2)]
    return with_p(
        Estimate(
            float(value),
            sum(variances),
            combined_df(variances, dfs),
            of_runs=between,
            patients=len(linear),
            runs=n_runs,
            insufficient_reason="" if n_runs > 1 else "runs",
        )
    )


def _runs(index: pd.Index) -> np.ndarray:
    """The number of each row's run, from 0."""
    keys = [*index.names[:-1]]
    frame = index.to_frame(index=False)
    return frame.groupby(keys, sort=False).ngroup().to_numpy() if keys else np.zeros(len(frame), int)


def _variance(linear: pd.Series) -> tuple[float, float]:
    """The variance of the mean of `linear` from its blocks, and its degrees of freedom."""
    runs = pd.Series(_runs(linear.index))
    length = np.maximum(1, np.round(np.cbrt(runs.map(runs.value_counts())))).astype(int)
    sums = pd.Series(linear.to_numpy()).groupby([runs, runs.groupby(runs).cumcount() // length]).sum()
    centred = sums - sums.groupby(level=0).transform("mean")
    df = len(sums) - sums.index.get_level_values(0).nunique()
    blocks_over_df = len(sums) / max(df, 1)
    return float(np.square(centred).sum()) * blocks_over_df / len(linear) ** 2, df


def interference(rows: pd.DataFrame) -> Estimate:
    """rho, the cosine of the tasks' expected gradients: below 0 they fight."""
    return ratio(rows, "cross", "first", "second")


def signal_shares(rows: pd.DataFrame) -> list[float]:
    """How much of the square of a half's gradient is no noise, of each task: <A, B> / (|A| |B|)."""
    return rows[["first", "second"]].mean().tolist()


def noise_in_norms(study, solution: str) -> tuple[list[float], Estimate]:
    """What noise does to the tasks' norms over all shared weights, which GradNorm compares with `shared`.

    The signal's share in the square of one batch's gradient, of each task; and the factor by which noise
    multiplies the ratio of the first task's norm to the second's: 1 where it moves no weight.
    """
    rows = products(study.probes[study.probes["solution"] == solution])
    configs = [study.config(*run) for run in rows.index.droplevel("step")]
    batches = [config["frames"]["train"] / config["batch_size"] for config in configs] * rows["fraction"]
    if lacking := _lacking(rows, "first", "second"):
        return [np.nan, np.nan], lacking
    # Noise falls with the frames: a half of a probe has those of so many batches.
    one, two, more = rows["first"].mean(), rows["second"].mean(), batches.mean()
    shares = [mean / (mean + more * (1 - mean)) for mean in (one, two)]
    factor = np.sqrt(shares[1] / shares[0])
    parts = [
        (rows[name] - mean) * more * share / mean**2
        for name, mean, share in zip(("first", "second"), (one, two), shares, strict=True)
    ]
    return shares, _estimate(factor, factor / 2 * (parts[1] - parts[0]))


def coupling(rows: pd.DataFrame) -> float:
    """What the same frames add to the cosine of two tasks on one half: the same half's minus the cross."""
    return float((rows["same"] - rows["cross"]).mean())


def null_conflict_rate(rows: pd.DataFrame) -> float:
    """How often two tasks that agree fully (rho = 1) would seem to conflict with this noise: the share of
    cosines of whole batches that are below 0 once each is moved by what full agreement adds to their mean.
    (Where expected gradients are at right angles, half of all do.)"""
    means = rows.mean()
    agreement = np.sqrt(max(means["first"], 0) * max(means["second"], 0))
    norms = np.sqrt((1 + means["first"]) * (1 + means["second"])) / 2
    agreement = (agreement - means["cross"]) / norms
    return float((rows["cosine"] + agreement < 0).mean())


def compare(study, solution: str, against: str = "") -> Estimate:
    """rho of a solution over its shared convolutions; with `against`, minus that solution's, over the stages
    that both share."""
    stages = common_stages(study, solution, against or solution)
    probes = study.probes[(study.probes["kind"] == "conv") & study.probes["stage"].isin(stages)]
    sides = (probes[probes["solution"] == name] for name in (solution, against) if name)
    own, *other = (interference(products(side)) for side in sides)
    if not other:
        return own
    weak = [one for one in (own, *other) if np.isnan(one.value)]
    if weak:
        return weak[0]
    return with_p(
        replace(
            own,
            value=own.value - other[0].value,
            variance=own.variance + other[0].variance,
            df=combined_df((own.variance, other[0].variance), (own.df, other[0].df)),
            of_runs=own.of_runs + other[0].of_runs,
            insufficient_reason=own.insufficient_reason or other[0].insufficient_reason,
        )
    )


def by_stage(probes: pd.DataFrame, kind: str = "") -> pd.DataFrame:
    """Interference by (solution, kind, stage), of one `kind` or all; stage `all`: their sum.

    Columns rho, rho_low, rho_high (NaN where the signal is too weak), likewise early and late, of these
    `WINDOWS`; signal_detection, signal_classification, coupling, cosine and conflict
    (of whole batches), null_conflict, probes, runs.
    """
    found, named = [], {"rho": "all", "early": "early", "late": "late"}
    probes = probes.reindex(columns=[*dict.fromkeys([*probes, *KEYS])])
    probes = probes[probes["kind"] == kind] if kind else probes
    groups = [*probes.groupby([*KEYS], sort=False)]
    groups += [((*key, "all"), own) for key, own in probes.groupby([*KEYS[:2]], sort=False)]
    for key, own in groups:
        rows = products(own)
        if len(rows):
            rhos = {name: interference(window(rows, part)) for name, part in named.items()}
            found.append(
                dict(zip(KEYS, key, strict=True))
                | {name: rho.value for name, rho in rhos.items()}
                | {
                    f"{name}_{end}": getattr(rho, end)
                    for name, rho in rhos.items()
                    for end in ("low", "high")
                }
                | {f"signal_{task}": share for task, share in zip(TASKS, signal_shares(rows), strict=True)}
                | {"coupling": coupling(rows), "cosine": rows["cosine"].mean()}
                | {"conflict": (rows["cosine"] < 0).mean(), "null_conflict": null_conflict_rate(rows)}
                | {"probes": len(rows), "runs": rhos["rho"].runs}
            )
    table = pd.DataFrame(found) if found else pd.DataFrame(columns=[*KEYS, "rho"])
    order = [*in_registry_order(table["solution"].unique()), "conv", "norm", *STAGES, "all"]
    place = {name: at for at, name in enumerate(order)}
    table = table.sort_values([*KEYS], key=lambda column: column.map(place), kind="stable")
    return table.set_index([*KEYS])


def rho_of_parts(parts: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """rho between detection's parts and classification at the last shared layer, from rows of `parts`: each
    against each, and its margin of error (95 %); NaN where the signal is too weak."""
    names = [name.removeprefix("signal_") for name in parts if name.startswith("signal_")]
    values, margins = (pd.DataFrame(np.nan, names, names) for _ in range(2))
    for one, other in combinations(names, 2):
        rho = interference(products(parts, one, other))
        for table, value in ((values, rho.value), (margins, rho.margin_of_error)):
            table.loc[one, other] = table.loc[other, one] = value
    return values, margins


def harm(study, evidence) -> pd.DataFrame:
    """rho over the shared convolutions (`rho`, `margin`) and `delta_m` of every run that has both; columns
    RUN, too. evidence: the study's `Evidence`."""
    rows = []
    for run, own in study.probes[study.probes["kind"] == "conv"].groupby(RUN, sort=False):
        rho, gains = interference(products(own)), evidence.points("delta_m")
        gain = float(gains[run[0]].get(run[1:], np.nan)) if run[0] in gains else np.nan
        if np.isfinite([rho.value, gain]).all():
            rows.append((*run, rho.value, rho.margin_of_error, gain))
    return in_order(study, pd.DataFrame(rows, columns=[*RUN, "rho", "margin", "delta_m"]))


def rank_correlation(one: pd.Series, other: pd.Series) -> tuple[float, float, float]:
    """Spearman's, and its 95 % interval (Bonett and Wright 2000, equation 3); NaN of fewer than 5 values,
    or of one value alone."""
    if len(one) < 5 or not np.ptp(one) * np.ptp(other):
        return np.nan, np.nan, np.nan
    r = float(one.corr(other, method="spearman"))
    margin = stats.norm.ppf(0.975) * np.sqrt((1 + r**2 / 2) / (len(one) - 3))
    at = np.arctanh(np.clip(r, -0.999, 0.999))
    return r, float(np.tanh(at - margin)), float(np.tanh(at + margin))


def affinities(study) -> pd.DataFrame:
    """How much a step along a task's gradient lowers a loss, by (solution, source, target): `affinity`, the
    mean over probes and then runs of the relative fall, `low` and `high` over probes, `probes`."""
    rows = []
    for key, own in study.affinity.groupby(["solution", "source", "target"], sort=False):
        one = across_runs(own["affinity"])
        rows.append((*key, one.value, one.low, one.high, len(own)))
    columns = ["solution", "source", "target", "affinity", "low", "high", "probes"]
    return in_order(study, pd.DataFrame(rows, columns=columns)).set_index(columns[:3])
