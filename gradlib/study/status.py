"""How far a study is: kept in runs/<study>/status.json by the driver, told to whoever asks.

Times left are estimates from the runs of the study so far; the reports, which take seconds, do not count.
"""

import json
import time
from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from gradlib.data.files import printable, read_json
from gradlib.runs import schema
from gradlib.runs.locks import is_held
from gradlib.runs.write import is_complete, write_whole
from gradlib.study.kernels import Result, last_line
from gradlib.study.spec import SOLUTION, Job, Study, ends_in_error, executed

__all__ = ["FILE", "Progress", "clock", "describe"]

FILE = "status.json"
EVERY = 1.0  # seconds between two versions of the file, at least
STATES = ("running", "failed", "pruned", "waiting", "done", "already complete")


def clock(seconds: float) -> str:
    """A duration as m:ss, or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def epochs_done(job: Job, project: Path, since: float = 0.0) -> int:
    """The epochs that the run of `job` has finished, if it wrote of them after the time `since`."""
    file = project / job.folder / "epochs.csv"
    if not file.is_file() or file.stat().st_mtime < since:
        return 0
    return max(0, len(file.read_text(encoding="utf-8").splitlines()) - 1)


class Progress:
    """The state of each job of `study`, and its file."""

    def __init__(self, study: Study):
        self.study = study
        self.jobs: dict[str, Job] = {}
        self.states: dict[str, dict] = {}
        self.to_come = 0  # runs that are not among the jobs yet
        self.add(study.jobs, study.complete)
        self.started = time.time()
        self.workers = 0
        self._written = (0.0, "")

    def add(self, jobs: Iterable[Job], complete: Container[str] = ()) -> None:
        """Know of `jobs`, once each; the labels in `complete` are those of runs that need not run again."""
        for job in jobs:
            if job.label in self.jobs:
                continue
            there = job.label in complete
            self.jobs[job.label] = job
            self.states[job.label] = {
                "status": "already complete" if there else "waiting",
                "seconds": _training_seconds(self.study.project / job.folder) if there else 0.0,
                "error": "",
                "epochs": [job.epochs if there else 0, job.epochs],
            }

    def update(self, running: Mapping[str, tuple[Job, float]], workers: int) -> None:
        """Note what is `running` (since when, by label) on how many workers, and write the file if due."""
        self.workers = workers
        for label, state in self.states.items():
            if label in running:
                job, since = running[label]
                state["status"] = "running"
                state["seconds"] = round(time.time() - since, 1)
                state["epochs"][0] = epochs_done(job, self.study.project, since)
            elif state["status"] == "running":  # its worker died, and it waits again
                state |= {"status": "waiting", "seconds": 0.0}
        self.write()

    def end(self, result: Result) -> None:
        """Note how a job ended."""
        state = self.states[result.job.label]
        state |= {"status": result.status, "seconds": round(result.seconds, 1), "error": result.error}
        if result.status == "done":
            state["epochs"][0] = result.job.epochs

    def left(self) -> float | None:
        """Seconds until the runs are through; None as long as nothing says how long one takes."""
        left = [self._left(label) for label in self.jobs] + self.to_come * [self._expected("")]
        if None in left or not self.workers:
            return None
        return max(sum(left) / self.workers, *left)

    def _left(self, label: str) -> float | None:
        """Seconds that a run still takes on its worker."""
        job, state = self.jobs[label], self.states[label]
        if job.notebook != SOLUTION or state["status"] not in ("running", "waiting"):
            return 0.0
        done, of = state["epochs"]
        if done:
            return state["seconds"] * max(0, of - done) / done
        whole = self._expected(job.solution)
        return None if whole is None else max(0.0, whole - state["seconds"])

    def _expected(self, solution: str) -> float | None:
        """Mean seconds of a run: of this solution's finished ones, of all, or of those that are running."""
        finished, guessed = {}, []
        for label, job in self.jobs.items():
            state = self.states[label]
            if job.notebook != SOLUTION or not state["seconds"]:
                continue
            done, of = state["epochs"]
            if state["status"] in ("done", "already complete"):
                finished.setdefault(job.solution, []).append(state["seconds"])
            elif state["status"] == "running" and done:
                guessed.append(state["seconds"] * of / done)
        every = [seconds for some in finished.values() for seconds in some]
        values = finished.get(solution) or every or guessed
        return sum(values) / len(values) if values else None

    def write(self, at_once: bool = False) -> None:
        """Write the file if something but the time has changed, and not too often."""
        told = json.dumps([[s["status"], s["epochs"]] for s in self.states.values()]) + str(self.workers)
        now = time.time()
        last, before = self._written
        if not at_once and (told == before or now - last < EVERY):
            return
        left = self.left()
        content = {
            "study": self.study.name,
            "started": _utc(self.started),
            "updated": _utc(now),
            "workers": self.workers,
            "left": None if left is None else round(left),
            "jobs": {
                label: {**state, "left": self._left(label) if state["status"] == "running" else None}
                for label, state in self.states.items()
            },
        }
        write_whole(self.study.folder / FILE, json.dumps(content, indent=1, ensure_ascii=False))
        self._written = now, told


def describe(study: Study) -> str:
    """What is running, failed, waiting and done, and how long is left, in lines to print. ValueError, in one
    line, where the file of the status or a notebook cannot be read."""
    kept, alive = _kept(study), is_held(study.folder)
    search, searched = _searched(study)
    if alive is False or not kept:
        begun = "not running: start it again to go on" if kept else "never started"
        if kept and searched and all(job.label in study.complete for job in study.runs):
            begun = "not running: every run is complete"
        lines = [f"study {study.name}: {begun}", *_lines(_judged(study, kept)), *search]
    else:
        lines = [*_running(study, kept), *search]
    return "\n".join(map(printable, lines))


def _running(study: Study, kept: Mapping) -> list[str]:
    since = time.time() - datetime.fromisoformat(kept["updated"]).timestamp()
    words = [f"running since {kept['started']}", f"{kept['workers']} workers"]
    if kept["left"] is not None:
        words.append(f"about {clock(max(0, kept['left'] - since))} left")
    return [f"study {study.name}: {', '.join(words)}", *_lines(kept["jobs"], since)]


def _searched(study: Study) -> tuple[list[str], bool]:
    """The line on the study's search, if it has one, and whether all its trials have ended."""
    if study.search is None:
        return [], True
    from gradlib.study import trials

    ended = len(trials.standing(study.search).ended)
    return [trials.progress(study.search)], ended >= study.search.trials


def _kept(study: Study) -> dict:
    """What the driver last wrote, {} where none did. ValueError where the file holds anything else."""
    file = study.folder / FILE
    if not file.is_file():
        return {}
    kept = read_json(file)
    try:
        _running(study, kept)
        return kept
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise ValueError(f"{file}: does not hold the status of a study; remove it") from None


def _judged(study: Study, kept: Mapping) -> dict[str, dict]:
    """The states of a study's jobs as their folders show them, with no driver to ask."""
    states = {}
    for job in study.jobs:
        notebook = study.project / job.output
        state = {"status": "waiting", "seconds": 0.0, "error": "", "epochs": [0, job.epochs], "left": None}
        if ends_in_error(notebook):
            state |= {"status": "failed", "error": _error(notebook)}
        elif job.label in study.complete or (job.notebook != SOLUTION and notebook.is_file()):
            state |= {"status": "done", "seconds": _training_seconds(notebook.parent)}
        else:
            before = kept.get("jobs", {}).get(job.label, {})
            if before.get("status") == "failed":  # killed: its notebook does not say so
                state |= {"status": "failed", "error": before["error"]}
        states[job.label] = state
    return states


def _lines(states: Mapping[str, Mapping], since: float = 0.0) -> Iterable[str]:
    """One line a job, what needs a look first; `since` is the age of these states in seconds."""
    width = max(len(label) for label in states)
    for status in STATES:
        for label, state in states.items():
            if state["status"] != status:
                continue
            done, of = state["epochs"]
            words = [f"{clock(state['seconds'])}"] if state["seconds"] and status != "running" else []
            if status == "running" and of:
                words.append(f"{done} of {of} epochs")
            if status == "running" and state["left"]:
                words.append(f"about {clock(max(0, state['left'] - since))} left")
            words += [state["error"]] if state["error"] else []
            yield f"  {status:16}  {label:{width}}  {', '.join(words)}".rstrip()
    counts = [(sum(s["status"] == status for s in states.values()), status) for status in STATES]
    yield ", ".join(f"{count} {status}" for count, status in counts if count)


def _training_seconds(folder: Path) -> float:
    """How long the complete run in `folder` trained; 0 where it does not say."""
    return schema.metrics(folder)["cost"].get("seconds") or 0.0 if is_complete(folder) else 0.0


def _error(notebook: Path) -> str:
    """The error that this executed notebook ended in, in one line."""
    for cell in executed(notebook).cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"{output.ename}: {last_line(output.evalue)}"
    return ""


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
