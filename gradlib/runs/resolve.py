"""The fields that a solution leaves to other runs or to chance: its weights and its branch.

Fixed weights tell what GradNorm's moving ones are worth (Xin et al. 2022), a random branch what one chosen by
conflict is worth (Recon, Shi et al. 2023).
"""

import random
from dataclasses import replace
from pathlib import Path

import pandas as pd

from gradlib.checks import check_folder_name
from gradlib.config import BRANCHES, RANDOM, Solution
from gradlib.runs.schema import is_complete, read_table

STAGES = BRANCHES[1:]
EARLY = 0.25  # the part of a run's probes, from its start, in which Recon counts conflicts


def branch_to_part(probes: pd.DataFrame) -> str:
    """The branch that separates the stages whose gradients conflict from those before them.

    probes: of one run that shares up to the neck. A stage has the conflict rate of its convolutions over the
    first quarter of the probes. Recon (Shi et al. 2023) gives each task its own copy of the worst layers;
    here the tasks part at one place: where the mean rate behind exceeds the mean rate before it most, `neck`
    if nowhere. Raises ValueError where a stage has no probe.
    """
    probes = probes[(probes["kind"] == "conv") & probes["cosine"].notna()]
    steps = sorted(probes["step"].unique())
    early = probes[probes["step"].isin(steps[: max(1, round(EARLY * len(steps)))])]
    rates = early.groupby("stage")["conflict"].mean()
    if missing := [stage for stage in STAGES if stage not in rates]:
        cure = "take a run that shares all up to the neck (as baseline), with probe_every above 0"
        raise ValueError(f"no probe of {', '.join(missing)}: {cure}")
    rates = rates[list(STAGES)]
    rise = {STAGES[i - 1]: rates.iloc[i:].mean() - rates.iloc[:i].mean() for i in range(1, len(STAGES))}
    best = max(rise, key=lambda branch: (rise[branch], STAGES.index(branch)))
    return best if rise[best] > 0 else "neck"


def resolve(solution: Solution, study: Path, fold: int, seed: int) -> Solution:
    """`solution` with its unresolved fields filled in, from runs of this fold and seed in the folder `study`.
    Raises FileNotFoundError where such a run is not complete, ValueError where it cannot be read."""

    def table(other: str, name: str, *columns: str) -> pd.DataFrame:
        folder = study / check_folder_name(other, "solution") / f"fold={fold}" / f"seed={seed}"
        if not is_complete(folder):
            raise FileNotFoundError(
                f"solution {solution.name!r} starts from the run of {other!r}, and {folder} is not complete: "
                f"run {other!r} with the same fold and seed first, or name both in one study"
            )
        table = read_table(folder, name)
        if missing := [column for column in columns if column not in table]:
            raise ValueError(f"{folder / name}.csv: lacks the column {missing[0]!r}")
        return table

    found = {}
    if solution.weights_from:
        columns = [f"weight_{task}" for task in solution.tasks]
        found["weights"] = tuple(table(solution.weights_from, "steps", *columns)[columns].mean().tolist())
    if solution.branch_from:
        found["branch"] = branch_to_part(table(solution.branch_from, "probes", "conflict"))
    elif solution.branch == RANDOM:
        found["branch"] = random.Random(f"branch {fold} {seed}").choice(STAGES[:-1])
    return replace(solution, **found)
