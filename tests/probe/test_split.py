"""Inner products of the tasks' gradients on two halves of a batch, and a lookahead step, by hand."""

import copy

import pytest
import torch
from lightning_fabric import Fabric

from gradlib.config import TASKS
from gradlib.model.losses import task_losses
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.probe.affinity import affinity
from gradlib.probe.probe import Probe
from gradlib.probe.split import SplitGradients

IMAGES = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
BOXES = torch.tensor([[i, i % 4, 0.4, 0.5 + i / 20, 0.3, 0.3] for i in range(5)])
VIEWS = torch.tensor([0, 1, -1, 2, 0])


def network():
    torch.manual_seed(0)
    return MultiTaskYOLO("n", 4, 3, TASKS, "p3").eval()  # each frame by itself: no batch statistics


def half(model, chosen):
    """Losses, parts and the network's gradients of each task on these frames alone."""
    boxes = torch.cat([BOXES[BOXES[:, 0] == frame] for frame in chosen])
    boxes[:, 0] = torch.arange(len(chosen))
    losses, parts = task_losses(model(IMAGES[chosen]), boxes, VIEWS[chosen], model)
    return losses, parts


def gradient(loss, parameters):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)])


def test_products_by_hand():
    a = torch.tensor([1.0, 2.0], requires_grad=True)
    split = SplitGradients([a])
    split.add(
        [[a @ torch.tensor([1.0, 0]), a @ torch.tensor([0.0, 2])], [a @ torch.tensor([3.0, 1]), a.sum()]]
    )
    found = split.products(["x", "y"])
    assert found == {
        **{"signal_x": 3, "signal_y": 2, "square_x": (1 + 10) / 2, "square_y": (4 + 2) / 2},
        **{"cross_x_y": (1 + 2) / 2, "same_x_y": (0 + 4) / 2},
    }
    split.add([[a @ torch.tensor([3.0, 0]), a[0] * 0]] * 2)  # means: x (2, 0) and (3, .5), y (0, 1), (.5, .5)
    found = split.products(["x", "y"])
    assert (found["signal_x"], found["signal_y"], found["cross_x_y"]) == (6, 0.5, (1 + 0.5) / 2)


def test_a_half_without_a_loss_has_no_gradient():
    a = torch.tensor([1.0, 2.0], requires_grad=True)
    split = SplitGradients([a])
    split.add([[a.sum(), torch.zeros(())], [a.sum(), a[0]]])  # no frame of A has a box
    found = split.products(["x", "y"])
    assert (found["signal_x"], found["signal_y"], found["square_y"], found["cross_x_y"]) == (2, 0, 0.5, 0.5)


def test_the_halves_of_a_batch_are_its_frames_alone():
    model = network()
    probe = Probe(model, 20, 1, model.shared_weight())
    probe.add(model(IMAGES), BOXES, VIEWS)  # the fifth frame has no partner
    assert probe.ended and probe.fraction == 2 / 20
    halves = [half(model, chosen) for chosen in ([0, 1], [2, 3])]
    weights = [p for p in model.shared["p2"].parameters() if p.ndim > 1]
    d, c = ([gradient(losses[task], weights) for losses, _ in halves] for task in TASKS)
    rows = probe.stage_rows([1.0, 1.0])
    row = next(r for r in rows if (r["stage"], r["kind"]) == ("p2", "conv"))
    expected = {"signal_detection": d[0] @ d[1], "signal_classification": c[0] @ c[1]}
    expected |= {"square_detection": (d[0] @ d[0] + d[1] @ d[1]) / 2, "fraction": 0.1}
    expected |= {"cross_detection_classification": (d[0] @ c[1] + d[1] @ c[0]) / 2}
    expected |= {"same_detection_classification": (d[0] @ c[0] + d[1] @ c[1]) / 2}
    d, c = (d[0] + d[1]) / 2, (c[0] + c[1]) / 2
    expected |= {"cosine": d @ c / d.norm() / c.norm(), "norm_detection": d.norm()}
    assert {name: row[name] for name in expected} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, rel=1e-3, abs=1e-5
    )
    assert [(r["stage"], r["kind"]) for r in rows] == [
        (stage, kind) for stage in ("p1", "p2", "p3") for kind in ("conv", "norm")
    ]
    (parts,) = probe.part_rows()
    a, b = (gradient(parts["objectness"], [model.shared_weight()]) for _, parts in halves)
    assert parts["signal_objectness"] == pytest.approx(float(a @ b), rel=1e-3)
    assert {"cross_box_class", "cross_class_classification", "signal_classification"} <= set(parts)


def test_a_probe_leaves_the_training_as_it_is(trainer_of, equal):
    ends = []
    for every, batches in ((0, 1), (1, 1), (2, 2)):
        trainer = trainer_of()
        object.__setattr__(trainer.training, "probe_every", every)
        object.__setattr__(trainer.training, "probe_batches", batches)
        model, history = trainer.run()
        ends.append((copy.deepcopy(model.state_dict()), history))
    assert [len(history.affinity) for _, history in ends] == [0, 6 * 4, 3 * 4]
    for state, _ in ends[1:]:
        assert all(torch.equal(value, state[name]) for name, value in ends[0][0].items())
    assert [row["step"] for row in ends[2][1].batches] == [0] * 16 + [2] * 16 + [4] * 16


def test_affinity_of_a_quadratic_by_hand():
    """x^2 + y^2 and (x - 2)^2 at (1, 1), steps of 0.1: to (0.8, 0.8) by the first, (1.2, 1) by the other."""
    x = torch.tensor([1.0, 1.0])

    def losses(values):
        return torch.stack([values["x"].square().sum(), (values["x"][0] - 2) ** 2])

    found = affinity(losses, {"x": x}, [[torch.tensor([2.0, 2.0])], [torch.tensor([-2.0, 0.0])]], 0.1)
    expected = [[1 - 1.28 / 2, 1 - 1.44], [1 - 2.44 / 2, 1 - 0.64]]
    assert found.tolist() == [pytest.approx(row) for row in expected]


def test_a_lookahead_step_is_of_the_other_half_and_leaves_the_network():
    model = network().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    before = copy.deepcopy(model.state_dict())
    probe = Probe(model, 20, 1)
    probe.add(model(IMAGES), BOXES, VIEWS)
    state = copy.deepcopy(model.state_dict())
    rows = probe.affinity_rows(IMAGES, BOXES, VIEWS, 0.01, Fabric(accelerator="cpu").autocast())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    moved = network().train()
    moved.load_state_dict(before)
    with torch.no_grad():
        for p, g in zip(moved.shared_parameters(), probe.stages.gradients[0], strict=True):
            p -= 0.01 * g
    for m in (model, moved):
        for module in m.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    first, after = (half(m, [2, 3])[0]["classification"].item() for m in (model, moved))
    found = {(row["source"], row["target"]): row["affinity"] for row in rows}
    assert len(rows) == 4
    assert found["detection", "classification"] == pytest.approx(1 - after / first, rel=1e-3, abs=1e-6)
