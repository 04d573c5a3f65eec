"""A study of three solutions and two seeds on a phantom, and a check that a control redraws the figure."""

import pytest
from lightning_fabric import seed_everything

from gradlib.config import SOLUTIONS, Training
from gradlib.data import FrameSet, phantom, read_dataset, views_from_jets
from gradlib.evidence import controls
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.runs.read import load_study
from gradlib.runs.write import RunFolder
from gradlib.train import evaluation
from gradlib.train.trainer import Trainer


def trainer_of(dataset, name, seed, after_epoch=None):
    """Two epochs on small frames, with a probe every second step."""
    seed_everything(seed, verbose=False)
    parts, chosen = dataset.split(), SOLUTIONS[name]
    sets = {part: FrameSet(frames, 64) for part, frames in parts.items()}
    training = Training(image_size=64, epochs=2, batch_size=8, probe_every=2, seed=seed, device="cpu")
    model = MultiTaskYOLO("n", len(dataset.classes), len(dataset.views), chosen.tasks, chosen.branch)
    made = Trainer(model, chosen, training, sets["train"], sets["valid"], dataset.classes, after_epoch)
    return made, parts, sets


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory):
    """A project folder with the study `small` in it."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        path = phantom.write(folder / "set", patients=12, videos=1, frames=4, size=(96, 72))
        dataset = read_dataset(path)
        for name in ("baseline", "gradnorm", "dual"):
            for seed in (0, 1):
                run = RunFolder("runs", "small", name, 0, seed)
                trainer, parts, sets = trainer_of(dataset, name, seed, run.after_epoch)
                run.begin({"data": "set/data.yaml"}, trainer.training, dataset, parts)
                model, _ = trainer.run()
                found, _ = evaluation.predict(model, sets["test"], trainer.training)
                for entry in found[seed:]:  # so little training finds nothing
                    entry["detections"] = [[k, 0.8, *box] for k, *box in entry["boxes"]]
                    entry["detections"] += [[0, 0.3, 0.2, 0.2, 0.1, 0.1]]
                scores = evaluation.evaluate(found, model.tasks, dataset.classes, 0.02)
                guess = views_from_jets(parts["train"], parts["test"], len(dataset.views))
                run.finish(model, found, {"test": scores, "cost": {"parameters": 1}}, guess)
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
