"""The tasks' gradients on two disjoint halves of a batch: what tells a signal from noise.

The gradient of a batch is the expected gradient and noise, mostly noise. Two halves A and B share no frame,
so what their gradients have in common is the expected gradient. Of T tasks' gradients on A and B only inner
products are kept; `evidence.interference` makes of them what the tasks do to each other.

    split = SplitGradients(trunk.parameters())
    split.add([losses_a, losses_b])      # before the step's own backward pass
    split.products(["one", "other"])
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from gradlib.balance.gradients import gradients_at


class SplitGradients:
    """The gradients of T tasks at shared `parameters` on the halves A and B, mean over the batches added.

    Several batches are added up before the inner products are taken: noise falls with their number, and an
    inner product's noise twice as fast.

    gradients: [2 T] lists, those of A first.
    """

    def __init__(self, parameters: Iterable[Tensor]):
        self.parameters = list(parameters)
        self.gradients: list[list[Tensor]] = []
        self.batches = 0

    def add(self, losses: Sequence[Sequence[Tensor]]) -> None:
        """Add a batch: the losses of its two halves, [2][T] scalars, whose graph is kept.

        Costs 2 T backward passes. Both halves go through the network as one batch, as in training: where it
        normalises over the batch, each half's gradient depends a little on the frames of the other.
        """
        self.batches += 1
        new = [gradients_at(loss, self.parameters) for half in losses for loss in half]
        means = zip(self.gradients or new, new, strict=True)
        self.gradients = [torch._foreach_lerp(mean, own, 1 / self.batches) for mean, own in means]

    def products(self, tasks: Sequence[str], places: Sequence[int] | None = None) -> dict[str, float]:
        """The inner products at the parameters in these `places` (default: all), by name.

        `signal_<task>`: of a task on A with itself on B, an unbiased estimate of the square of its expected
        gradient's norm. `square_<task>`: of a task with itself on the same half, mean of both halves: signal
        and noise. `cross_<task>_<task>`: of two tasks on different halves, mean of both ways;
        `same_<task>_<task>`: on the same half, which adds what the two owe to the same frames.
        """
        chosen = range(len(self.parameters)) if places is None else places
        rows = [torch.cat([own[place].flatten().float() for place in chosen]) for own in self.gradients]
        gram = (stacked := torch.stack(rows)) @ stacked.T  # [2 T, 2 T]
        a, b, count = gram[: len(tasks)], gram[len(tasks) :], len(tasks)
        cross, same = (a[:, count:] + b[:, :count]) / 2, (a[:, :count] + b[:, count:]) / 2
        cross, same = cross.tolist(), same.tolist()
        found = {f"signal_{task}": cross[i][i] for i, task in enumerate(tasks)}
        found |= {f"square_{task}": same[i][i] for i, task in enumerate(tasks)}
        for (i, one), (j, other) in combinations(enumerate(tasks), 2):
            found |= {f"cross_{one}_{other}": cross[i][j], f"same_{one}_{other}": same[i][j]}
        return found
