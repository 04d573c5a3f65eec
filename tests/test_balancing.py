import math

import pytest
import torch

from gradlib.balancing import FixedWeights, GradNorm, balancer_for
from gradlib.config import SOLUTIONS, Training


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_two_scalar_tasks_on_one_weight_by_hand():
    # One shared weight v = 2; L1 = v^2 = 4 with gradient 2v = 4; L2 = 3v = 6 with gradient 3.
    v = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    losses = [v**2, 3 * v]
    norms = torch.stack([torch.autograd.grad(loss, v)[0].abs() for loss in losses])
    balancer = GradNorm(tensor(1, 1), alpha=1, weights_learning_rate=0.025)
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


def test_the_slower_task_gains():
    balancer = GradNorm(tensor(1, 1), alpha=1.5)
    for i in range(100):
        fast, slow = math.exp(-i / 20), math.exp(-i / 200)
        balancer.update(tensor(fast, slow), tensor(1, 1))
    assert balancer.weights[1] > 1.2 > 0.8 > balancer.weights[0]


def test_alpha_zero_equalises_the_weighted_norms():
    balancer, norms = (
        GradNorm(tensor(1, 1, 1), alpha=0, weights_learning_rate=0.005),
        tensor(4, 1, 2),
    )
    for i in range(2000):
        balancer.update(tensor(1, 1 / (i + 1), 3), norms)  # how fast they learn must not matter
    # w n equal and sum w = 3: w proportional to (1/4, 1, 1/2), so (3/7, 12/7, 6/7).
    assert balancer.weights.tolist() == pytest.approx([3 / 7, 12 / 7, 6 / 7], abs=0.02)


def test_weights_sum_to_the_number_of_tasks_and_stay_positive():
    generator = torch.Generator().manual_seed(0)
    balancer = GradNorm(tensor(1, 1, 1, 1), weights_learning_rate=0.3)
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
    for losses in ((2, 3), (bad, 3), (1, 2)):
        balancer.update(tensor(*losses), tensor(1, 2))
        if bad not in losses and not math.isnan(losses[0]):
            undisturbed.update(tensor(*losses), tensor(1, 2))
    assert balancer.weights.tolist() == undisturbed.weights.tolist()


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
