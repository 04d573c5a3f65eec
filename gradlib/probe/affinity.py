"""Harm measured as loss, not angle: what a step along one task's gradient does to the other's loss."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


def affinity(
    losses: Callable[[Mapping[str, Tensor]], Tensor],
    parameters: Mapping[str, Tensor],
    gradients: Sequence[Sequence[Tensor]],
    step: float,
) -> Tensor:
    """The affinity of each of T tasks for each (Fifty et al. 2021, TAG, equation 3): [T, T], in row i and
    column j the relative fall 1 - L_j(after) / L_j(before) of loss j by a `step` along task i's gradient.

    losses: gives the losses [T] at any values of the shared `parameters`; take frames that did not give the
    gradients, else it is their fit that shows. gradients: [T] lists, of the parameters in order. Below 0 the
    step harms. Costs T + 1 forward passes.
    """
    with torch.no_grad():
        before = losses(parameters)
        rows = []
        for own in gradients:
            moved = zip(parameters.items(), own, strict=True)
            rows.append(1 - losses({name: p - step * g for (name, p), g in moved}) / before)
        return torch.stack(rows)
