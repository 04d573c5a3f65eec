"""A study of three solutions and two seeds on a phantom, and a check that a control redraws the figure."""

import pytest
from lightning_fabric import seed_everything

from gradlib.config import SOLUTIONS, Training
from gradlib.data import phantom, tables
from gradlib.evidence import controls
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.runs import write
from gradlib.train import step
from gradlib.train.trainer import Trainer


def trainer_of(dataset, name, seed):
    """Two epochs on small frames, with a probe every second step."""
    seed_everything(seed, verbose=False)
    parts, chosen = tables.split(dataset), SOLUTIONS[name]
    sets = {part: tables.FrameSet(frames, 64) for part, frames in parts.items()}
    training = Training(image_size=64, epochs=2, batch_size=8, probe_every=2, seed=seed, device="cpu")
    model = MultiTaskYOLO("n", len(dataset.classes), len(dataset.views), chosen.tasks, chosen.branch)
    made = Trainer(model, chosen, training, sets["train"], sets["valid"], dataset.classes)
    return made, parts, sets


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory):
    """A project folder with the study `small` in it."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        path = phantom.write(folder / "set", patients=12, videos=1, frames=4, size=(96, 72))
        dataset = tables.read(path)
        for name in ("baseline", "gradnorm", "dual"):
            for seed in (0, 1):
                run = write.run_folder("runs", "small", name, 0, seed)
                trainer, parts, sets = trainer_of(dataset, name, seed)
                asked = {"data": "set/data.yaml", **vars(trainer.training)}
                write.begin(run, asked, SOLUTIONS[name], dataset, parts)
                model, history = trainer.run()
                write.save_tables(run, history.tables())
                found, _ = step.predict(model, sets["test"], trainer.training)
                for entry in found[seed:]:  # so little training finds nothing
                    entry["detections"] = [[k, 0.8, *box] for k, *box in entry["boxes"]]
                    entry["detections"] += [[0, 0.3, 0.2, 0.2, 0.1, 0.1]]
                scores = step.evaluate(found, model.tasks, dataset.classes, 0.02)
                guess = controls.views_from_jets(parts["train"], parts["test"], len(dataset.views))
                write.finish(run, model, found, {"test": scores, "cost": {"parameters": 1}}, guess)
    return folder


@pytest.fixture
def study(study_folder, monkeypatch):
    monkeypatch.chdir(study_folder)
    return controls.with_controls(write.load("runs/small"))


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
