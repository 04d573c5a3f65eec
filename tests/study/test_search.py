"""The search, on small notebooks whose best values are known."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import nbformat
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from gradlib.__main__ import main
from gradlib.config import find_solution
from gradlib.data import phantom
from gradlib.runs.read import load_study
from gradlib.runs.schema import is_complete
from gradlib.study import executor, objective, search, search_spec, spec, trials
from gradlib.study.spec import SEARCH as SEARCH_NOTEBOOK
from gradlib.study.spec import Job

SOLUTION = (
    """\
solution: str = 'baseline'  # name, or a mapping
data: str = 'phantom'  # path
split: str = 'patients'  # or published
fold: int = 0  # test fold
folds: int = 5  # how many
seed: int = 0  # of everything
epochs: int = 8  # passes
pretrained: str = ''  # a checkpoint
alpha: float = 1.5  # asymmetry
learning_rate: float = 1e-3  # of all
batch_size: int = 16  # frames
augment: bool = True  # or not
study: str = 'study'  # name
runs: str = 'runs'  # folder
interactive: bool = True  # explorers""",
    # The best is alpha = 2, branch p4, on the validation part; on the test part alpha = 0 would be.
    """\
import dataclasses, json, os, time, types
import pandas as pd
from gradlib.config import Parameters
from gradlib.runs.write import STOP, RunFolder
run = RunFolder(Parameters.from_mapping(globals()))
folder, chosen, name = run.path, run.solution, run.solution.name
single = len(chosen.tasks) == 1
score = 0.5 if single else 0.5 - 0.05 * abs(alpha - 2) - 0.02 * (chosen.branch != "p4")
score -= 0.4 * (name == "trial-6")
made = dict(data=data, split=split, fold=fold, folds=folds, seed=seed, epochs=epochs, alpha=alpha)
made |= dict(learning_rate=learning_rate, batch_size=batch_size, pretrained=pretrained)
made |= dict(augment=augment, solution=dataclasses.asdict(chosen))
made |= {"classes": ["AR"], "views": []}
entry = {"image": "a", "patient": "p", "view": -1, "boxes": [], "detections": []}
for file, content in (("config", made), ("environment", {}), ("predictions", [entry])):
    folder.joinpath(f"{file}.json").write_text(json.dumps(content))
folder.joinpath(STOP).unlink(missing_ok=True)""",
    """\
rows = []
for epoch in range(epochs):
    if (name, epoch) == ("trial-2", 1) and learning_rate < 1:
        raise FloatingPointError("step 7: the loss of detection is nan")
    for _ in range(600):  # until it is told to end
        if (name, epoch) != ("trial-6", 3) or (folder / STOP).exists():
            break
        time.sleep(0.1)
    for _ in range(600):  # until somebody says so
        if (study, name, seed, epoch) != ("killed/search", "trial-1", 1, 1) or os.path.exists("go"):
            break
        time.sleep(0.1)
    part = score * (epoch + 1) / epochs
    rows.append({"epoch": epoch, "map50": part, "balanced_accuracy": part, "detection_mse": 1 - part})
    tables = {"epochs": pd.DataFrame(rows), "steps": pd.DataFrame({"step": [epoch]})}
    history = types.SimpleNamespace(tables=lambda: tables)
    run.after_epoch(types.SimpleNamespace(history=history, state_dict=dict))""",
    """\
metrics = {"test": {"map50": -alpha}, "cost": {"seconds": 7.0}}
(folder / "metrics.json").write_text(json.dumps(metrics))""",
)
ROOT = Path(__file__).parents[2]
SEARCH = """\
search:
  solution: gradnorm
  space: {alpha: {low: 0.0, high: 3.0}, branch: [p4, neck]}
"""


@pytest.fixture
def searched(project: Path) -> Path:
    """The project of small notebooks, with a solution whose scores are known and the real notebook."""
    file = project / "notebooks/01_solution.ipynb"
    notebook = nbformat.read(file, as_version=4)
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in SOLUTION]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, file)
    shutil.copy(ROOT / "notebooks/04_search.ipynb", project / "notebooks")
    return project


def study_file(project: Path, text: str) -> str:
    (project / "notebooks/demo.yaml").write_text(text)
    return "notebooks/demo.yaml"


def states(folder: Path) -> dict[str, str]:
    """How each trial ended, by name."""
    return {trials.name_of(trial): trial.state.name for trial in trials.ended(trials.load_search(folder))}


def test_a_search_finds_prunes_fails_and_goes_on(searched, capsys, execute_here):
    execute_here(SEARCH_NOTEBOOK)
    text = SEARCH + "  trials: 2\n  seed: 1\n"
    assert main(["study", study_file(searched, text), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    folder = searched / "runs/demo/search"
    assert states(folder) == {"trial-0": "COMPLETE", "trial-1": "COMPLETE"}
    # There was no study to take the specialists from: they were trained first, in the search.
    order = [line.split("] ")[1].split()[0] for line in printed.splitlines() if line.startswith("[")]
    assert order[1:3] == ["search/detection-only", "search/classification-only"]
    assert "[2/2] trial-1 (alpha=" in printed
    study = trials.load_search(folder)
    for trial in study.trials:  # a specialist has 0.5 of both: -10 % for each 0.05 below
        off = 10 * abs(trial.params["alpha"] - 2) + 4 * (trial.params["branch"] != "p4")
        assert trial.value == pytest.approx(-off)

    # Asked for more, it goes on; what was made stays as it is.
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*/fold=0/seed=0/metrics.json")}
    assert (
        main(["study", study_file(searched, text.replace("trials: 2", "trials: 8")), "--workers", "1"]) == 0
    )
    printed = capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in times}
    ended = {f"trial-{number}": "COMPLETE" for number in range(8)}
    assert states(folder) == ended | {"trial-2": "FAIL", "trial-6": "PRUNED"}
    values = [trial.params["alpha"] for trial in trials.load_search(folder).trials]
    assert len(set(values)) == 8  # the same seed does not draw the same again

    # A run that fails is a trial that failed, and no more.
    error = "search/trial-2 fold=0 seed=0: FloatingPointError: step 7: the loss of detection is nan"
    assert trials.load_search(folder).trials[2].user_attrs["error"] == error
    assert f"failed: {error}" in printed
    # A trial that is behind ends early, and its notebook says why.
    pruned = folder / "trial-6/fold=0/seed=0"
    assert len(pd.read_csv(pruned / "epochs.csv")) == 4 and not is_complete(pruned)
    assert "Stopped" in (pruned / "notebook.ipynb").read_text()
    assert "pruned by the search after epoch 3: delta_m " in (pruned / "notebook.ipynb").read_text()
    # The validation part decides: on the test part the smallest alpha is the best.
    complete = [trial for trial in trials.load_search(folder).trials if trial.state == TrialState.COMPLETE]
    best = max(complete, key=lambda trial: trial.value)
    assert best.params["alpha"] != min(trial.params["alpha"] for trial in complete)
    assert trials.best_first(trials.load_search(folder))[0].number == best.number

    assert f"8 of 8 trials have ended (6 complete, 1 pruned, 1 failed); best trial-{best.number}" in printed
    assert main(["study", "notebooks/demo.yaml", "--status"]) == 0
    printed = capsys.readouterr().out
    assert "not running: every run is complete" in printed
    assert f"8 of 8 trials have ended (6 complete, 1 pruned, 1 failed); best trial-{best.number}" in printed

    page = (searched / "runs/demo/pages/search.html").read_text()
    for words in ("confirm it", f"best is trial-{best.number}", "matters most"):
        assert words.lower() in page.lower()
    assert (searched / "runs/demo/pages/search.ipynb").read_text().count('"image/png"') == 3
    assert "Warning: " not in page and "Traceback" not in page
    # What it says to paste is a study file whose solution is the best trial's.
    asked = json.loads((folder / "search.json").read_text())
    pasted = "solutions:\n" + trials.best_entry(trials.load_search(folder), asked)
    (job,) = spec.read_spec(study_file(searched, "name: again\n" + pasted)).runs
    assert job.solution == "gradnorm-searched"
    assert job.parameters["alpha"] == best.params["alpha"]
    assert find_solution(job.parameters["solution"]).branch == best.params["branch"]

    # Another question is another search.
    for change, expected in (
        (
            ("3.0", "2.5"),
            "line 3: runs/demo/search was searched with space = {'alpha': {'low': 0.0, 'high': 3.0, ",
        ),
        (
            ("gradnorm", "fusion"),
            "line 2: runs/demo/search was searched with solution = {'name': 'gradnorm', ",
        ),
        (("trials", "objective: map50\n  trials"), "line 4: runs/demo/search was searched with objective"),
        (("search:", "seeds: [1]\nsearch:"), "line 1: runs/demo/search was searched with seeds = [0], and"),
    ):
        assert (
            main(["study", study_file(searched, text.replace("trials: 2", "trials: 8").replace(*change))])
            == 2
        )
        line = capsys.readouterr().err
        assert expected in line and line.count("\n") == 1 and "remove that folder" in line


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_trial_whose_driver_died_is_asked_for_again(searched, capsys, execute_here, write_notebooks):
    write_notebooks(searched / "notebooks", "04_search")
    text = "name: killed\nseeds: [0, 1]\n" + SEARCH + "  trials: 2\n  objective: map50\n"
    file = study_file(searched, text)
    folder = searched / "runs/killed/search"
    waiting = folder / "trial-1/fold=0/seed=1/epochs.csv"
    command = [sys.executable, "-m", "gradlib", "study", file, "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        try:
            until = time.monotonic() + 300
            while not waiting.is_file():
                assert driver.poll() is None and time.monotonic() < until
                time.sleep(0.1)
            assert main(["study", file, "--status"]) == 0
            assert "1 of 2 trials have ended (1 complete), not yet: trial-1" in capsys.readouterr().out
        finally:
            driver.send_signal(signal.SIGKILL)
    (begun,) = trials.load_search(folder).get_trials(states=[TrialState.RUNNING])
    metrics = folder / "trial-1/fold=0/seed=0/metrics.json"
    made = metrics.stat().st_mtime_ns
    (searched / "go").touch()
    execute_here()
    assert main(["study", file, "--workers", "1"]) == 0
    (_, again) = trials.load_search(folder).trials
    assert again.params == begun.params
    assert states(folder) == {"trial-0": "COMPLETE", "trial-1": "COMPLETE"}
    assert sorted(path.name for path in folder.glob("trial-*")) == ["trial-0", "trial-1"]
    assert metrics.stat().st_mtime_ns == made  # a run of it was complete already
    found = load_study(folder)  # as any other study
    assert len(found.runs) == 4 and not found.incomplete


def test_specialists_that_the_study_has_are_taken(searched):
    def read(extra: str = ""):
        text = "solutions: [detection-only, classification-only]\nseeds: [0, 1]\n" + SEARCH + extra
        return spec.read_spec(study_file(searched, text))

    found = read()
    (searched / "runs").mkdir()
    for job in found.runs:
        folder = searched / job.folder
        if folder.match("classification-only/fold=0/seed=1"):
            continue  # it failed, or was removed
        folder.mkdir(parents=True)
        made = {**job.parameters, "epochs": 8, "solution": asdict(find_solution(job.parameters["solution"]))}
        made |= {"classes": ["AR"], "views": []}
        (folder / "config.json").write_text(json.dumps(made))
        (folder / "metrics.json").write_text('{"test": {}, "cost": {}}')
    assert {task: [job.label for job in jobs] for task, jobs in read().search.specialists().items()} == {
        "detection": ["detection-only fold=0 seed=0", "detection-only fold=0 seed=1"],
        "classification": ["classification-only fold=0 seed=0", "search/classification-only fold=0 seed=1"],
    }
    # Trained alike means with what the search's solution is trained with.
    text = SEARCH.replace("gradnorm", "{from: gradnorm, parameters: {epochs: 4}}")
    specialists = spec.read_spec(study_file(searched, f"name: demo\n{text}")).search.specialists()
    assert all(job.label.startswith("search/") for jobs in specialists.values() for job in jobs)
    assert specialists["detection"][0].epochs == 4
    assert read("  objective: map50\n").search.specialists() == {}


def table(folder: Path, **columns) -> Path:
    folder.mkdir(parents=True)
    pd.DataFrame(columns).to_csv(folder / "epochs.csv", index=False)
    return folder


def test_delta_m_compares_with_the_specialists_at_the_same_epoch(tmp_path):
    one = table(tmp_path / "one", map50=[0.1, 0.3, 0.5], balanced_accuracy=[0.5, 0.6, 0.9])
    two = table(tmp_path / "two", map50=[0.2, 0.2], balanced_accuracy=[0.8, 0.4])
    detection = [table(tmp_path / f"d{i}", map50=[[0.0, 0.2, 0.4], [0.1, 0.4, 0.4]][i]) for i in (0, 1)]
    classification = [table(tmp_path / f"c{i}", balanced_accuracy=[0.5, 0.5, 0.6]) for i in (0, 1)]
    specialists = {"detection": detection, "classification": classification}
    # One, epoch 2: (0.3/0.2 - 1 + 0.6/0.5 - 1) / 2 = 35 %; epoch 3: (25 % + 50 %) / 2.
    alone = {task: folders[:1] for task, folders in specialists.items()}
    first, *rest = objective.curve("delta_m", [one], alone)
    assert first != first  # the detector has found nothing yet
    assert rest == pytest.approx([35, 37.5])
    # Two, epoch 1: (100 % + 60 %) / 2 = 80 %; epoch 2: (-50 % - 20 %) / 2 = -35 %, and 35 % of one.
    assert objective.curve("delta_m", [one, two], specialists) == pytest.approx([80, 0])
    assert objective.curve("delta_m", [one, tmp_path / "not begun"], specialists).size == 0
    # In per cent of nothing, nothing can be told: better before the first trial than after each.
    nothing = {**alone, "detection": [table(tmp_path / "nothing", map50=[0.1, 0.0])]}
    assert objective.is_defined("delta_m", specialists) and objective.is_defined("map50", {})
    assert not objective.is_defined("delta_m", nothing)


def test_a_metric_is_a_mean_over_runs_and_may_be_missing(tmp_path):
    one = table(tmp_path / "one", map50=[0.1, 0.3], detection_mse=[0.2, 0.1], accuracy=[None, None])
    two = table(tmp_path / "two", map50=[0.3, 0.5], detection_mse=[0.4, 0.1], accuracy=[0.5, 0.5])
    assert objective.curve("map50", [one, two], {}) == pytest.approx([0.2, 0.4])
    assert objective.curve("detection_mse", [one, two], {}) == pytest.approx([0.3, 0.1])
    assert all(value != value for value in objective.curve("accuracy", [one, two], {}))
    assert [objective.maximises(name) for name in ("map50", "detection_mse", "delta_m")] == [
        True,
        False,
        True,
    ]
    assert objective.tasks_of("accuracy") == ("classification",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("search: 3\n", "line 1: search: expected dictionary, got 3"),
        ("search: {solution: dual}\n", "line 1: search.space: missing"),
        (
            SEARCH + "  trails: 3\n",
            "line 4: search.trails: unknown key 'trails' here (did you mean 'trials'?)",
        ),
        (SEARCH + "  trials: 0\n", "line 4: search.trials: expected greater than or equal to 1, got 0"),
        (SEARCH + "  trials: true\n", "line 4: search.trials: expected number, got True"),
        (SEARCH + "  seed: -1\n", "line 4: search.seed: expected greater than or equal to 0, got -1"),
        (SEARCH + "  pruner: median\n", "line 4: search.pruner: expected boolean, got 'median'"),
        (
            SEARCH + "  objective: map5\n",
            "line 4: search.objective: unknown 'map5' (did you mean 'map50'?)",
        ),
        (
            SEARCH.replace("gradnorm", "gradnrm"),
            "line 2: search.solution: unknown solution 'gradnrm' (did you mean 'gradnorm'?)",
        ),
        (
            SEARCH.replace("gradnorm", "{from: gradnorm, grid: {alpha: [1.0]}}"),
            "line 2: a search has no grid: its values go to 'space'",
        ),
        (
            SEARCH.replace("gradnorm", "{from: gradnorm, parameters: {alpha: 1.0}}"),
            "line 3: 'alpha' has a value beside these; leave one out",
        ),
        (SEARCH.replace("gradnorm", "gradnorm-static"), "line 2: 'gradnorm-static' starts from another run"),
        (SEARCH.replace("gradnorm", "baseline"), "line 3: 'alpha' changes nothing in 'baseline'"),
        (
            SEARCH.replace("p4,", "input,"),
            "line 3: solution 'gradnorm': gradnorm balances gradients in shared",
        ),
        (
            SEARCH.replace("p4,", "p6,"),
            "line 3: search.space.branch[0]: unknown 'p6'; known: input",
        ),
        (
            SEARCH.replace("alpha", "alhpa"),
            "line 3: search.space.alhpa: unknown key 'alhpa' here (did you mean 'alpha'?)",
        ),
        (SEARCH.replace("[p4, neck]", "[]"), "line 3: search.space.branch: expected at least 1 item, got []"),
        (
            SEARCH.replace("[p4, neck]", "{low: 0, high: 1}"),
            "line 3: search.space.branch: expected list, got {'high': 1, 'low': 0}",
        ),
        (
            SEARCH.replace("high", "hi"),
            "line 3: search.space.alpha.hi: unknown key 'hi' here (did you mean 'high'?)",
        ),
        (SEARCH.replace(", high: 3.0", ""), "line 3: search.space.alpha.high: missing"),
        (
            SEARCH.replace("3.0", "0.0"),
            "line 3: search.space.alpha: from 0.0 to 0.0; 'low' must be below 'high'",
        ),
        (SEARCH.replace("3.0", ".inf"), "line 3: search.space.alpha.high: expected number, got '.inf'"),
        (SEARCH.replace("3.0", "many"), "line 3: search.space.alpha.high: expected number, got 'many'"),
        (
            SEARCH.replace("3.0", "3.0, log: true"),
            "line 3: search.space.alpha: from 0.0 with 'log'; give a 'low' above 0",
        ),
        (SEARCH.replace("3.0", "3.0, log: 10"), "line 3: search.space.alpha.log: expected boolean, got 10"),
        (
            SEARCH.replace("3.0", "3.0, step: 0.7"),
            "line 3: search.space.alpha: from 0.0 to 3.0 is no multiple of its 'step', 0.7",
        ),
        (
            SEARCH.replace("alpha: {low: 0.0", "batch_size: {low: 8.5"),
            "line 3: search.space.batch_size.low: expected integer, got 8.5",
        ),
        (SEARCH.replace("alpha:", "seed:"), "line 3: search.space.seed: 'seed' is set by the study"),
        (
            SEARCH.replace("alpha:", "epochs:"),
            "line 3: search.space.epochs: 'epochs' is set by the study; leave it out",
        ),
        (
            "search: {solution: detection-only, space: {learning_rate: [1e-3, 1e-2]}}\n",
            "line 1: 'delta_m' judges classification, which 'detection-only' has not",
        ),
        (SEARCH + "grid: {alpha: [1.0]}\n", "demo.yaml: expected a list of solutions, as [baseline"),
    ],
)
def test_a_mistake_is_one_line(searched, capsys, text, expected):
    assert main(["study", study_file(searched, text)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert expected in captured.err
    assert not (searched / "runs").exists()


def test_every_kind_of_space_reaches_the_runs(searched):
    text = """\
search:
  solution: {name: late, from: gradnorm, parameters: {epochs: 3}}
  space:
    learning_rate: {low: 1e-4, high: 1e-2, log: true}
    batch_size: {low: 8, high: 32, step: 8}
    weights: [[1.0, 1.0], [1.5, 0.5]]
    augment: [true, false]
    width: {low: 0.5, high: 1.0}
"""
    asked = spec.read_spec(study_file(searched, text)).search
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    values = search_spec.decoded(asked.space, search.suggest(trial, asked.space))
    space = trial.distributions
    assert space["learning_rate"] == optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
    assert space["batch_size"] == optuna.distributions.IntDistribution(8, 32, step=8)
    assert space["weights"].choices == ("[1.0, 1.0]", "[1.5, 0.5]")
    assert values["weights"] in ((1.0, 1.0), (1.5, 0.5)) and isinstance(values["augment"], bool)
    (job,) = asked.jobs("trial-0", values)
    assert job.output == "runs/demo/search/trial-0/fold=0/seed=0/notebook.ipynb"
    chosen = find_solution(job.parameters["solution"])
    assert (chosen.name, chosen.balancer, list(chosen.weights)) == (
        "trial-0",
        "gradnorm",
        list(values["weights"]),
    )
    assert chosen.width == values["width"]
    rest = {name: values[name] for name in ("learning_rate", "batch_size", "augment")}
    assert {name: job.parameters[name] for name in rest} == rest
    assert (job.parameters["epochs"], job.parameters["study"]) == (3, "demo/search")


def test_the_notebook_shows_any_number_of_trials(searched):
    asked = spec.read_spec(study_file(searched, SEARCH)).search
    search._begin(asked)
    notebook = nbformat.read(asked.report.notebook, as_version=4)
    # One kernel shows none, one and two trials.
    another = """\
def add_trial():
    from gradlib.study import search, spec
    asked = spec.read_spec("notebooks/demo.yaml").search
    trials = search._begin(asked)
    trial = trials.ask()
    search.suggest(trial, asked.space)
    trials.tell(trial, -1.0)
add_trial()"""
    count = len(notebook.cells) + 1
    cells = [*notebook.cells, nbformat.v4.new_code_cell(another)] * 3
    notebook.cells = [nbformat.from_dict({**cell, "id": f"{i}"}) for i, cell in enumerate(cells)]
    nbformat.write(notebook, "notebooks/three.ipynb")
    three = Job("search", "notebooks/three.ipynb", "out.ipynb", {})
    assert executor.execute(three, str(searched)).error == ""
    cells = nbformat.read("out.ipynb", as_version=4).cells
    assert len(cells) == 3 * count
    for complete in range(3):
        shown = cells[complete * count : (complete + 1) * count]
        said = str([cell.outputs for cell in shown if cell.cell_type == "code"])
        assert "Too few trials" in said and "stderr" not in said
        assert ("No trial is complete" in said) == (complete == 0)


def test_a_search_with_the_real_notebooks(tmp_path, monkeypatch, write_notebooks):
    phantom.write(tmp_path / "set", patients=12, videos=1, frames=4, size=(96, 72))
    monkeypatch.chdir(tmp_path / "set")
    write_notebooks(Path("notebooks"), "00_data", "02_compare", "03_analysis")
    for name in ("01_solution", "04_search"):
        shutil.copy(ROOT / f"notebooks/{name}.ipynb", "notebooks")
    text = """\
data: data.yaml
parameters: {image_size: 64, epochs: 2, probe_every: 0, device: cpu}
search: {solution: gradnorm, space: {branch: [p3, neck]}, trials: 1, objective: balanced_accuracy}
"""
    assert main(["study", study_file(Path(), text), "--workers", "1"]) == 0
    folder = Path("runs/demo/search")
    found = load_study(Path("runs") / "demo/search")  # as the parameter `study` of 02_compare names it
    assert found.runs["solution"].tolist() == ["trial-0"]
    (trial,) = trials.load_search(folder).trials
    scored = found.epochs["balanced_accuracy"].tolist()
    assert trial.value == pytest.approx(scored[-1])
    assert [*trial.intermediate_values.values()] == pytest.approx(scored) and len(scored) == 2
    assert found.config("trial-0")["solution"]["branch"] == trial.params["branch"]
    page = Path("runs/demo/pages/search.html").read_text()
    assert "balanced_accuracy" in page and 'alt="Objective of each trial' in page
    assert "No description" not in page  # of a picture
