import copy
import importlib
import inspect
import itertools

import pytest
import torch
import torchjd
from lightning_fabric import seed_everything
from torch import nn

from gradlib.balance.gradients import TaskGradients
from gradlib.balance.torchjd import from_torchjd
from gradlib.config import (
    OWN_BALANCERS,
    TORCHJD_BY_TASKS,
    TORCHJD_DEFAULTS,
    Solution,
    Training,
    torchjd_methods,
)
from gradlib.data import FrameSet, phantom, read_dataset
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.train.optimization import balancer_for
from gradlib.train.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")  # cvxpy, in NashMTL

AGGREGATORS = [name for name, package in torchjd_methods().items() if package == "aggregation"]
SCALARIZERS = [name for name, package in torchjd_methods().items() if package == "scalarization"]


def balancer(name, **settings):
    return balancer_for(Solution("x", balancer=name, **settings), Training())


def problem(seed=0):
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
    heads = nn.ModuleList(nn.Linear(6, 1) for _ in range(2))
    heads[1].load_state_dict(heads[0].state_dict())  # equal heads with opposite targets: a conflict
    x = torch.randn(16, 4)
    return trunk, heads, x, [torch.sin(x[:, :1]), -3 * torch.sin(x[:, :1]) + x[:, 1:2]]


def forward(trunk, heads, x, targets):
    features = trunk(x)
    losses = [(head(features) - target).square().mean() for head, target in zip(heads, targets, strict=True)]
    return features, losses


def test_the_methods_read_from_torchjds_source_are_what_its_classes_say():
    from torchjd import aggregation, scalarization

    def methods(package, base):
        for name in package.__all__:
            method = getattr(package, name)
            if issubclass(method, base) and not inspect.isabstract(method) and name not in ("Mean", "Sum"):
                arguments = inspect.signature(method).parameters.values()
                given = {*TORCHJD_BY_TASKS, *TORCHJD_DEFAULTS.get(name, ())}
                if all(a.default is not a.empty or a.name in given for a in arguments):
                    yield name

    scalarizers = set(methods(scalarization, scalarization.Scalarizer))
    assert set(SCALARIZERS) == scalarizers
    assert set(AGGREGATORS) == set(methods(aggregation, aggregation.Aggregator)) - scalarizers


def test_an_unknown_method_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown method of TorchJD 'PCgrad' \(did you mean 'PCGrad'"):
        from_torchjd("PCgrad", [1.0, 1.0], {})


@pytest.mark.parametrize("name", ["GradDrop", "Random"])
def test_what_is_random_follows_torchs_seed(name):
    def gradient(seed):
        trunk, heads, x, targets = problem()
        features, losses = forward(trunk, heads, x, targets)
        torch.manual_seed(seed)
        balancer(name).backward(losses, [features])
        return trunk[0].weight.grad

    assert torch.equal(gradient(1), gradient(1))
    assert not torch.allclose(gradient(1), gradient(2))


@pytest.mark.parametrize("name", AGGREGATORS)
def test_an_aggregators_gradient_is_torchjds_own(name):
    from torchjd.autojac import jac_to_grad, mtl_backward

    trunk, heads, x, targets = problem()
    reference = copy.deepcopy((trunk, heads))
    features, losses = forward(trunk, heads, x, targets)
    torch.manual_seed(1)  # PCGrad and GradVac draw the order of the tasks
    ours = balancer(name)
    ours.backward(losses, [features])
    features, losses = forward(*reference, x, targets)
    # In our order of the parameters, for GradDrop draws for each of their elements.
    parameters = TaskGradients([features], [], []).shared_parameters()
    mtl_backward(losses, features=features)
    torch.manual_seed(1)
    jac_to_grad(parameters, balancer(name).method)
    for a, b in zip((trunk, heads), reference, strict=True):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SCALARIZERS)
def test_a_scalarizers_gradient_is_torchjds_own(name):
    trunk, heads, x, targets = problem()
    reference = copy.deepcopy((trunk, heads))
    ours, theirs = balancer(name), copy.deepcopy(balancer(name).method)
    features, losses = forward(trunk, heads, x, targets)
    torch.manual_seed(1)  # Random draws the weights
    ours.backward(losses, [features])
    _, losses = forward(*reference, x, targets)
    torch.manual_seed(1)
    theirs(torch.stack(losses).double()).backward()
    for a, b in zip((trunk, heads), reference, strict=True):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, rtol=1e-5, atol=1e-6)


def test_every_method_goes_another_way():
    ends = {}
    for name in (*OWN_BALANCERS, *torchjd_methods()):
        trunk, heads, x, targets = problem()
        ours = balancer(name)
        optimizer = torch.optim.SGD([*trunk.parameters(), *heads.parameters()], lr=0.05)
        torch.manual_seed(1)
        for step in range(12):
            features, losses = forward(trunk, heads, x, targets)
            ours.backward(losses, [features], [trunk[0].weight])
            optimizer.step()
            optimizer.zero_grad()
            ours.after_step(lambda: torch.stack(forward(trunk, heads, x, targets)[1]).detach())  # noqa: B023
            if step % 3 == 2:
                ours.after_epoch()
        ends[name] = torch.cat([p.detach().flatten() for p in trunk.parameters()])
        assert ends[name].isfinite().all()
    for a, b in itertools.combinations(ends, 2):
        assert (ends[a] - ends[b]).norm() > 1e-5, (a, b)


def test_each_trains_the_demos_frames_and_ends_elsewhere(tmp_path):
    dataset = read_dataset(phantom.write(tmp_path / "set", patients=4, videos=2, frames=2, size=(86, 64)))
    frames = FrameSet(dataset.frames, 64)
    few = FrameSet(dataset.frames[:2], 64)
    training = Training(image_size=64, epochs=3, batch_size=8, probe_every=3, augment=False)
    ends = {}
    for name in (*OWN_BALANCERS, *torchjd_methods()):
        seed_everything(0, verbose=False)
        chosen = Solution(name, balancer=name)
        model = MultiTaskYOLO("n", len(dataset.classes), len(dataset.views), chosen.tasks, chosen.branch)
        model, history = Trainer(model, chosen, training, frames, few, dataset.classes).run()
        assert len(history.steps) == 6 and len(history.probes) == 2 * 12
        ends[name] = torch.cat([p.detach().flatten() for p in model.shared_parameters()])
        assert ends[name].isfinite().all()
    for a, b in itertools.combinations(ends, 2):
        assert (ends[a] - ends[b]).norm() > 1e-3, (a, b)


@pytest.mark.parametrize("name", SCALARIZERS)
def test_what_an_optimizer_trains_is_stateful_for_torchjd(name):
    ours = balancer(name)
    assert ours._optimizer is None or isinstance(ours.method, torchjd.Stateful)


def test_the_parameters_of_a_scalarizer_come_back():
    first, second = balancer("UW"), balancer("UW")
    for _ in range(3):
        first.weigh(torch.tensor([1.0, 2.0]).double())
    with pytest.warns(UserWarning, match="UW begins its memory of earlier steps anew"):
        second.load_state_dict(first.state_dict())
    losses = torch.tensor([1.0, 2.0]).double()
    assert torch.equal(first.weigh(losses), second.weigh(losses))


def test_reset_is_a_new_start():
    ours = balancer("UW")
    start = ours.weigh(torch.tensor([1.0, 2.0]).double())
    for _ in range(3):
        again = ours.weigh(torch.tensor([1.0, 2.0]).double())
    assert not torch.equal(start, again)
    ours.reset()
    assert torch.equal(ours.weigh(torch.tensor([1.0, 2.0]).double()), start)


def test_options_go_to_torchjd_and_unknown_ones_are_named():
    assert balancer("CAGrad", options={"c": 0.1}).method.c == 0.1
    with pytest.raises(ValueError, match=r"CAGrad: unknown option 'd'; TorchJD knows c, norm_eps"):
        balancer("CAGrad", options={"d": 0.1})


def test_a_missing_package_comes_with_the_command(monkeypatch):
    method = importlib.import_module("torchjd.aggregation").CAGradWeighting
    monkeypatch.setattr(method, "_REQUIRED_DEPS", ["no_such_package"])
    with pytest.raises(ModuleNotFoundError, match=r'balancer CAGrad: .*pip install "torchjd\[cagrad\]"'):
        balancer("CAGrad")
