"""How the tasks' losses are weighted: fixed weights, or GradNorm.

A balancer holds `weights` (one a task) and is told after each step the losses and the norms of the
tasks' gradients at the last shared layer. T tasks.
"""

import math

import torch
from torch import Tensor

from gradlib.config import Solution, Training

__all__ = ["FixedWeights", "GradNorm", "balancer_for"]


class FixedWeights:
    """The same weights throughout."""

    def __init__(self, weights: Tensor):
        self.weights = weights.detach().clone()

    def update(self, losses: Tensor, norms: Tensor) -> None:
        """Nothing to learn."""


class GradNorm:
    """GradNorm (Chen et al. 2018, ICML, algorithm 1 and eq. 2).

        L_grad(w) = sum_i | w_i n_i - mean_j(w_j n_j) * r_i^alpha |

    weights: [T], the start. n_i: norm of the gradient of task i's *unweighted* loss at the last shared
    layer, so that w_i n_i is the paper's G_i. r_i = L~_i / mean_j L~_j with L~_i = L_i(t) / L_i(0): the
    *inverse* training rate, larger for the slower task, which therefore gains weight. alpha: how
    strongly; 0 asks for equal norms.

    The target mean(w n) r^alpha counts as a constant, so dL_grad/dw_i = n_i sign(w_i n_i - target_i):
    closed, with no second-order graph, and nothing of it reaches the network.

    weights_learning_rate: Adam's step for the weights. bounds: lowest and highest weight.
    renormalise: scale the weights to sum to T after each step, as published.

    A step whose losses or norms are not all finite and positive is left out: it says nothing about
    how fast a task learns, and one such step would stay in Adam's moments.
    """

    def __init__(
        self,
        weights: Tensor,
        *,
        alpha: float = 1.5,
        weights_learning_rate: float = 0.025,
        bounds: tuple[float, float] = (1e-3, math.inf),
        renormalise: bool = True,
    ):
        self.weights = weights.detach().clone().double()
        self.alpha, self.bounds, self.renormalise = alpha, bounds, renormalise
        self.initial_losses: Tensor | None = None  # [T], L_i(0)
        self._optimizer = torch.optim.Adam([self.weights], lr=weights_learning_rate)

    def inverse_training_rates(self, losses: Tensor) -> Tensor:
        """r_i [T], with mean 1: above 1 for a task whose loss has fallen less than the others'."""
        relative = losses / self.initial_losses
        return relative / relative.mean()

    def gradient(self, losses: Tensor, norms: Tensor) -> Tensor:
        """dL_grad/dw [T] at the present weights."""
        weighted = self.weights * norms
        target = weighted.mean() * self.inverse_training_rates(losses) ** self.alpha
        return norms * torch.sign(weighted - target)

    def update(self, losses: Tensor, norms: Tensor) -> None:
        """One step of the weights, after a step of the network. losses, norms: [T]."""
        losses, norms = (v.detach().cpu().double() for v in (losses, norms))
        if not all((v.isfinite() & (v > 0)).all() for v in (losses, norms)):
            return
        if self.initial_losses is None:
            self.initial_losses = losses.clone()
        self.weights.grad = self.gradient(losses, norms)
        self._optimizer.step()
        self.weights.clamp_(*self.bounds)
        if self.renormalise:
            self.weights.mul_(len(self.weights) / self.weights.sum())


def balancer_for(solution: Solution, training: Training) -> FixedWeights | GradNorm:
    """The balancer that a solution asks for, at its start weights."""
    weights = torch.tensor(solution.weights, dtype=torch.float64)
    if solution.balancer == "fixed":
        return FixedWeights(weights)
    return GradNorm(
        weights,
        alpha=training.alpha,
        weights_learning_rate=training.weights_learning_rate,
        bounds=solution.bounds,
        renormalise=solution.renormalise,
    )
