"""How the tasks' losses are weighted: fixed weights, or GradNorm. For any torch model.

    gradnorm = GradNorm([1.0, 1.0])
    for batch in loader:
        features = trunk(images)
        losses = [criterion(head(features), target) ...]
        gradnorm.backward(losses, [features], [trunk[-1].weight])    # instead of sum(losses).backward()
        optimizer.step()
        optimizer.zero_grad()

T tasks, in the order of their losses.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed

from gradlib.balance.gradients import TaskGradients, accumulate, mean_over_processes, weighted_sum

__all__ = ["Balancer", "FixedWeights", "GradNorm", "Measured"]


@dataclass(frozen=True)
class Measured:
    """What a backward found.

    losses, weights: [T], the weights being those that this step used. norms: [T], lengths of the unweighted
    gradients at the layer asked for, or None. probed: each task's unweighted gradients at the parameters
    asked for, [T] lists, or empty.
    """

    losses: Tensor
    weights: Tensor
    norms: Tensor | None = None
    probed: list[list[Tensor]] = field(default_factory=list)


class Balancer:
    """Weights of T losses, and the step in which they are used; what they learn is the subclass's."""

    needs_layer = False  # whether the weights learn from the gradients' norms
    needs_jacobian = False  # whether every task's gradient is wanted at all shared parameters, in every step
    process_group: distributed.ProcessGroup | None = None  # whose processes each have a part of the batch

    def __init__(self, weights: Sequence[float]):
        self.start = torch.as_tensor(weights, dtype=torch.float64).detach().clone()
        self.weights = self.start.clone()

    def backward(
        self,
        losses: Sequence[Tensor],
        shared: Sequence[Tensor],
        layer: Sequence[Tensor] = (),
        probe: Sequence[Tensor] = (),
    ) -> Measured:
        """Add the gradient of the balanced losses to every `.grad`, as `sum(losses).backward()` would, and
        let the weights learn for the next step.

        losses: T scalars. shared: the tensors that leave the shared part, all of them, from one forward
        pass; or the shared parameters themselves, where those tensors cannot be had (dearer). layer: the
        parameters at which gradients are measured, usually the weight of the last shared layer. probe: all
        the shared parameters, to have each task's gradient at them, for one pass more through the shared
        part. Compile the shared part and the heads apart: in one compiled graph there is no cut.
        """
        if self.needs_layer and not layer:
            name = type(self).__name__
            raise ValueError(f"{name} measures gradients: give backward() the `layer`, as [trunk[-1].weight]")
        gradients = TaskGradients.of(losses, shared)
        values = torch.stack([loss.detach() for loss in losses])
        values = mean_over_processes([values], self.process_group)[0].cpu().double()
        norms = gradients.norms(layer, self.process_group).double() if layer else None
        weights = self.weigh(values)
        gradients.accumulate_own(weights.tolist())
        parameters = list(probe) or (gradients.shared_parameters() if self.needs_jacobian else [])
        per_task = gradients.at(parameters) if parameters else []
        if parameters:
            accumulate(parameters, self.combine(per_task, weights.tolist()))
        else:
            gradients.backward_shared(weights.tolist())
        self.update(values, norms)
        return Measured(values, weights, norms, per_task if probe else [])

    def weigh(self, losses: Tensor) -> Tensor:
        """The weights [T] of a step with these losses [T]."""
        return self.weights.clone()

    def combine(self, gradients: Sequence[Sequence[Tensor]], weights: Sequence[float]) -> list[Tensor]:
        """The gradient of the shared parameters from each task's unweighted one, [T] lists."""
        return weighted_sum(gradients, weights)

    def update(self, losses: Tensor, norms: Tensor | None) -> None:
        """Learn from a step. losses, norms: [T]."""

    def after_step(self, losses: Callable[[], Tensor]) -> None:
        """To be called after the optimizer's step; `losses()` gives the same batch's losses [T] anew."""

    def after_epoch(self) -> None:
        """To be called after every epoch."""

    def reset(self) -> None:
        """Back to the start."""
        self.weights = self.start.clone()

    def state_dict(self) -> dict:
        """All that a later `load_state_dict` needs to go on as if nothing had happened."""
        return {"weights": self.weights.clone()}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state_dict()` of a balancer made with the same settings."""
        self.weights.copy_(state["weights"])


class FixedWeights(Balancer):
    """The same weights throughout."""


class GradNorm(Balancer):
    """GradNorm (Chen et al. 2018, ICML, algorithm 1 and eq. 2).

        L_grad(w) = sum_i | w_i n_i - mean_j(w_j n_j) * r_i^alpha |

    weights: [T], the start. n_i: norm of the gradient of task i's *unweighted* loss at `layer`, so that
    w_i n_i is the paper's G_i. r_i = L~_i / mean_j L~_j with L~_i = L_i(t) / L_i(0): the *inverse* training
    rate, larger for the slower task, which therefore gains weight. alpha: how strongly; 0 asks for
    equal norms.

    The target mean(w n) r^alpha counts as a constant, so dL_grad/dw_i = n_i sign(w_i n_i - target_i):
    closed, with no second-order graph, and nothing of it reaches the network.

    learning_rate, optimizer: of the weights; the paper takes Adam at 0.025.
    initial_losses: where L_i(0) comes from: so many first steps, whose losses are averaged and in which the
        weights rest (the paper: the first step), or the T values themselves (as log C for a cross-entropy of
        C classes, where a first step says little).
    bounds: lowest and highest weight.
    renormalise: scale the weights to sum to T after each update, as published.
    process_group: of `torch.distributed`, whose processes each have a part of the batch: losses and gradients
        at `layer` are averaged over them, so that all have the weights that one process with the whole batch
        would have. Averaging the parameters' `.grad` is left to the training loop, as without GradNorm.

    A step whose losses or norms are not all finite and positive is left out, and counted in `skipped`: it
    says nothing about how fast a task learns, and one such step would stay in Adam's moments. One that is
    not finite is also warned of.
    """

    needs_layer = True

    def __init__(
        self,
        weights: Sequence[float],
        *,
        alpha: float = 1.5,
        learning_rate: float = 0.025,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        initial_losses: int | Sequence[float] = 1,
        bounds: tuple[float, float] = (1e-3, math.inf),
        renormalise: bool = True,
        process_group: distributed.ProcessGroup | None = None,
    ):
        super().__init__(weights)
        counted = isinstance(initial_losses, int)
        if counted and initial_losses < 1:
            raise ValueError(
                f"initial_losses = {initial_losses}: take 1 step or more, or {len(self.start)} values"
            )
        if not counted and (len(initial_losses) != len(self.start) or min(initial_losses) <= 0):
            raise ValueError(
                f"initial_losses = {initial_losses}: give each of {len(self.start)} tasks a positive value"
            )
        self.alpha, self.bounds, self.renormalise = alpha, bounds, renormalise
        self.process_group = process_group
        self._initial_losses, self._optimizer_of = initial_losses, lambda w: optimizer([w], lr=learning_rate)
        self.reset()

    def reset(self) -> None:
        """Back to the start: weights, initial losses, the optimizer's memory."""
        super().reset()
        self._optimizer = self._optimizer_of(self.weights)
        self.skipped = 0
        if isinstance(self._initial_losses, int):
            self.wanted = self._initial_losses  # steps still to be averaged
            self.initial_losses = torch.zeros_like(self.weights)
        else:
            self.wanted = 0
            self.initial_losses = torch.tensor(self._initial_losses, dtype=torch.float64)

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
        """One step of the weights, after their use. losses, norms: [T]."""
        losses, norms = (v.detach().cpu().double() for v in (losses, norms))
        if not all((v.isfinite() & (v > 0)).all() for v in (losses, norms)):
            self.skipped += 1
            if not (losses + norms).isfinite().all():
                bad = ", ".join(str(i) for i in (~(losses + norms).isfinite()).nonzero().flatten().tolist())
                warnings.warn(
                    f"GradNorm: loss or gradient of task {bad} is not finite; the weights rest for this step",
                    RuntimeWarning,
                    stacklevel=3,
                )
            return
        if self.wanted:
            first = self._initial_losses
            self.initial_losses += losses / first
            self.wanted -= 1
            if self.wanted or first > 1:
                return
        self.weights.grad = self.gradient(losses, norms)
        self._optimizer.step()
        self.weights.clamp_(*self.bounds)
        if self.renormalise:
            self.weights.mul_(len(self.weights) / self.weights.sum())

    def state_dict(self) -> dict:
        """Weights, initial losses, the optimizer's memory, and the steps left out."""
        return {
            **super().state_dict(),
            "initial_losses": self.initial_losses.clone(),
            "wanted": self.wanted,
            "skipped": self.skipped,
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state_dict()` of a GradNorm made with the same settings."""
        super().load_state_dict(state)
        self.initial_losses.copy_(state["initial_losses"])
        self.wanted, self.skipped = state["wanted"], state["skipped"]
        self._optimizer.load_state_dict(state["optimizer"])
