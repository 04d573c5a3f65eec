"""A project, a JupyterLab on it and a browser, once for all tests; a page for each."""

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import nbformat
import pytest
from fifty import study_of_50
from lab import Notebook, Server
from lightning_fabric import seed_everything
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from playwright.sync_api import Browser, Page, sync_playwright

from gradlib.config import Parameters
from gradlib.data import FrameSet, phantom, read_dataset
from gradlib.model import MultiTaskYOLO, network_cost
from gradlib.runs import RunFolder
from gradlib.study.search import _begin, suggest
from gradlib.study.spec import read_spec
from gradlib.train import Trainer, evaluate, predict

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "microsoft-edge")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SEARCH = """\
name: searched
data: small/data.yaml
search:
  solution: gradnorm
  space: {alpha: {low: 0.0, high: 3.0}, branch: [p4, neck]}
  trials: 12
  objective: map50
"""


def pytest_configure(config: pytest.Config) -> None:
    if BROWSER is None:
        raise pytest.UsageError("no Chromium, Chrome or Edge was found (Debian: apt-get install chromium)")
    # Otherwise SIGTERM would end pytest at once, and leave a server and a browser behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder: the notebooks and a small data set."""
    folder = tmp_path_factory.mktemp("project")
    phantom.write(folder / "small", patients=12, videos=1, frames=4, size=(96, 72))
    shutil.copytree(NOTEBOOKS, folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    return folder


@pytest.fixture(scope="session")
def small(project: Path) -> Path:
    """The folder of a study of four small runs, without its pages and without their notebooks."""
    given = {"data": "small/data.yaml", "image_size": 64, "epochs": 2, "probe_every": 2, "device": "cpu"}
    with chdir(project):
        dataset = read_dataset("small/data.yaml")
        parts = dataset.split()
        train, valid, test = (FrameSet(frames, 64) for frames in parts.values())
        for name in ("baseline", "gradnorm", "dual", "detection-only"):
            seed_everything(0, verbose=False)
            training = Parameters(**given, study="small", solution=name)
            run, outputs = RunFolder(training), (len(dataset.classes), len(dataset.views))
            network = MultiTaskYOLO("n", *outputs, run.solution.tasks, run.solution.branch)
            run.begin(dataset, parts)
            trainer = Trainer(network, run.solution, training, train, valid, dataset.classes, run.after_epoch)
            network, history = trainer.run()
            entries, _ = predict(network, test, training)
            metrics = evaluate(entries, network.tasks, dataset.classes, 0.02) | {"frames": len(entries)}
            seconds = history.tables()["epochs"]["seconds"]
            cost = network_cost(network, 64) | {"peak_memory_mb": 1.0, "seconds": seconds.sum()}
            cost |= {"seconds_per_epoch": seconds.mean()}
            run.finish(network, entries, {"test": metrics, "cost": cost})
    return project / "runs/small"


@pytest.fixture(scope="session")
def searched(project: Path) -> Path:
    """The folder of a search whose trials have trained nothing: the best alpha is 1."""
    (project / "searched.yaml").write_text(SEARCH)
    with chdir(project):
        search = read_spec("searched.yaml").search
    study = _begin(search)
    for _ in range(search.trials):
        trial = study.ask()
        score = 0.6 - 0.1 * abs(suggest(trial, search.space)["alpha"] - 1)
        for epoch in range(2):
            trial.report(score * (epoch + 1) / 2, epoch)
        study.tell(trial, score)
    return search.folder


@pytest.fixture(scope="session")
def fifty(project: Path, small: Path) -> Path:
    """The folder of a study of 50 runs, as long as real ones."""
    return study_of_50(project, small)


@pytest.fixture(scope="session")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab on the project."""
    server = Server(project, tmp_path_factory.mktemp("private"))
    yield server
    server.end()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """This machine's browser, unseen."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # it refuses to start for root with a sandbox
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that nobody has used before."""
    with browser.new_context(viewport={"width": 1400, "height": 1000}) as context:
        yield context.new_page()


@pytest.fixture
def lab(page: Page, server: Server, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Notebook]]:
    """Opens the notebook at a path of the project. In the end its kernel ends, and its picture goes to the
    folder that GRADLIB_SCREENSHOTS names."""
    opened = []

    def open_(path: str) -> Notebook:
        opened.append(Notebook(page, server, path))
        return opened[-1]

    yield open_
    server.end_kernels()
    if "GRADLIB_SCREENSHOTS" in os.environ:
        name = re.sub(r"[^\w-]+", "-", request.node.name).strip("-")
        for notebook in opened[-1:]:
            notebook.screenshot(Path(os.environ["GRADLIB_SCREENSHOTS"]) / f"{name}.png")


@pytest.fixture
def opened(project: Path, lab: Callable[[str], Notebook]) -> Callable[[str, dict], Notebook]:
    """Opens a notebook of the kit by its name, with parameters."""

    def open_(name: str, given: dict) -> Notebook:
        notebook = parameterize_notebook(load_notebook_node(str(NOTEBOOKS / f"{name}.ipynb")), given)
        nbformat.write(notebook, project / f"notebooks/{name}.ipynb")
        return lab(f"notebooks/{name}.ipynb")

    return open_
