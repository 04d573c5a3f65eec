"""A study of three solutions and two seeds on a phantom, and a check that a control redraws the figure."""

import pytest
from lightning_fabric import seed_everything

from gradlib.config import Parameters
from gradlib.data import FrameSet, phantom, read_dataset
from gradlib.evidence import controls
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.runs import RunFolder, load_study
from gradlib.train import Trainer, evaluate, predict


def train_run(dataset, name, seed):
    """A run of two epochs on small frames, with a probe every second step."""
    seed_everything(seed, verbose=False)
    settings = {"image_size": 64, "epochs": 2, "batch_size": 8, "probe_every": 2, "device": "cpu"}
    training = Parameters(**settings, data="set/data.yaml", study="small", solution=name, seed=seed)
    run, parts = RunFolder(training), dataset.split()
    sets = {part: FrameSet(frames, 64) for part, frames in parts.items()}
    model = MultiTaskYOLO(
        "n", len(dataset.classes), len(dataset.views), run.solution.tasks, run.solution.branch
    )
    run.begin(dataset, parts)
    trainer = Trainer(
        model, run.solution, training, sets["train"], sets["valid"], dataset.classes, run.after_epoch
    )
    model, _ = trainer.run()
    found, _ = predict(model, sets["test"], training)
    for entry in found[seed:]:  # so little training finds nothing
        entry["detections"] = [[k, 0.8, *box] for k, *box in entry["boxes"]] + [[0, 0.3, 0.2, 0.2, 0.1, 0.1]]
    scores = evaluate(found, model.tasks, dataset.classes, 0.02)
    run.finish(model, found, {"test": scores, "cost": {"parameters": 1}})


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory):
    """A project folder with the study `small` in it."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        dataset = read_dataset(phantom.write(folder / "set", patients=12, videos=1, frames=4, size=(96, 72)))
        for name in ("baseline", "gradnorm", "dual"):
            for seed in (0, 1):
                train_run(dataset, name, seed)
    return folder


@pytest.fixture
def study(study_folder, monkeypatch):
    monkeypatch.chdir(study_folder)
    return controls.with_controls(load_study("runs/small"))


@pytest.fixture
def moves():
    """Set a control to each value; every one must change the figure."""

    def move(explorer, name, *values):
        for value in values:
            before = explorer.figure.value
            explorer.controls[name].value = value
            assert explorer.figure.value != before, (name, value, explorer.note.value)
            assert "Error" not in explorer.note.value, explorer.note.value

    return move
