"""Controls without which no remedy is believed: what another run settles, and what needs no run at all.

Weights that stand still tell what GradNorm's moving ones are worth (Xin et al. 2022), a branch drawn by lot
what a branch chosen by conflict is worth (Recon, Shi et al. 2023): both wait for another run's end. Static
weights that were tuned, and the view guessed from the jets, are read off the runs that a study has.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gradlib.config import BRANCHES, RANDOM, Solution, Training, check_folder_name
from gradlib.evidence.tables import SCORES
from gradlib.runs import schema, write

if TYPE_CHECKING:  # it brings PyTorch, which reading runs does without
    from gradlib.data.tables import Frame

__all__ = ["VIRTUAL", "branch_to_part", "settle", "views_from_jets", "with_controls"]

STAGES = BRANCHES[1:]
#: Recon counts conflicts over this part of a joint run, from its start.
FIRST = 0.25
TUNED, GUESSED = "static-tuned", "view-from-jet"
#: The solutions that `with_controls` adds, and what they are.
VIRTUAL = {
    TUNED: "the fixed weights that validate best, of the baseline's and all others in the study, chosen for "
    "each fold and seed",
    GUESSED: "no network: the view that goes most often with the true jets' classes",
}
# What decides what a run learns, beside its solution and its fold and seed.
DECISIVE = {"data", "split", "folds", "pretrained", *(one.name for one in fields(Training))}
DECISIVE -= {"device", "probe_every"}


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
    `study` of the same fold and seed. FileNotFoundError, with the cure, where such a run is not complete;
    ValueError where it cannot be read."""
    if solution.weights_from:
        columns = [f"weight_{task}" for task in solution.tasks]
        other = _run(solution, solution.weights_from, study, fold, seed)
        weights = schema.table(other, "steps", needs=columns)[columns].mean()
        solution = replace(solution, weights=tuple(weights.tolist()))
    if solution.branch_from:
        other = _run(solution, solution.branch_from, study, fold, seed)
        solution = replace(solution, branch=branch_to_part(schema.table(other, "probes", needs=["conflict"])))
    if solution.branch == RANDOM:
        solution = replace(solution, branch=random.Random(f"branch {fold} {seed}").choice(STAGES[:-1]))
    return solution


def _run(solution: Solution, other: str, study: Path, fold: int, seed: int) -> Path:
    folder = study / check_folder_name(other, "solution") / f"fold={fold}" / f"seed={seed}"
    if not (folder / "metrics.json").is_file():
        raise FileNotFoundError(
            f"solution {solution.name!r} starts from the run of {other!r}, and {folder} is not complete: run "
            f"{other!r} with the same fold and seed first, or name both in one study"
        )
    return folder


def views_from_jets(train: Sequence["Frame"], test: Sequence["Frame"], views: int) -> list[list[float]]:
    """The view of each test frame guessed from its jets' classes alone: the scores, [len(test)][views].

    The labels of the two tasks are entangled (some jets are seen from one view only), so a network could
    name views by telling jets. The scores are the frequencies of the views among the training frames with
    the same set of jet classes (also: none); among all of them where that set is in none. It is generous:
    the guess is told the TRUE jets of the test frame, which a network has to find.
    """
    counts = defaultdict(lambda: np.zeros(views))
    for frame in train:
        if frame.view >= 0:
            counts[_jets(frame)][frame.view] += 1
    overall = sum(counts.values(), np.zeros(views))
    found = [counts.get(_jets(frame), overall) for frame in test]
    return [(count / max(count.sum(), 1)).round(5).tolist() for count in found]


def _jets(frame: "Frame") -> frozenset[int]:
    return frozenset(frame.boxes[:, 0].astype(int).tolist())


def with_controls(study: write.Study) -> write.Study:
    """`study` with the controls that need no training as rows more of `runs`; unchanged where none can be.

    `static-tuned`: for each fold and seed the run that validates best, of `baseline` and those that differ
    from it in their fixed weights alone, where there is one at least. Best is the highest mean, over mAP@0.5
    and balanced accuracy in the last epoch, of the value by the candidates' mean: no task outvotes the
    other, and the test part has no say. Metrics, cost and `path` are the chosen run's.

    `view-from-jet`: for each fold and seed the views that `views_from_jets` guesses, which is told the true
    jets and so is generous. It has metrics of classification only, and no cost. Runs made before predictions
    held the guess give none.
    """
    there = set(study.runs["solution"])
    rows = [
        *(_tuned(study) if TUNED not in there else ()),
        *(_guesses(study) if GUESSED not in there else ()),
    ]
    if not rows:
        return study
    table = pd.concat([study.runs, pd.DataFrame(rows)], ignore_index=True)
    guessed = {GUESSED: "view_from_jet"} if GUESSED in set(table["solution"]) - there else {}
    return replace(study, runs=table, guessed={**study.guessed, **guessed})


def _tuned(study: write.Study) -> Iterator[dict]:
    last = study.epochs.drop_duplicates([*write.KEYS], keep="last").set_index([*write.KEYS])
    for (fold, seed), table in study.runs.groupby(["fold", "seed"]):
        configs = {name: study.config(name, fold, seed) for name in table["solution"]}
        if "baseline" not in configs:
            continue
        wanted = _but_weights(configs["baseline"])
        names = [name for name, config in configs.items() if _but_weights(config) == wanted]
        names.sort(key=lambda name: name != "baseline")  # of equals the first is taken
        keys = [(name, fold, seed) for name in names if (name, fold, seed) in last.index]
        values = last.reindex(columns=SCORES).loc[keys].astype(float).dropna(how="all")
        scores = (values / values.mean()).fillna(1).mean(axis=1)  # where all have 0, all are alike
        if len(scores) > 1 and ("baseline", fold, seed) in scores.index:
            best = table[table["solution"] == scores.idxmax()[0]].iloc[0]
            yield {**best, "solution": TUNED}


def _but_weights(config: Mapping) -> dict:
    """All that decides what a run learns, but the fixed weights."""
    return {name: config.get(name) for name in DECISIVE} | {
        "solution": {key: value for key, value in write.asked(config).items() if key != "weights"}
    }


def _guesses(study: write.Study) -> Iterator[dict]:
    from gradlib.train.metrics import classification_metrics  # it brings PyTorch

    for _, table in study.runs.groupby(["fold", "seed"]):
        for _, run in table.iterrows():
            entries = study.predictions(*run[[*write.KEYS]])
            # Without classes of views the guess is empty; any run of the fold has the same.
            if entries and entries[0].get("view_from_jet"):
                guesses = [{**entry, "view_scores": entry["view_from_jet"]} for entry in entries]
                where = run[["fold", "seed", "path", "split"]]
                yield {"solution": GUESSED, **where, **classification_metrics(guesses)}
                break
