"""How far a study is, as its folders tell: what is running, failed, waiting and done."""

from pathlib import Path

from gradlib.data.files import printable
from gradlib.runs.lock import is_held
from gradlib.runs.schema import is_complete, read_values
from gradlib.study.engine import last_line
from gradlib.study.spec import SOLUTION, Job, StudySpec, read_notebook

STATES = ("running", "failed", "waiting", "done")


def clock(seconds: float) -> str:
    """A duration as m:ss, or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def describe_status(spec: StudySpec) -> str:
    """What is running, failed, waiting and done, in lines to print. ValueError, in one line, where a run, a
    notebook or the search cannot be read."""
    states = [(job, *_state(job, spec)) for job in spec.jobs]
    counts = {name: sum(state == name for _, state, _ in states) for name in STATES}
    idle = "start it again to go on" if counts["failed"] or counts["waiting"] else "every run is complete"
    head = "running" if is_held(spec.folder) else f"not running: {idle}"
    lines = [f"study {spec.name}: {head if spec.folder.is_dir() else 'never started'}"]
    width = max(len(job.label) for job in spec.jobs)
    for job, state, detail in sorted(states, key=lambda row: STATES.index(row[1])):
        lines.append(f"  {state:7}  {job.label:{width}}  {detail}".rstrip())
    lines.append(", ".join(f"{count} {name}" for name, count in counts.items() if count))
    if spec.keys.precision and any(job.label in spec.complete for job in spec.runs):
        from gradlib.study.rounds import progress as of_rounds

        lines.append(of_rounds(spec)[1])
    if spec.search:
        from gradlib.study.trials import progress

        lines.append(progress(spec.search))
    return "\n".join(map(printable, lines))


def _state(job: Job, spec: StudySpec) -> tuple[str, str]:
    """The state of a job, one of `STATES`, and what there is to say of it."""
    notebook, epochs = spec.project / job.output, epochs_done(job, spec.project)
    is_run = job.notebook == SOLUTION
    if is_run and is_held(notebook.parent):
        return "running", f"{epochs} of {job.epochs} epochs"
    cells = read_notebook(notebook).cells if notebook.is_file() else ()
    for output in (output for cell in cells for output in cell.get("outputs", ())):
        if output.output_type == "error":
            return "failed", f"{job.output}: {output.ename}: {last_line(output.evalue)}"
    if is_run and is_complete(notebook.parent):
        return "done", clock(read_values(notebook.parent, "metrics")["cost"].get("seconds") or 0)
    if notebook.is_file():
        return ("failed", f"{job.output}: killed; out of memory?") if is_run else ("done", "")
    return "waiting", f"{epochs} of {job.epochs} epochs" if epochs else ""


def epochs_done(job: Job, project: Path) -> int:
    """The epochs that a run has finished."""
    file = project / job.folder / "epochs.csv"
    return max(0, file.read_bytes().count(b"\n") - 1) if file.is_file() else 0
