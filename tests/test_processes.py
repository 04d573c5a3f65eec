"""Several processes compute what one would; and one that dies ends the training, not what it kept."""

import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from gradlib.balancing import GradNorm
from gradlib.config import SOLUTIONS, Training
from gradlib.devices import fabric_for
from gradlib.engine import train_step
from gradlib.models import MultiTaskYOLO
from gradlib.processes import Lost, Others
from gradlib.runs import Stopped
from gradlib.team import ALONE, Team, join_layers
from gradlib.torchjd_balancers import from_torchjd


def steps(solution: str, method: str, dtype: torch.dtype, images: int, team: Team) -> list:
    """Two steps on the same batch, probed; the first with pairs: each step's rows, and its gradients."""
    torch.manual_seed(0)
    chosen = SOLUTIONS[solution]
    model = MultiTaskYOLO("n", 3, 3, chosen.tasks, chosen.branch).to(dtype).train()
    head = model.paths["classification"]["head"]
    head.loss_weights = head.loss_weights.float()  # losses are in single precision whatever comes
    join_layers(model, team)
    batch = torch.rand(images, 3, 96, 96).to(dtype)
    boxes = torch.tensor([[0, 0, 0.4, 0.5, 0.3, 0.4], [0, 2, 0.7, 0.2, 0.2, 0.2], [3, 1, 0.5, 0.5, 0.6, 0.3]])
    views = torch.tensor([0, -1, 2, 2, 1, 0][:images])
    balancer = GradNorm([1.0, 1.0]) if method == "gradnorm" else from_torchjd(method, [1.0, 1.0], {})
    fabric, found = fabric_for(Training(device="cpu")), []
    for pairs in (True, False):
        rows = train_step(model, batch, boxes, views, balancer, fabric, True, pairs, "", team)
        gradients = team.total([p.grad for p in model.parameters() if p.grad is not None])
        found.append((*rows, [gradient.clone() for gradient in gradients]))
        model.zero_grad()
    return found


def beside(solution: str, method: str, dtype: torch.dtype, images: int, size: int) -> list:
    """The same in `size` processes, as the first one has it."""
    work = partial(steps, solution, method, dtype, images)
    with Others(size, work) as others:
        return work(others.team)


def far(one, other) -> float:
    """The largest difference, relative to `other`."""
    pairs = [[torch.as_tensor(v).double() for v in pair] for pair in zip(one, other, strict=True)]
    return max(((a - b).norm().item() / max(b.norm().item(), 1e-6) for a, b in pairs), default=0.0)


def values(rows: list[dict]) -> list[float]:
    return [v for row in rows for v in row.values() if isinstance(v, int | float) and v == v]


@pytest.mark.parametrize(
    ("solution", "method", "images", "size"),
    [
        ("gradnorm", "gradnorm", 4, 2),
        ("fusion", "gradnorm", 5, 3),
        ("dual", "UW", 4, 2),
        ("gradnorm", "PCGrad", 4, 2),
    ],
)
def test_several_processes_compute_what_one_would(solution, method, images, size):
    one = steps(solution, method, torch.float64, images, ALONE)
    several = beside(solution, method, torch.float64, images, size)
    for (row, probes, pairs, gradients), (row2, probes2, pairs2, gradients2) in zip(
        one, several, strict=True
    ):
        assert far(row2.values(), row.values()) < 1e-7  # losses, weights and norms
        assert far(values(probes2), values(probes)) < 1e-5 and far(values(pairs2), values(pairs)) < 1e-5
        assert far(gradients2, gradients) < 1e-7
        assert [len(probes), len(pairs)] == [len(probes2), len(pairs2)]
        assert bool(probes) == (solution != "dual")


def test_in_single_precision_they_differ_by_its_rounding():
    exact, one = (steps("gradnorm", "gradnorm", dtype, 4, ALONE) for dtype in (torch.float64, torch.float32))
    two = beside("gradnorm", "gradnorm", torch.float32, 4, 2)
    for step in (0, 1):
        *_, truth = exact[step]
        assert far(flat(two[step][3]), flat(truth)) < 2 * far(flat(one[step][3]), flat(truth))
        assert two[step][0]["weight_detection"] == pytest.approx(one[step][0]["weight_detection"], rel=1e-5)
        assert two[step][0]["norm_detection"] == pytest.approx(one[step][0]["norm_detection"], rel=1e-4)


def flat(gradients: list) -> list:
    return [torch.cat([gradient.flatten() for gradient in gradients])]


@pytest.fixture(scope="module")
def kept(trainer_of, tmp_path_factory):
    """A training on two devices, and where its states are kept."""
    folder = tmp_path_factory.mktemp("states")
    return trainer_of(devices=2, after_epoch=partial(keep, folder)).run(), folder


def keep(folder: Path, trainer) -> None:
    torch.save(trainer.state_dict(), folder / f"{len(trainer.history.epochs)}.pt")


def test_a_training_on_two_devices_is_one_on_one(trainer_of, kept):
    (model, history), _ = kept
    one = trainer_of().run()[1].tables()
    two = history.tables()
    assert one["batches"].equals(two["batches"]) and len(one["epochs"]) == len(two["epochs"]) == 3
    first, other = (tables["steps"].iloc[0] for tables in (one, two))
    assert first.to_dict() == pytest.approx(other.to_dict(), rel=1e-4)
    assert type(next(m for m in model.modules() if "BatchNorm" in type(m).__name__)) is torch.nn.BatchNorm2d


def test_it_is_stopped_and_goes_on_and_is_taken_up_by_another(trainer_of, kept, equal):
    whole, folder = kept
    trainer = trainer_of(devices=2)
    with pytest.raises(Stopped):
        for _ in trainer.going():
            if trainer.step == 3:
                trainer.stop()
    again = trainer_of(devices=2)
    again.load_state_dict(torch.load(folder / "1.pt", weights_only=True))
    next(trainer.going())  # a reader who looks at a step, and at no more
    assert equal(trainer.run(), whole)
    assert equal(again.run(), whole)
    assert equal(trainer.run(), whole)  # a cell that is run once more


def test_another_training_takes_the_processes(trainer_of):
    trainer, other = trainer_of(devices=2), trainer_of(devices=2)
    next(trainer.going())
    next(other.going())
    with pytest.raises(Lost, match="ended for another training's: make a new trainer"):
        trainer.run()


def test_a_process_that_dies_ends_the_training(trainer_of, tmp_path):
    trainer = trainer_of(devices=2, after_epoch=partial(keep, tmp_path))
    with pytest.raises(Lost) as raised:
        for _ in trainer.going():
            if trainer.step == 3:
                trainer._others._processes[0].kill()
    assert str(raised.value) == (
        "process 2 of 2 was killed by SIGKILL (for want of memory?); that was in step 4 of 6. Started again, "
        "a run goes on after the last epoch that it has kept"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["1.pt"]


@pytest.mark.parametrize("seconds", [0, 6], ids=["before they meet", "after"])
def test_none_is_left_when_the_first_is_killed(seconds):
    begin = "import time; from gradlib.processes import Others; from test_processes import rest; "
    begin += "Others(2, rest); time.sleep(600)"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    first = psutil.Popen([sys.executable, "-c", begin], env=os.environ | path)
    while not first.children():
        assert first.poll() is None
        time.sleep(0.01)
    others = first.children()
    time.sleep(seconds)
    first.kill()
    first.wait()
    assert psutil.wait_procs(others, timeout=60)[1] == []


def rest(team: Team) -> None:
    """Wait for the first process, as a step does."""
    team.share([torch.zeros(1)])


def test_a_process_that_cannot_begin_says_why(trainer_of, frames):
    trainer = trainer_of(devices=2)
    trainer._loader.dataset.frames[0] = replace(frames[0], image=Path("gone.png"))
    with pytest.raises(Lost, match=r"process 2 of 2 ended: .*gone\.png"):
        trainer.run()


def test_more_devices_than_there_are():
    with pytest.raises(ValueError, match="devices = 3: each takes part of a batch, and batch_size is 2"):
        Training(devices=3, batch_size=2)
