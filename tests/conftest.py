"""Sixteen frames to train on; and a project of small notebooks that write what a run writes, for the tests
of studies."""

import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from lightning_fabric import seed_everything
from PIL import Image

from gradlib.config import Training, find_solution
from gradlib.data.dataset import Frame
from gradlib.data.images import FrameSet
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.train.trainer import Trainer

PIXEL = (
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000"
    "000d4944415478da6364f8cf500f00038601805a347d6b0000000049454e44ae426082"
)
NOTEBOOKS = {
    "00_data": ("data: str = 'phantom'  # path", "print(data)"),
    "01_solution": (
        """\
solution: str = 'baseline'  # name, or a mapping
data: str = 'phantom'  # path
split: str = 'patients'  # or published
fold: int = 0  # test fold
folds: int = 5  # how many
seed: int = 0  # of everything
epochs: int = 2  # passes
pretrained: str = ''  # a checkpoint
alpha: float = 1.5  # asymmetry
study: str = 'study'  # name
runs: str = 'runs'  # folder
interactive: bool = True  # explorers""",
        """\
import dataclasses, json, os, pathlib, time
from gradlib.config import find_solution
from gradlib.runs import lock
name = find_solution(solution).name
folder = pathlib.Path(runs, study, name, f"fold={fold}", f"seed={seed}")
lock.hold(folder, 15)
threads = int(os.environ["OMP_NUM_THREADS"])""",
        """\
if (epochs, name, seed) == (13, "dual", 0):
    raise RuntimeError("the loss is not finite\\nstep 7: inf")""",
        """\
if (epochs, name) == (21, "dual") and not os.path.exists("killed"):  # the first time
    pathlib.Path("killed").touch()
    os.kill(os.getppid(), 9)
    time.sleep(60)
if (epochs, name) == (22, "dual"):  # always
    os.kill(os.getpid(), 9)
if (epochs, name) == (23, "dual"):  # until somebody says so
    (folder / "pids").write_text(f"{os.getpid()} {os.getppid()}")
    (folder / "epochs.csv").write_text("epoch\\n0\\n1\\n")
    while not os.path.exists("go"):
        time.sleep(0.1)""",
        """\
made = dict(data=data, split=split, fold=fold, folds=folds, seed=seed, epochs=epochs, alpha=alpha)
made |= dict(pretrained=pretrained, solution=dataclasses.asdict(find_solution(solution)))
made |= dict(classes=["AR"], views=[])
(folder / "config.json").write_text(json.dumps(made))
(folder / "metrics.json").write_text(json.dumps({"test": {"threads": threads}, "cost": {"seconds": 7.0}}))""",
    ),
    "02_compare": (
        "study: str = 'study'  # name\nruns: str = 'runs'  # folder\ninteractive: bool = True  # explorers",
        "import pathlib\nprint(len(list(pathlib.Path(runs, study).rglob('metrics.json'))), 'runs')",
    ),
    "03_analysis": (
        "study: str = 'study'  # name\nruns: str = 'runs'  # folder\nlanguage: str = 'en'  # or zh-Hant",
        "print('what', 'was', 'seen', 'in', language)",
        f"from IPython.display import Image\nImage(bytes.fromhex('{PIXEL}'))",  # a figure
    ),
    "04_search": ("study: str = 'study'  # name\nruns: str = 'runs'  # folder", "print('the best of many')"),
}


SLOWEST = (
    *("runs/test_crashes.py", "study/test_search.py", "test_notebooks.py", "study/test_executor.py"),
    *("study/test_driver.py", "test_hostile_names.py", "report/test_analysis.py"),
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three processes on two cores: some tests wait for processes that they have started."""
    return (os.cpu_count() or 1) * 3 // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slowest files, so that none is alone at the end."""
    folder = Path(__file__).parent
    order = {folder / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope="session")
def write_notebooks():
    """Writes the small notebooks of these names into a folder."""

    def write(folder: Path, *names: str) -> None:
        folder.mkdir(exist_ok=True)
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        for name in names:
            cells = [nbformat.v4.new_code_cell(source) for source in NOTEBOOKS[name]]
            cells[0].metadata["tags"] = ["parameters"]
            notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
            nbformat.write(notebook, folder / f"{name}.ipynb")

    return write


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_notebooks) -> Path:
    """A project folder of its own, as the current folder."""
    write_notebooks(tmp_path / "notebooks", *NOTEBOOKS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def run_notebook():
    """Executes the cells of a notebook in this process and the current folder, as IPython does; its names."""

    def run(name: str, **parameters) -> dict:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # IPython puts its own there
            shell = InteractiveShell.instance()
            shell.history_manager.enabled = False
            shell.reset()
            path = Path(__file__).parent.parent / f"notebooks/{name}.ipynb"
            for cell in nbformat.read(path, as_version=4).cells:
                if cell.cell_type == "code":
                    shell.run_cell(cell.source).raise_error()
                    plt.close("all")
                if "parameters" in cell.metadata.get("tags", []):
                    shell.push(parameters)
            return shell.user_ns

    return run


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Sixteen wide frames: a bright square, left of class 0 and view 0, right of class 1 and view 1."""
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    made = []
    for i in range(16):
        side, pixels = i % 2, rng.integers(0, 40, (48, 96, 3), dtype=np.uint8)
        x, y = 10 + 48 * side + i, 10 + i
        pixels[y : y + 16, x : x + 16, 2 * side] = 255
        path = folder / f"p{i}-v-0.png"
        Image.fromarray(pixels).save(path)
        box = [[side, (x + 8) / 96, (y + 8) / 48, 16 / 96, 16 / 48]]
        made.append(Frame(path, np.array(box, np.float32), side, f"p{i}", "v", "train", path.name))
    return made


@pytest.fixture(scope="module")
def trainer_of(frames):
    """Makes a `Trainer` of a solution on these frames, for three epochs of two steps, every second probed."""

    def make(asked="gradnorm", compile=False, **options):
        seed_everything(0, verbose=False)
        chosen, data = find_solution(asked), FrameSet(frames, 64)
        model = MultiTaskYOLO("n", 2, 2, chosen.tasks, chosen.branch, chosen.width)
        training = Training(
            image_size=64, epochs=3, batch_size=8, probe_every=2, device="cpu", compile=compile
        )
        return Trainer(model, chosen, training, data, data, ("AR", "MR"), **options)

    return make


@pytest.fixture(scope="session")
def equal():
    """Tells whether two ended trainings are the same."""

    def same(one, other):
        """Whether weights and tables are the same, bit for bit (seconds apart)."""
        (model, history), (model2, history2) = one, other
        states = (model.state_dict(), model2.state_dict())
        tables = [{n: t.drop(columns="seconds", errors="ignore") for n, t in h.tables().items()}
                  for h in (history, history2)]  # fmt: skip
        return all(torch.equal(a, states[1][name]) for name, a in states[0].items()) and all(
            table.equals(tables[1][name]) for name, table in tables[0].items()
        )

    return same
