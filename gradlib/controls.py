"""Solutions that another run settles: its mean weights, or the branch that its conflicts name.

Both need a control: weights that stand still tell what GradNorm's moving ones are worth (Xin et al. 2022),
and a branch drawn by lot what a branch chosen by conflict is worth (Recon, Shi et al. 2023).
"""

import random
from dataclasses import replace
from pathlib import Path

import pandas as pd

from gradlib.config import BRANCHES, RANDOM, Solution

__all__ = ["branch_to_part", "settle"]

STAGES = BRANCHES[1:]
#: Recon counts conflicts over this part of a joint run, from its start.
FIRST = 0.25


def branch_to_part(probes: pd.DataFrame) -> str:
    """The branch that separates the stages in conflict from those in peace.

    probes: of one run that shares up to the neck. Over the first quarter of its probes, as Recon counts
    (Shi et al. 2023), each stage has a conflict rate (its convolutions). Where Recon makes the worst layers
    the tasks' own, here it is the stages behind one place: the place where the mean rate behind lies highest
    above the mean before; `neck` (nothing parted) where it lies above at none.
    """
    probes = probes[(probes["kind"] == "conv") & probes["cosine"].notna()]
    steps = sorted(probes["step"].unique())
    early = probes[probes["step"].isin(steps[: max(1, round(FIRST * len(steps)))])]
    rates = early.groupby("stage")["conflict"].mean()
    missing = [stage for stage in STAGES if stage not in rates]
    if missing:
        raise ValueError(
            f"no probe of {', '.join(missing)}: take the probes of a run that shares all up to the neck "
            "(as baseline), with probe_every above 0"
        )
    rates = rates[list(STAGES)]
    rise = {STAGES[i - 1]: rates.iloc[i:].mean() - rates.iloc[:i].mean() for i in range(1, len(STAGES))}
    best = max(rise, key=lambda branch: (rise[branch], STAGES.index(branch)))
    return best if rise[best] > 0 else "neck"


def settle(solution: Solution, study: Path, fold: int, seed: int) -> Solution:
    """`solution` with the weights, the branch or the lot that it leaves open, from the runs in the folder
    `study` of the same fold and seed. FileNotFoundError, with the cure, where such a run is not complete."""
    if solution.weights_from:
        steps = pd.read_csv(_run(solution, solution.weights_from, study, fold, seed) / "steps.csv")
        weights = tuple(float(steps[f"weight_{task}"].mean()) for task in solution.tasks)
        solution = replace(solution, weights=weights)
    if solution.branch_from:
        probes = pd.read_csv(_run(solution, solution.branch_from, study, fold, seed) / "probes.csv")
        solution = replace(solution, branch=branch_to_part(probes))
    if solution.branch == RANDOM:
        solution = replace(solution, branch=random.Random(f"branch {fold} {seed}").choice(STAGES[:-1]))
    return solution


def _run(solution: Solution, other: str, study: Path, fold: int, seed: int) -> Path:
    folder = study / other / f"fold={fold}" / f"seed={seed}"
    if not (folder / "metrics.json").is_file():
        raise FileNotFoundError(
            f"solution {solution.name!r} starts from the run of {other!r}, and {folder} is not complete: run "
            f"{other!r} with the same fold and seed first, or name both in one study"
        )
    return folder
