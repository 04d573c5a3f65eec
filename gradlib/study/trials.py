"""The trials that Optuna keeps in runs/<study>/search/journal.log: read, drawn, said in words."""

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from gradlib.checks import SEARCH_FOLDER
from gradlib.data.files import MAX_TABLE_BYTES, one_line, read_bytes, read_json
from gradlib.study.executor import Refused
from gradlib.study.objective import OBJECTIVES, text
from gradlib.study.search_spec import ASKED, RANGE, SearchSpec, decoded
from gradlib.study.study_file import FIELDS

try:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    raise Refused("a search needs Optuna: pip install 'gradlib[search]'") from None
optuna.logging.set_verbosity(optuna.logging.WARNING)

JOURNAL = "journal.log"
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def storage(folder: Path) -> JournalStorage:
    """Where Optuna keeps the trials of the search in `folder`."""
    file = str(folder / JOURNAL)
    # Its lock is a file of its own; the other kind is a link, which Windows does not grant to everyone.
    return JournalStorage(JournalFileBackend(file, JournalFileOpenLock(file)))


def load_search(folder: str | Path) -> optuna.Study:
    """The trials in the folder of a search, to look at. Raises FileNotFoundError where there are none, and
    ValueError where they are not those that search.json asks for."""
    file = Path(folder, JOURNAL)
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: no search; run `python -m gradlib study FILE` with a `search:`")
    space = read_asked(folder)["space"]
    read_bytes(file, MAX_TABLE_BYTES)  # of a bounded size
    try:
        study = optuna.load_study(study_name=SEARCH_FOLDER, storage=storage(file.parent))
        for trial in study.get_trials(deepcopy=False):
            trial._validate()  # Optuna trusts its journal
            decoded(space, trial.params)
    except Exception as error:  # whatever Optuna makes of a file that is no journal
        reason = f"{type(error).__name__}: {one_line(error)[:200]}"
        text = f"{file}: is no journal of this search, or damaged ({reason}); remove {folder}"
        raise Refused(text) from None
    return study


def read_asked(folder: str | Path) -> dict:
    """What the trials in the folder of a search were asked for. Raises FileNotFoundError or ValueError."""
    file = Path(folder, ASKED)
    asked = read_json(file)
    try:
        ranges = [part for part in asked["space"].values() if not isinstance(part, list)]
        valid = asked["objective"] in OBJECTIVES and isinstance(asked["solution"]["name"], str)
        valid &= all(part.keys() == {*RANGE} and part["low"] < part["high"] for part in ranges)
        valid &= all(re.fullmatch(r"\w+", name) for name in asked["space"])
    except (AttributeError, LookupError, TypeError):
        valid = False
    if not valid:
        raise Refused(f"{file}: does not say what a search was asked for; remove {folder}")
    return asked


def name_of(trial: FrozenTrial | optuna.Trial) -> str:
    """The name of a trial, and of its solution."""
    return f"trial-{trial.number}"


def values_text(values: Mapping) -> str:
    """Values of the space, to read."""
    parts = ((name, f"{v:.3g}" if isinstance(v, float) else v) for name, v in values.items())
    return ", ".join(f"{name}={value}" for name, value in parts)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are complete, pruned or failed."""
    return study.get_trials(deepcopy=False, states=tuple(STATES))


def best_first(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are complete, best first."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    higher = study.direction == optuna.study.StudyDirection.MAXIMIZE
    return sorted(trials, key=lambda trial: trial.value, reverse=higher)


def progress(search: SearchSpec) -> str:
    """How far a search is, begun or not, in a line; a driver may be at it."""
    if not (search.folder / JOURNAL).is_file():
        return f"search: 0 of {search.trials} trials have ended"
    study = load_search(search.folder)
    states = [STATES[trial.state] for trial in ended(study)]
    counts = ", ".join(f"{states.count(state)} {state}" for state in STATES.values() if state in states)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    line = f"search: {len(states)} of {search.trials} trials have ended" + (f" ({counts})" if counts else "")
    line += f", not yet: {', '.join(map(name_of, running))}" if running else ""
    best = best_first(study)
    return line + (f"; best {_score(best[0], search.objective)}" if best else "")


def _score(trial: FrozenTrial, objective: str) -> str:
    return f"{name_of(trial)}: {text(objective, trial.value)} with {values_text(trial.params)}"


def best_entry(study: optuna.Study, asked: Mapping) -> str:
    """The values of the best trial as an entry for `solutions` of a study file. asked: as in search.json."""
    values = decoded(asked["space"], best_first(study)[0].params)
    entry = {**asked["solution"], "name": f"{asked['solution']['name']}-searched"}
    parameters = entry.pop("parameters", {}) | {n: v for n, v in values.items() if n not in FIELDS}
    entry |= {name: value for name, value in values.items() if name in FIELDS}
    entry |= {"parameters": parameters} if parameters else {}
    return yaml.safe_dump([entry], sort_keys=False, default_flow_style=None, width=100, allow_unicode=True)
