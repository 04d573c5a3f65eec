"""The trials of a search: kept by Optuna in runs/<study>/search/journal.log, told as tables and lines.

A trial is called trial-<number>, which is also the name of its solution in runs/<study>/search/. One whose
driver died is asked for again by that name; what Optuna keeps of the first time has failed without an error.
"""

import contextlib
import json
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd
import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from gradlib.data.files import MAX_TABLE_BYTES, one_line, read_bytes, read_json
from gradlib.report.rendering import escape
from gradlib.runs.write import write_whole
from gradlib.study.entries import FIELDS
from gradlib.study.objective import OBJECTIVES, text
from gradlib.study.search_spec import ASKED, FOLDER, Range, Search, decoded, label

__all__ = [
    "Standing",
    "asked",
    "asked_says",
    "begin",
    "best_entry",
    "best_first",
    "counts",
    "described",
    "distributions",
    "ended",
    "findings",
    "load",
    "name_of",
    "progress",
    "quiet",
    "standing",
    "table",
    "values_text",
]

JOURNAL = "journal.log"
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
STARTUP = 5  # complete trials before one is judged by them
WARM_UP = 0.25  # the part of the epochs in which none is ended


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's notes at the start of a search, and without its warnings about what may change."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _storage(folder: Path) -> JournalStorage:
    file = str(folder / JOURNAL)
    # Its lock is a file of its own; the other kind is a link, which Windows does not grant to everyone.
    return JournalStorage(JournalFileBackend(file, JournalFileOpenLock(file)))


def begin(search: Search, direction: str, epochs: int) -> optuna.Study:
    """The trials of `search` to go on with, from none or from what there is.

    Values are sampled by TPE (Bergstra et al. 2011). A trial is pruned where its best epoch so far is worse
    than the median of the other trials at this epoch. Trials that a driver left running when it died have
    failed, and are enqueued with their values and name. Raises ValueError as `load` does.
    """
    write_whole(search.folder / ASKED, json.dumps(search.asked, indent=1, ensure_ascii=False))
    if (search.folder / JOURNAL).is_file():
        load(search.folder)  # raises
    with quiet():
        study = optuna.create_study(
            study_name=FOLDER, storage=_storage(search.folder), direction=direction, load_if_exists=True
        )
        # Begun again from the same seed, the sampler would draw the first trials' values once more.
        seed = search.seed + len(study.trials)
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        study.pruner = (
            optuna.pruners.MedianPruner(STARTUP, round(WARM_UP * epochs))
            if search.pruner
            else optuna.pruners.NopPruner()
        )
        for trial in study.get_trials(states=[TrialState.RUNNING]):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={"name": name_of(trial)})
    return study


def load(folder: str | Path) -> optuna.Study:
    """The trials in the folder of a search, to look at. Raises FileNotFoundError where there are none, and
    ValueError where they are none of what was asked for there."""
    folder = Path(folder)
    file = folder / JOURNAL
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: no search; run `python -m gradlib study FILE` with a `search:`")
    space = asked(folder)["space"]
    read_bytes(file, MAX_TABLE_BYTES)  # of a bounded size
    try:
        with quiet():
            study = optuna.load_study(study_name=FOLDER, storage=_storage(folder))
        for trial in study.get_trials(deepcopy=False):
            trial._validate()  # Optuna trusts its journal
            decoded(space, trial.params)
            if not re.fullmatch(r"trial-\d{1,9}", name_of(trial)):  # it is a folder's
                raise ValueError(f"a trial of the name {name_of(trial)!r}")
    except Exception as error:  # whatever Optuna makes of a file that is no journal
        reason = f"{type(error).__name__}: {one_line(error)[:200]}"
        raise ValueError(
            f"{file}: is no journal of this search, or damaged ({reason}); remove {folder}"
        ) from None
    return study


def asked(folder: Path) -> dict:
    """What the trials in the folder of a search were asked for. Raises FileNotFoundError or ValueError."""
    file = Path(folder) / ASKED
    found = read_json(file)
    try:
        asked_says(found)
        if found["objective"] not in OBJECTIVES or not all(
            re.fullmatch(r"\w+", name) for name in found["space"]
        ):
            raise ValueError
        return found
    except (AttributeError, LookupError, TypeError, ValueError):
        raise ValueError(f"{file}: does not say what a search was asked for; remove {folder}") from None


def distributions(space: Mapping[str, Range | list]) -> dict[str, BaseDistribution]:
    """The space of a search as Optuna takes it."""
    found = {}
    for name, part in space.items():
        if not isinstance(part, Range):
            found[name] = CategoricalDistribution([label(value) for value in part])
        elif part.whole:
            found[name] = IntDistribution(part.low, part.high, part.log, part.step or 1)
        else:
            found[name] = FloatDistribution(part.low, part.high, part.log, part.step)
    return found


def name_of(trial: FrozenTrial | optuna.Trial) -> str:
    """What a trial is called."""
    return trial.user_attrs.get("name", f"trial-{trial.number}")


def values_text(values: Mapping) -> str:
    """Values of the space, to read."""
    parts = (f"{value:.3g}" if isinstance(value, float) else f"{value}" for value in values.values())
    return ", ".join(f"{name}={part}" for name, part in zip(values, parts, strict=True))


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that have ended: complete, pruned or failed with an error."""
    trials = study.get_trials(deepcopy=False, states=tuple(STATES))
    return [trial for trial in trials if trial.state != TrialState.FAIL or "error" in trial.user_attrs]


def best_first(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are complete, best first."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    higher = study.direction == optuna.study.StudyDirection.MAXIMIZE
    return sorted(trials, key=lambda trial: trial.value, reverse=higher)


def counts(trials: Iterable[FrozenTrial]) -> str:
    """How many of these trials ended how, in words."""
    states = [STATES[trial.state] for trial in trials]
    return ", ".join(f"{states.count(state)} {state}" for state in STATES.values() if state in states)


@dataclass(frozen=True)
class Standing:
    """The trials of a search: those that have ended, of these the complete ones, best first, and the rest."""

    ended: Sequence[FrozenTrial] = ()
    complete: Sequence[FrozenTrial] = ()
    running: Sequence[FrozenTrial] = ()


def standing(search: Search) -> Standing:
    """How `search` stands, begun or not; a driver may be at it."""
    if not (search.folder / JOURNAL).is_file():
        return Standing()
    study = load(search.folder)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return Standing(ended(study), best_first(study), running)


def progress(search: Search) -> str:
    """How far a search is, in a line."""
    now = standing(search)
    words = f"search: {len(now.ended)} of {search.trials} trials have ended"
    words += f" ({counts(now.ended)})" if now.ended else ""
    words += f", not yet: {', '.join(map(name_of, now.running))}" if now.running else ""
    return words + (f"; best {described(now.complete[0], search.objective)}" if now.complete else "")


def described(trial: FrozenTrial, objective: str) -> str:
    """A complete trial in a line."""
    return f"{name_of(trial)}: {text(objective, trial.value)} with {values_text(trial.params)}"


def table(study: optuna.Study, objective: str) -> pd.DataFrame:
    """One row a trial by its name, the best first: its end, the objective (of complete ones), the values,
    the epochs that all its runs have finished, the minutes it took, its error."""
    rest = [trial for trial in ended(study) if trial.state != TrialState.COMPLETE]
    rest.sort(key=lambda trial: (trial.state != TrialState.PRUNED, trial.number))
    rows = {
        name_of(trial): {
            "ended": STATES[trial.state],
            objective: trial.value if trial.state == TrialState.COMPLETE else float("nan"),
            **trial.params,
            "epochs": trial.user_attrs.get("epochs", 0),
            "minutes": trial.duration.total_seconds() / 60,
            "error": trial.user_attrs.get("error", ""),
        }
        for trial in [*best_first(study), *rest]
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def asked_says(asked: Mapping) -> str:
    """What was searched, of `asked` as in search.json."""
    parts = []
    for name, part in asked["space"].items():
        if isinstance(part, list):
            parts.append(f"`{name}` one of {', '.join(escape(label(value)) for value in part)}")
        else:
            words = f"`{name}` from {part['low']:g} to {part['high']:g}"
            words += f" by {part['step']:g}" if part["step"] else ""
            parts.append(words + (" on a log scale" if part["log"] else ""))
    name, folds, seeds = map(escape, (asked["solution"]["name"], asked["folds"], asked["seeds"]))
    return (
        f"**{name}**, judged by `{asked['objective']}` on the validation part, mean over folds {folds} and "
        f"seeds {seeds}: {'; '.join(parts)}."
    )


def findings(study: optuna.Study, asked: Mapping) -> str:
    """What the search found, as Markdown: the best trial, how to take its values over, and the caution."""
    found = best_first(study)
    if not found:
        return "- No trial is complete: the search found nothing."
    entry = textwrap.indent(best_entry(study, asked), "  ")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", entry)), default=0))  # longer than any in it
    return (
        f"- The best of {len(found)} complete trials is {escape(described(found[0], asked['objective']))}.\n"
        "- The best of many is optimistic: its figure is of the part it was chosen on. Confirm it as a "
        "solution of a study, on the test part, beside what it started from:\n\n"
        f"{fence}yaml\nsolutions:\n{entry}{fence}"
    )


def best_entry(study: optuna.Study, asked: Mapping) -> str:
    """The values of the best trial as an entry for `solutions` of a study file. asked: as in search.json."""
    values = decoded(asked["space"], best_first(study)[0].params)
    entry = {**asked["solution"], "name": f"{asked['solution']['name']}-searched"}
    parameters = entry.pop("parameters", {}) | {n: v for n, v in values.items() if n not in FIELDS}
    entry |= {name: value for name, value in values.items() if name in FIELDS}
    entry |= {"parameters": parameters} if parameters else {}
    return yaml.safe_dump([entry], sort_keys=False, default_flow_style=None, width=100, allow_unicode=True)
