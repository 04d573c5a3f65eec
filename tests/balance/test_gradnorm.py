import copy
import math
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from gradlib.balance.balancer import FixedWeights
from gradlib.balance.gradnorm import GradNorm
from gradlib.config import SOLUTIONS, Solution, Training
from gradlib.train.optimization import balancer_for


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_two_scalar_tasks_on_one_weight_by_hand():
    # One shared weight v = 2; L1 = v^2 = 4 with gradient 2v = 4; L2 = 3v = 6 with gradient 3.
    v = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    losses = [v**2, 3 * v]
    norms = torch.stack([torch.autograd.grad(loss, v)[0].abs() for loss in losses])
    balancer = GradNorm(tensor(1, 1), alpha=1, learning_rate=0.025)
    balancer.update(torch.stack(losses), norms)
    # First step: r = (1, 1); target = (4 + 3) / 2 = 3.5; gradient = (4 * +1, 3 * -1).
    assert balancer.gradient(tensor(4, 6), norms).tolist() == [4, -3]
    # Adam's first step is its learning rate against the sign; the sum is 2 already.
    assert balancer.weights.tolist() == pytest.approx([0.975, 1.025])
    # v = 1: L = (1, 3), L~ = (1/4, 1/2), mean 3/8, r = (2/3, 4/3); gradients (2, 3);
    # weighted (1.95, 3.075), mean 2.5125, targets (1.675, 3.35): the first is above, the second below.
    assert balancer.inverse_training_rates(tensor(1, 3)).tolist() == pytest.approx([2 / 3, 4 / 3])
    assert balancer.gradient(tensor(1, 3), tensor(2, 3)).tolist() == [2, -3]


def test_the_closed_form_is_the_gradient_of_the_papers_loss():
    weights, norms = tensor(0.6, 1.1, 1.3).requires_grad_(), tensor(5, 0.7, 2)
    losses, initial, alpha = tensor(2, 1, 3), tensor(4, 1.5, 3.1), 1.5
    rates = (losses / initial) / (losses / initial).mean()
    target = ((weights * norms).mean() * rates**alpha).detach()  # eq. 2: held constant
    (weights * norms - target).abs().sum().backward()
    balancer = GradNorm(weights, alpha=alpha)
    balancer.initial_losses = initial
    assert torch.allclose(balancer.gradient(losses, norms), weights.grad, rtol=1e-12)


@pytest.mark.parametrize("tasks", range(2, 11))
@pytest.mark.parametrize("alpha", [1e-3, 0.12, 0.5, 1.0, 1.5, 3.0])
def test_a_lagging_task_gains(alpha, tasks):
    generator = torch.Generator().manual_seed(tasks)
    lagging = int(torch.randint(tasks, (), generator=generator))
    pace = torch.rand(tasks, generator=generator, dtype=torch.float64) * 0.05 + 0.02
    pace[lagging] = 0.005
    scale = torch.rand(tasks, generator=generator, dtype=torch.float64) * 5 + 0.1  # of the losses: no matter
    balancer = GradNorm(torch.ones(tasks), alpha=alpha, learning_rate=1e-4)
    for step in range(60):
        balancer.update(scale * torch.exp(-pace * step), torch.ones(tasks))
    # Others that are slower than the mean gain too, and just as fast as long as all are below their targets.
    assert balancer.weights[lagging] > 1
    assert balancer.weights[lagging] >= balancer.weights.max() - 1e-12


def problem(tasks=3):
    """A trunk of two layers and a head a task, in double precision, and a batch."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh()).double()
    heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(tasks)).double()
    x = torch.randn(16, 4, dtype=torch.float64)
    targets = [torch.sin((i + 1) * x.sum(1, keepdim=True)) * 3**i for i in range(tasks)]
    return trunk, heads, x, targets


def losses_of(heads, features, targets):
    return [(head(features) - target).square().mean() for head, target in zip(heads, targets, strict=True)]


class ThreeMaps(nn.Module):
    """A shared part that three tensors leave, as of a top-down neck; the last layer is behind one of them."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(11, 3)
        self.double()

    def forward(self, x):
        early = self.first(x).tanh()
        middle = self.second(early).tanh()
        late = self.last(torch.cat((early, middle), 1)).tanh()
        return [tensor.view_as(tensor) for tensor in (early, middle, late)]


def three_maps():
    """ThreeMaps and three heads, a batch, and the function of (heads, maps) that gives the three losses."""
    torch.manual_seed(0)
    trunk, heads = ThreeMaps(), nn.ModuleList(nn.Linear(14, 1) for _ in range(3)).double()
    x = torch.randn(16, 4, dtype=torch.float64)

    def losses(heads, maps):
        outputs = (head(torch.cat(maps, 1)) for head in heads)
        targets = (torch.sin((i + 1) * x.sum(1, keepdim=True)) * 3**i for i in range(3))
        return [(a - b).square().mean() for a, b in zip(outputs, targets, strict=True)]

    return trunk, heads, x, losses


@pytest.mark.filterwarnings("ignore:GradNorm. `layer` is not behind")
@pytest.mark.parametrize("place", ["cut", "shared", "all as layer", "layer"])
def test_a_hundred_steps_are_the_papers_formula_written_out(place):
    # Algorithm 1 literally: G_i with a graph of its own, L_grad run back into w alone, Adam, renormalise.
    trunk, heads, x, losses_of_maps = three_maps()
    reference, reference_heads = copy.deepcopy(trunk), copy.deepcopy(heads)
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    adam, initial = torch.optim.Adam([w], lr=0.025), None
    network = torch.optim.SGD([*reference.parameters(), *reference_heads.parameters()], lr=0.01)
    ours, balancer = torch.optim.SGD([*trunk.parameters(), *heads.parameters()], lr=0.01), GradNorm([1.0] * 3)
    for _ in range(100):
        maps = reference(x)
        losses = torch.stack(losses_of_maps(reference_heads, maps))
        initial = losses.detach() if initial is None else initial
        W = {"cut": maps, "layer": [reference.last.weight]}.get(place, list(reference.parameters()))
        G = []
        for i in range(3):
            grads = torch.autograd.grad(w[i] * losses[i], W, create_graph=True)
            G.append(torch.cat([gradient.flatten() for gradient in grads]).square().sum().sqrt())
        G = torch.stack(G)
        rates = (losses / initial).detach()
        target = (G.mean() * (rates / rates.mean()) ** 1.5).detach()
        (w_gradient,) = torch.autograd.grad((G - target).abs().sum(), w, retain_graph=True)
        network.zero_grad()
        (w.detach() * losses).sum().backward()
        network.step()
        w.grad = w_gradient
        adam.step()
        with torch.no_grad():
            w.mul_(3 / w.sum())

        ours.zero_grad()
        maps = trunk(x)
        shared = list(trunk.parameters()) if place == "shared" else maps
        layer = {"layer": [trunk.last.weight], "all as layer": list(trunk.parameters())}.get(place, ())
        balancer.backward(losses_of_maps(heads, maps), shared, layer)
        ours.step()
        assert torch.allclose(balancer.weights, w, rtol=0, atol=1e-6)
    assert not torch.allclose(w, torch.ones_like(w), atol=0.1)  # they have moved
    for a, b in zip(trunk.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "bypassed"),
    [
        (lambda trunk: [trunk.last.weight, trunk.last.bias], "shared[0], shared[1]"),
        (lambda trunk: [trunk.second.weight], "shared[0]"),
        (lambda trunk: [trunk.first.weight], ""),
        (lambda trunk: list(trunk.parameters()), ""),
        (lambda trunk: [], ""),
    ],
)
def test_a_layer_that_a_shared_tensor_bypasses_is_named_once(layer, bypassed):
    trunk, heads, x, losses_of_maps = three_maps()
    balancer, fixed = GradNorm([1.0] * 3), FixedWeights([1.0] * 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for one in (fixed, balancer, balancer):  # fixed weights learn nothing from what they measure
            maps = trunk(x)
            one.backward(losses_of_maps(heads, maps), maps, layer(trunk))
    assert [str(one.message).split(", so")[0] for one in caught] == (
        [f"GradNorm: `layer` is not behind {bypassed}"] if bypassed else []
    )
    assert all(one.filename == __file__ for one in caught)


def test_a_shared_tensor_that_no_loss_uses_bypasses_nothing():
    trunk, heads, x, losses_of_maps = three_maps()
    early, *others = trunk(x)
    balancer, losses = GradNorm([1.0] * 3), losses_of_maps(heads, [early.detach(), *others])
    balancer.backward(losses, [early, *others], [trunk.second.weight])
    assert balancer.layer_checked


@pytest.mark.parametrize("kind", ["cut", "parameters", "compiled"])
def test_backward_gives_the_gradient_of_the_weighted_sum(kind):
    trunk, heads, x, targets = problem()
    balancer = GradNorm([0.5, 1.0, 1.5])
    parameters = [*trunk.parameters(), *heads.parameters()]
    sum(
        w * loss for w, loss in zip((0.5, 1.0, 1.5), losses_of(heads, trunk(x), targets), strict=True)
    ).backward()
    expected = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    through = torch.compile(trunk, backend="aot_eager") if kind == "compiled" else trunk
    features = through(x)
    shared = list(trunk.parameters()) if kind == "parameters" else [features]
    measured = balancer.backward(losses_of(heads, features, targets), shared, [trunk[2].weight])
    for p, gradient in zip(parameters, expected, strict=True):
        assert torch.allclose(p.grad, gradient, rtol=1e-10, atol=1e-12)
    # The norms are those of the unweighted losses.
    features = trunk(x)
    for loss, norm in zip(losses_of(heads, features, targets), measured.norms, strict=True):
        (alone,) = torch.autograd.grad(loss, trunk[2].weight, retain_graph=True)
        assert norm.item() == pytest.approx(alone.norm().item())


def test_gradients_accumulate_over_steps():
    trunk, heads, x, targets = problem()
    for _ in range(2):
        features = trunk(x)
        FixedWeights([1.0] * 3).backward(losses_of(heads, features, targets), [features])
    twice = [p.grad.clone() for p in trunk.parameters()]
    trunk.zero_grad()
    sum(losses_of(heads, trunk(x), targets)).backward()
    for gradient, p in zip(twice, trunk.parameters(), strict=True):
        assert torch.allclose(gradient, 2 * p.grad)


def test_a_way_around_the_cut_is_named():
    trunk, heads, x, targets = problem(2)
    middle = trunk[:2](x)
    features = trunk[2:](middle)
    losses = losses_of(heads, features, targets)
    losses[1] = losses[1] + middle.exp().mean()  # this task also reads what lies before the cut
    with pytest.raises(ValueError, match="name every tensor that leaves the shared part"):
        GradNorm([1.0, 1.0]).backward(losses, [features], [trunk[2].weight])


def test_tensors_of_the_cut_that_hang_on_each_other_are_named():
    trunk, heads, x, targets = problem(2)
    early = trunk[:2](x)
    late = trunk[2:](early)

    def losses(early, late):
        return [loss + early.square().mean() for loss in losses_of(heads, late, targets)]

    with pytest.raises(ValueError, match="view_as"):
        FixedWeights([1.0, 1.0]).backward(losses(early, late), [early, late])
    sum(losses(early, late)).backward(retain_graph=True)
    expected = [p.grad for p in trunk.parameters()]
    trunk.zero_grad()
    cut = [early.view_as(early), late.view_as(late)]
    FixedWeights([1.0, 1.0]).backward(losses(*cut), cut)
    for p, gradient in zip(trunk.parameters(), expected, strict=True):
        assert torch.allclose(p.grad, gradient)


def test_a_layer_that_is_not_shared_is_named():
    trunk, heads, x, targets = problem(2)
    features = trunk(x)
    with pytest.raises(ValueError, match="not behind the shared tensors"):
        GradNorm([1.0, 1.0]).backward(losses_of(heads, features, targets), [features], [heads[0].weight])
    with pytest.raises(ValueError, match="give it shared tensors"):
        GradNorm([1.0, 1.0]).backward(losses_of(heads, trunk(x).detach(), targets), [trunk(x).detach()])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_finite_norms_and_the_same_direction(dtype):
    trunk, heads, x, targets = problem(2)
    features = trunk(x)
    measured = GradNorm([1.0, 1.0]).backward(
        losses_of(heads, features, targets), [features], [trunk[2].weight]
    )
    trunk, heads = trunk.to(dtype), heads.to(dtype)
    features = trunk(x.to(dtype))
    losses = [loss.float() * 2000 for loss in losses_of(heads, features, [t.to(dtype) for t in targets])]
    halved = GradNorm([1.0, 1.0]).backward(losses, [features], [trunk[2].weight])
    # Squares of these gradients would overflow float16.
    assert halved.norms.isfinite().all()
    assert (halved.norms / 2000).tolist() == pytest.approx(measured.norms.tolist(), rel=0.05)


def sequence(balancer, start, steps):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(start + steps, 2, 3, generator=generator, dtype=torch.float64) + 0.1
    found = []
    for losses, norms in values[start:]:
        balancer.update(losses, norms)
        found.append(balancer.weights.tolist())
    return found


@pytest.mark.parametrize("at", [1, 2, 7])
def test_a_restart_from_a_state_dict_gives_the_same_sequence(at, tmp_path):
    def make():
        return GradNorm([1.0, 1.0, 1.0], initial_losses=4)

    whole = sequence(make(), 0, 20)
    first, second = make(), make()
    assert sequence(first, 0, at) == whole[:at]
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert sequence(second, at, 20 - at) == whole[at:]
    second.reset()
    assert sequence(second, 0, 20) == whole


def noisy(balancer, steps, generator):
    """The norms [steps, 2] by which `balancer` goes. Two tasks' expected gradients at 20 shared weights have
    the norm 1; the second task's gradient of each of 16 frames is with noise."""
    w, mean = torch.zeros(20, dtype=torch.float64, requires_grad=True), tensor(1, *[0] * 19)
    rows = []
    for _ in range(steps):
        noise = torch.randn(16, 20, generator=generator, dtype=torch.float64)
        each = [mean.expand(16, 20) @ w, (mean + noise) @ w]
        losses = [one.mean() + 1 for one in each]
        halves = [[one[half].mean() + 1 for one in each] for half in (slice(8), slice(8, None))]
        rows.append(balancer.backward(losses, [w], halves=halves).norms)
    return torch.stack(rows)


def test_unbiased_norms_are_without_the_noise():
    generator = torch.Generator().manual_seed(0)
    squares = noisy(GradNorm([1.0, 1.0], norms="unbiased"), 500, generator)[50:].square().mean(0)
    assert squares.tolist() == pytest.approx([1, 1], abs=0.1)
    squares = noisy(GradNorm([1.0, 1.0]), 500, generator).square().mean(0)
    assert squares.tolist() == pytest.approx([1, 1 + 20 / 16], rel=0.05)


def test_unbiased_norms_go_on_from_a_state_dict():
    whole = noisy(GradNorm([1.0, 1.0], norms="unbiased"), 80, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    first, second = (GradNorm([1.0, 1.0], norms="unbiased") for _ in range(2))
    assert torch.equal(noisy(first, 60, generator), whole[:60])
    second.load_state_dict(first.state_dict())
    assert torch.equal(noisy(second, 20, generator), whole[60:])


def test_a_mean_product_below_zero_leaves_the_step_out():
    balancer = GradNorm([1.0, 1.0], norms="unbiased")
    w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    halves = [[w.sum(), w.sum()], [-w.sum(), w.sum()]]
    assert balancer.backward([1 + w.sum(), 1 + w.sum()], [w], halves=halves).norms.tolist() == [0, 1]
    assert balancer.skipped == 1 and balancer.weights.tolist() == [1, 1]


def test_unbiased_norms_need_gradients_that_frames_have_in_common():
    trunk, heads, x, losses_of_maps = three_maps()
    losses = losses_of_maps(heads, maps := trunk(x))
    balancer, layer = GradNorm([1.0] * 3, norms="unbiased"), [trunk.first.weight]
    for given in ({"halves": [losses, losses]}, {"layer": layer}):
        with pytest.raises(ValueError, match=r"norms = 'unbiased': give `halves` their losses, and `layer`"):
            balancer.backward(losses, maps, **given)
    options = {"norms": "unbiased", "measure_at": "cut"}
    with pytest.raises(ValueError, match=r"measure_at 'cut' has none; take 'shared' or a layer"):
        Solution("x", balancer="gradnorm", options=options)
    with pytest.raises(ValueError, match=r"norms = 'split': take one of batch, unbiased"):
        GradNorm([1.0, 1.0], norms="split")


def test_initial_losses_by_mean_and_by_value():
    norms = tensor(1, 1)
    balancer = GradNorm([1.0, 1.0], initial_losses=2)
    balancer.update(tensor(4, 1), norms)
    balancer.update(tensor(2, 3), norms)
    assert balancer.initial_losses.tolist() == [3, 2] and balancer.weights.tolist() == [1, 1]
    # log 10 of ten classes: a task that starts at its loss of chance has not learnt yet.
    balancer = GradNorm([1.0, 1.0], initial_losses=[math.log(10), 1.0])
    assert balancer.inverse_training_rates(tensor(math.log(10), 0.5)).tolist() == pytest.approx(
        [4 / 3, 2 / 3]
    )
    for wrong in (0, [1.0], [1.0, 0.0]):
        with pytest.raises(ValueError, match="initial_losses"):
            GradNorm([1.0, 1.0], initial_losses=wrong)


@pytest.mark.parametrize("bounds", [(4.0, 0.0), (1.0, 1.0), (-1.0, 2.0), (math.nan, 2.0)])
def test_bounds_that_hold_no_weight_are_refused(bounds):
    with pytest.raises(ValueError, match="give the lowest weight, 0 or more, then the highest"):
        GradNorm([1.0, 1.0], bounds=bounds)


def test_alpha_zero_equalises_the_weighted_norms():
    balancer, norms = (
        GradNorm(tensor(1, 1, 1), alpha=0, learning_rate=0.005),
        tensor(4, 1, 2),
    )
    for i in range(2000):
        balancer.update(tensor(1, 1 / (i + 1), 3), norms)  # how fast they learn must not matter
    # w n equal and sum w = 3: w proportional to (1/4, 1, 1/2), so (3/7, 12/7, 6/7).
    assert balancer.weights.tolist() == pytest.approx([3 / 7, 12 / 7, 6 / 7], abs=0.02)


def test_weights_sum_to_the_number_of_tasks_and_stay_positive():
    generator = torch.Generator().manual_seed(0)
    balancer = GradNorm(tensor(1, 1, 1, 1), learning_rate=0.3)
    for _ in range(200):
        balancer.update(*(torch.rand(2, 4, generator=generator) * 10 + 1e-3))
        assert balancer.weights.sum().item() == pytest.approx(4)
        assert (balancer.weights > 0).all()


def test_permuting_the_tasks_permutes_the_weights():
    order, generator = [2, 0, 1], torch.Generator().manual_seed(0)
    straight, permuted = GradNorm(tensor(1, 1, 1)), GradNorm(tensor(1, 1, 1))
    for _ in range(20):
        losses, norms = torch.rand(2, 3, generator=generator) + 0.1
        straight.update(losses, norms)
        permuted.update(losses[order], norms[order])
    assert permuted.weights.tolist() == pytest.approx(straight.weights[order].tolist())


def test_nothing_of_it_reaches_the_network():
    v = torch.tensor(2.0, requires_grad=True)
    norm = (v * 3).abs()  # still on the network's graph
    balancer = GradNorm(tensor(1, 1))
    balancer.update(torch.stack((v**2, v)), torch.stack((norm, 2 * norm)))
    assert v.grad is None
    assert not balancer.weights.requires_grad and balancer.weights.tolist() != [1, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_a_step_that_says_nothing_is_left_out(bad):
    balancer, undisturbed = GradNorm(tensor(1, 1)), GradNorm(tensor(1, 1))
    for losses in ((2, 3), (1, 2)):
        balancer.update(tensor(*losses), tensor(1, 2))
        undisturbed.update(tensor(*losses), tensor(1, 2))
        # What is not finite is said; a batch in which a task has nothing to learn from is no news.
        said = nullcontext() if bad == 0 else pytest.warns(RuntimeWarning, match="task 0 is not finite")
        with said:
            balancer.update(tensor(bad, 3), tensor(1, 2))
    assert balancer.weights.tolist() == undisturbed.weights.tolist() and balancer.skipped == 2


def test_the_reported_settings_let_a_weight_reach_zero_and_four():
    balancer = balancer_for(SOLUTIONS["gradnorm-reported"], Training(weights_learning_rate=0.1))
    assert balancer.weights.tolist() == [1, 0.01]
    for i in range(200):
        balancer.update(tensor(math.exp(-i / 5), 1), tensor(1, 0.01))  # the second learns nothing
    assert balancer.weights.tolist() == pytest.approx([0, 4], abs=0.11)


def test_fixed_weights_stay():
    balancer = balancer_for(SOLUTIONS["baseline"], Training())
    assert isinstance(balancer, FixedWeights)
    balancer.update(tensor(1, 2), tensor(3, 4))
    assert balancer.weights.tolist() == [1, 1]


def test_the_change_to_a_training_loop_in_the_readme_works():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    change = readme.split("```diff\n")[1].split("```")[0]
    code = "\n".join(line[1:] for line in change.splitlines() if not line.startswith("-"))
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 8))
    classify, estimate = nn.Linear(8, 3), nn.Linear(8, 1)
    parameters = [p for part in (trunk, classify, estimate) for p in part.parameters()]
    batch = torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]), torch.randn(4, 1)
    names = {
        "trunk": trunk,
        "classify": classify,
        "estimate": estimate,
        "loader": [batch] * 20,
        "optimizer": torch.optim.SGD(parameters, 0.05),
        "cross_entropy": nn.functional.cross_entropy,
        "l1_loss": nn.functional.l1_loss,
    }
    before = [p.detach().clone() for p in parameters]
    exec(code, names)
    assert names["gradnorm"].weights.sum().item() == pytest.approx(2)
    assert names["gradnorm"].weights.tolist() != [1, 1]
    assert all(not torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
