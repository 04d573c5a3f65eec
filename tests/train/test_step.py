import copy
from contextlib import nullcontext

import pytest
import torch
from lightning_fabric import Fabric
from torch.utils._python_dispatch import TorchDispatchMode

from gradlib.balance.balancer import FixedWeights
from gradlib.config import BRANCHES, TASKS, Solution, Training
from gradlib.model.losses import task_losses
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.probe.frames import frames_of
from gradlib.probe.probe import Probe
from gradlib.train.augmentation import augment
from gradlib.train.optimization import balancer_for
from gradlib.train.step import train_step

WEIGHTS = torch.tensor([0.7, 1.3], dtype=torch.float64)


def batch(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 3, 64, 64, generator=generator).to(dtype)
    boxes = torch.tensor([[0, 1, 0.4, 0.6, 0.3, 0.3], [2, 3, 0.7, 0.2, 0.2, 0.4]], dtype=dtype)
    return images, boxes, torch.tensor([0, 2, -1])


def network(branch, dtype=torch.float32):
    torch.manual_seed(0)
    model = MultiTaskYOLO("n", 4, 3, TASKS, branch).to(dtype).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # both ways of running back must see the same network
    return model


def step(model, dtype=torch.float32, weights=WEIGHTS, probe=None):
    return train_step(model, *batch(dtype), FixedWeights(weights), Fabric(accelerator="cpu"), probe)


def joint_gradients(model, dtype, weights=WEIGHTS):
    model = copy.deepcopy(model)
    images, boxes, views = batch(dtype)
    losses, _ = task_losses(model(images), boxes, views, model)
    sum(w * loss for w, loss in zip(weights, losses.values(), strict=True)).backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize("branch", BRANCHES)
def test_the_cut_step_is_one_joint_backward(branch, probe, monkeypatch):
    # The losses go to float32 for the sake of half precision; here all is to stay double.
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    if probe and branch == "input":
        pytest.skip("nothing shared to probe")
    model = network(branch, torch.float64)
    expected = joint_gradients(model, torch.float64)
    step(model, torch.float64, probe=Probe(model, 3, 1) if probe else None)
    for p, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(p.grad, gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("branch", BRANCHES)
def test_in_single_precision_the_cut_step_is_as_exact_as_one_joint_backward(branch, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    truth = torch.cat([g.flatten() for g in joint_gradients(network(branch).double(), torch.float64)])
    joint, cut = network(branch), network(branch)
    step(cut)
    gradients = (
        joint_gradients(joint, torch.float32, WEIGHTS.tolist()),
        [p.grad for p in cut.parameters()],
    )
    errors = [(torch.cat([g.flatten() for g in own]) - truth).norm() / truth.norm() for own in gradients]
    # Rounding alone puts either some 1e-6 away from the truth after sixty layers.
    assert errors[1] <= errors[0] + 1e-6


@pytest.mark.parametrize("branch", BRANCHES)
def test_every_parameter_receives_a_gradient(branch):
    model = network(branch)
    step(model)
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("task", TASKS)
def test_each_task_of_two_backbones_reaches_only_its_own_half(task):
    model = network("input")
    images, boxes, views = batch()
    task_losses(model(images), boxes, views, model)[0][task].backward()
    reached = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {task}


def test_a_task_of_weight_zero_is_measured_and_moves_nothing():
    model = network("neck")
    row = step(model, weights=torch.tensor([0.0, 1.0]))
    assert row["norm_detection"] > 0 and row["share_detection"] == 0
    assert not any(p.grad.any() for p in model.task_parameters("detection"))
    assert any(p.grad.any() for p in model.shared_parameters())


def test_a_tasks_share_of_the_weighted_norms_by_hand():
    row = step(network("neck"), weights=torch.tensor([0.5, 1.5]))
    detection, classification = 0.5 * row["norm_detection"], 1.5 * row["norm_classification"]
    assert row["share_detection"] == pytest.approx(detection / (detection + classification))


@pytest.mark.parametrize("place", ["shared", "p3"])
def test_unbiased_norms_are_of_the_inner_products_of_two_halves(place, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    chosen = Solution("x", balancer="gradnorm", options={"norms": "unbiased", "measure_at": place})
    (images, boxes, _), views = batch(torch.float64), torch.tensor([0, 2, 0, 1])
    images = torch.cat((images[:2], images[:2] * 0.9))  # so that the halves agree
    boxes = torch.cat((boxes[:1], boxes[:1] + torch.eye(6)[0] * 2))
    model, balancer = network("neck", torch.float64), balancer_for(chosen, Training())
    balancer.layer_checked = True
    row = train_step(model, images, boxes, views, balancer, Fabric(accelerator="cpu"), measure_at=place)

    model = network("neck", torch.float64)
    maps = [tensor.view_as(tensor) for tensor in model.forward_shared(images)]
    outputs = {task: model.forward_task(task, maps) for task in TASKS}
    at = list(model.shared_parameters()) if place == "shared" else [model.shared_weight(place)]
    own = [frames_of(outputs, boxes, views, torch.tensor(half)) for half in ([0, 1], [2, 3])]
    halves = [task_losses(*half, model)[0] for half in own]
    for task in TASKS:
        a, b = (
            torch.autograd.grad(losses[task], at, retain_graph=True, allow_unused=True) for losses in halves
        )
        product = sum(float((x * y).sum()) for x, y in zip(a, b, strict=True) if x is not None)
        assert product > 0
        assert row[f"norm_{task}"] == pytest.approx(product**0.5, rel=1e-9)


@pytest.mark.parametrize("place", ["cut", "shared", "last", "neck", "p3", "p3.4.cv1.conv", None])
def test_norms_are_measured_where_the_solution_says(place, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    options = {} if place is None else {"measure_at": place}
    chosen = Solution("x", balancer="gradnorm", options=options)
    double = torch.float64
    model, (images, boxes, views) = network("neck", double), batch(double)
    # The neck's last convolution sees one of the three maps that leave it. Who names it is told.
    bypassed = place in ("last", "neck")
    told = (
        pytest.warns(UserWarning, match=r"not behind shared\[0\], shared\[1\]") if bypassed else nullcontext()
    )
    with told:
        fabric, balancer = Fabric(accelerator="cpu"), balancer_for(chosen, Training())
        row = train_step(model, images, boxes, views, balancer, fabric, **options)

    model = network("neck", double)
    maps = [tensor.view_as(tensor) for tensor in model.forward_shared(images)]
    outputs = {task: model.forward_task(task, maps) for task in TASKS}
    for task, loss in task_losses(outputs, boxes, views, model)[0].items():
        at = {"cut": maps, None: maps, "shared": list(model.shared_parameters())}.get(place)
        at = at or [model.shared_weight(place)]
        gradients = torch.autograd.grad(loss, at, retain_graph=True)
        expected = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        assert row[f"norm_{task}"] == pytest.approx(expected.item(), rel=1e-9)


class Waits(TorchDispatchMode):
    """Counts what makes a GPU's host wait: values that are read, and results whose size only they decide."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.found = []
        for name in ("tolist", "cpu", "numpy"):  # on the CPU they dispatch nothing
            monkeypatch.setattr(torch.Tensor, name, self._counted(name, getattr(torch.Tensor, name)))

    def _counted(self, name, method):
        def counted(tensor, *args, **kwargs):
            if tensor.dtype == torch.float32:  # a balancer's own float64 weights are on the CPU anyway
                self.found.append(name)
            return method(tensor, *args, **kwargs)

        return counted

    def update_of(self, balancer):
        """The balancer's `update`, where nothing waits after the first copy to the CPU."""

        def update(losses, norms, update=balancer.update):
            before = len(self.found)
            update(losses, norms)
            del self.found[before + 1 :]

        return update

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masks = [one for one in args[1] or () if one is not None] if name in ("index", "index_put_") else []
        # cumprod: what the derivative of `prod` does here; on a device it asks the host first.
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim")
        if name in (*waits, "cumprod"):
            self.found.append(name)
        elif any(mask.dtype == torch.bool for mask in masks):
            self.found.append(f"{name} by a mask")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("solution", "allowed"),
    [
        (Solution("plain"), ["tolist"]),
        (Solution("x", balancer="gradnorm"), ["cpu", "tolist"]),
        (Solution("x", balancer="gradnorm", options={"measure_at": "shared"}), ["cpu", "tolist"]),
        (Solution("x", branch="input"), ["tolist"]),
    ],
)
def test_of_a_step_the_host_waits_for_its_row_and_for_what_gradnorm_learns_from(
    solution, allowed, monkeypatch
):
    model = network(solution.branch)
    balancer = balancer_for(solution, Training())
    fabric, where = Fabric(accelerator="cpu"), solution.options.get("measure_at", "cut")
    images, boxes, views = batch()
    with Waits(monkeypatch) as waits:
        monkeypatch.setattr(balancer, "update", waits.update_of(balancer))
        images, boxes = augment(images, boxes)
        train_step(model, images, boxes, views, balancer, fabric, measure_at=where, max_norm=10.0)
    assert waits.found == allowed
