"""Controls that need no training of their own: they are read off the runs that a study has.

Static weights that were tuned, and the view guessed from the jets. Controls that take another run's weights
or branch and are trained are in `runs.resolve`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pandas as pd

from gradlib.evidence.tables import SCORES
from gradlib.runs.read import StudyResults, solution_key
from gradlib.runs.schema import KEYS
from gradlib.runs.write import RECORDED
from gradlib.train.metrics import classification_metrics

TUNED, GUESSED = "static-tuned", "view-from-jet"
#: The solutions that `with_controls` adds, and what they are.
VIRTUAL = {
    TUNED: "the fixed weights that validate best, of the baseline's and all others in the study, chosen for "
    "each fold and seed",
    GUESSED: "no network: the view that goes most often with the true jets' classes",
}
# What decides what a run learns, beside its solution and its fold and seed.
DECISIVE = {*RECORDED} - {"device", "probe_every", "probe_batches"}


def with_controls(study: StudyResults) -> StudyResults:
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
    controls = {TUNED: _tuned, GUESSED: _guesses}
    added = [one for name, rows in controls.items() if name not in there for one in rows(study)]
    if not added:
        return study
    table = pd.concat([study.runs, pd.DataFrame([row for row, _ in added])], ignore_index=True)
    files = {tuple(row[key] for key in KEYS): files for row, files in added}
    guessed = study.guessed | {solution for solution, _, _ in files if solution == GUESSED}
    return replace(study, runs=table, guessed=guessed, files={**study.files, **files})


def _tuned(study: StudyResults) -> Iterator[tuple[dict, Mapping]]:
    last = study.epochs.drop_duplicates([*KEYS], keep="last").set_index([*KEYS])
    last = last.reindex(columns=SCORES).astype(float).dropna(how="all")
    for (fold, seed), table in study.runs.groupby(["fold", "seed"]):
        decisive = {name: _but_weights(study.config(name, fold, seed)) for name in table["solution"]}
        alike = [name for name in decisive if decisive[name] == decisive.get("baseline")]
        alike.sort(key=lambda name: name != "baseline")  # of equals the first is taken
        values = last.loc[[(name, fold, seed) for name in alike if (name, fold, seed) in last.index]]
        scores = (values / values.mean()).fillna(1).mean(axis=1)  # where all have 0, all are alike
        if len(scores) > 1 and scores.index[0][0] == "baseline":
            best = table[table["solution"] == scores.idxmax()[0]].iloc[0]
            yield {**best, "solution": TUNED}, study.files[tuple(best[[*KEYS]])]


def _but_weights(config: Mapping) -> dict:
    """All that decides what a run learns, but the fixed weights."""
    solution = {key: value for key, value in solution_key(config).items() if key != "weights"}
    return {name: config.get(name) for name in DECISIVE} | {"solution": solution}


def _guesses(study: StudyResults) -> Iterator[tuple[dict, Mapping]]:
    done = set()
    for run in study.runs.sort_values(["fold", "seed"], kind="stable").to_dict("records"):
        files = study.files[tuple(run[key] for key in KEYS)]
        entries, of = files["predictions"], (run["fold"], run["seed"])
        # Without classes of views the guess is empty; any run of the fold has the same.
        has_truth = any(entry["view"] >= 0 for entry in entries)
        if of not in done and has_truth and entries[0].get("view_from_jet"):
            guess = [{**e, "detections": [], "view_scores": e["view_from_jet"]} for e in entries]
            scores = classification_metrics(guess)
            where = {key: run[key] for key in ("fold", "seed", "path", "split")}
            files = {**files, "predictions": guess, "metrics": {"test": scores}}
            yield {"solution": GUESSED, **where, **scores}, files
            done.add(of)
