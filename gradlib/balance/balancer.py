"""The step in which T losses are weighted, the same for every method; and fixed weights.

A subclass says how the weights learn: see `gradnorm` and `torchjd`. T tasks, in the order of their losses.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from gradlib.balance.gradients import TaskGradients, accumulate, mean_over_processes, weighted_sum


@dataclass(frozen=True)
class Measured:
    """The measurements of `Balancer.backward`.

    losses: [T]. weights: [T], those of this step, on the CPU. norms: [T], of the unweighted gradients at
    `layer` or `shared`; None where nothing is shared. Losses and norms stay on their device.
    """

    losses: Tensor
    weights: Tensor
    norms: Tensor | None = None


class Balancer:
    """Weights [T] of T losses, and the backward pass that uses them."""

    needs_norms = False  # the weights learn from the gradients' norms
    needs_halves = False  # `backward` takes the losses of the two halves of a batch, too
    needs_jacobian = False  # every step needs each task's gradient at all shared parameters
    process_group: distributed.ProcessGroup | None = None  # its processes have a part of the batch each
    layer_checked = False  # `backward` looks once whether gradients pass by the layer, and warns

    def __init__(self, weights: Sequence[float]):
        self.start = torch.as_tensor(weights, dtype=torch.float64).detach().clone()
        self.weights = self.start.clone()

    def backward(
        self, losses: Sequence[Tensor], shared: Sequence[Tensor], layer: Sequence[Tensor] = ()
    ) -> Measured:
        """Add the gradient of the weighted losses to every `.grad`, as `sum(losses).backward()` would, and
        let the weights learn for the next step.

        losses: T scalars.
        shared: all the tensors that leave the shared part, from one forward pass; or the shared parameters
            themselves, where those tensors cannot be had (slower).
        layer: the parameters at which the gradients' norms are measured, as the weight of the last shared
            layer; without them, at `shared`.

        Compile the shared part and the heads separately: one compiled graph has no cut between them.
        """
        gradients = TaskGradients.of(losses, shared)
        measure_at = layer or gradients.shared
        if self.needs_norms and not measure_at:
            name = type(self).__name__
            raise ValueError(f"{name} measures gradients, and none reaches `shared`: give it shared tensors")
        values = torch.stack([loss.detach() for loss in losses])
        values = mean_over_processes([values], self.process_group)[0]
        norms = self.norms(gradients, measure_at) if measure_at else None
        if self.needs_norms and layer and not self.layer_checked:
            self._warn_of_bypassed(gradients.bypassing(losses, layer))
        weights = self.weigh(values)
        gradients.accumulate_own(weights.tolist())
        if self.needs_jacobian and (parameters := gradients.shared_parameters()):
            accumulate(parameters, self.combine(gradients.at(parameters), weights.tolist()))
        else:
            gradients.backward_shared(weights.tolist())
        self.update(values, norms)
        return Measured(values, weights, norms)

    def _warn_of_bypassed(self, bypassing: list[int]) -> None:
        self.layer_checked = True
        if bypassing:
            places = ", ".join(f"shared[{place}]" for place in bypassing)
            warnings.warn(
                f"{type(self).__name__}: `layer` is not behind {places}, so its norms miss the gradients "
                "that pass there; measure at the cut (give no layer) or at all shared weights instead",
                stacklevel=4,
            )

    def norms(self, gradients: TaskGradients, measure_at: Sequence[Tensor]) -> Tensor:
        """The norms [T] of the tasks' gradients, by which this balancer goes."""
        return gradients.norms(measure_at, self.process_group)

    def weigh(self, losses: Tensor) -> Tensor:
        """The weights [T] of a step with these losses [T]."""
        return self.weights.clone()

    def combine(self, gradients: Sequence[Sequence[Tensor]], weights: Sequence[float]) -> list[Tensor]:
        """The gradient of the shared parameters from each task's unweighted one, [T] lists."""
        return weighted_sum(gradients, weights)

    def update(self, losses: Tensor, norms: Tensor | None) -> None:
        """Learn from a step. losses, norms: [T]."""

    def after_step(self, losses: Callable[[], Tensor]) -> None:
        """Call this after the optimizer's step; `losses()` computes the same batch's losses [T] again."""

    def after_epoch(self) -> None:
        """Call this after every epoch."""

    def reset(self) -> None:
        """Return to the start weights."""
        self.weights = self.start.clone()

    def state_dict(self) -> dict:
        """The state from which `load_state_dict` goes on: tensors and plain values."""
        return {"weights": self.weights.clone()}

    def load_state_dict(self, state: dict) -> None:
        """Go on from the `state_dict()` of a balancer with the same settings."""
        self.weights.copy_(state["weights"])


class FixedWeights(Balancer):
    """Weights that stay as they are."""
