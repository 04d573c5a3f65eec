"""GradNorm: weights that learn from the tasks' gradient norms and from how fast their losses fall.

gradnorm = GradNorm([1.0, 1.0])
for batch in loader:
    features = trunk(images)
    losses = [criterion(head(features), target) ...]
    gradnorm.backward(losses, [features], [trunk[-1].weight])    # instead of sum(losses).backward()
    optimizer.step()
    optimizer.zero_grad()
"""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, distributed

from gradlib.balance.balancer import Balancer, Measured
from gradlib.balance.gradients import TaskGradients, gradients_at, mean_over_processes

NORMS = ("batch", "unbiased")
PRODUCTS_AVERAGED = 50  # steps that a running mean of inner products remembers


class GradNorm(Balancer):
    """GradNorm (Chen et al. 2018, ICML, algorithm 1 and eq. 2).

        L_grad(w) = sum_i | w_i n_i - mean_j(w_j n_j) * r_i^alpha |

    weights: [T], at the start. n_i: norm of the gradient of task i's *unweighted* loss, so that w_i n_i is
    the paper's G_i; at `layer` (the paper's W, the last shared layer), or without one at the tensors that
    leave the shared part. A layer that some of these bypass sees a part of the gradients: a warning says so,
    once. r_i = L~_i / mean_j L~_j with L~_i = L_i(t) / L_i(0): the *inverse* training rate, larger for the
    slower task, which therefore gains weight. alpha: how strongly; with 0 the weighted norms become equal.

    The target mean(w n) r^alpha counts as a constant, so dL_grad/dw_i = n_i sign(w_i n_i - target_i): closed
    form, no second-order graph, and no gradient of it reaches the network.

    learning_rate, optimizer: of the weights; the paper takes Adam at 0.025.
    initial_losses: L_i(0) is the mean over this many first steps, during which the weights rest (the paper:
        1); or the T values themselves (as log C for a cross-entropy of C classes, where a first step says
        little).
    norms: of the gradients of each `batch`, as published; or `unbiased`. A batch's gradient is the expected
        one and noise, |g|^2 = |mu|^2 + |noise|^2, and the noisier task passes for the stronger one. Gradients
        of two halves of a batch have independent noise, so their inner product has the mean |mu|^2 alone:
        n_i is the root of its running mean over about 50 steps. Costs 2 T more passes to where it measures.
        Where layers normalise over the batch, halves depend a little on each other's frames.
    bounds: lowest and highest weight.
    renormalise: scale the weights to sum to T after each update, as published.
    process_group: of `torch.distributed`; each of its processes has an equal part of the batch. Losses and
        norms are those of the whole batch, so that all have the weights of one process with all of it.
        Averaging the parameters' `.grad` stays the training loop's task, as without GradNorm.

    A step whose losses or norms are not all finite and positive is skipped and counted in `skipped`: it does
    not say how fast a task learns, and would stay in Adam's moments. If one is not finite, a warning says so.
    """

    needs_norms = True

    def __init__(
        self,
        weights: Sequence[float],
        *,
        alpha: float = 1.5,
        learning_rate: float = 0.025,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        initial_losses: int | Sequence[float] = 1,
        norms: str = "batch",
        bounds: tuple[float, float] = (1e-3, math.inf),
        renormalise: bool = True,
        process_group: distributed.ProcessGroup | None = None,
    ):
        super().__init__(weights)
        tasks, text = len(self.start), f"initial_losses = {initial_losses}"
        if isinstance(initial_losses, int):
            if initial_losses < 1:
                raise ValueError(f"{text}: take 1 step or more, or {tasks} values")
        elif len(initial_losses) != tasks or min(initial_losses) <= 0:
            raise ValueError(f"{text}: give each of {tasks} tasks a positive value")
        if norms not in NORMS:
            raise ValueError(f"norms = {norms!r}: take one of {', '.join(NORMS)}")
        if not 0 <= bounds[0] < bounds[1]:
            raise ValueError(f"bounds = {bounds}: give the lowest weight, 0 or more, then the highest")
        self.alpha, self.bounds, self.renormalise = alpha, bounds, renormalise
        self.process_group, self.needs_halves = process_group, norms == "unbiased"
        self._initial_losses, self._make_optimizer = initial_losses, partial(optimizer, lr=learning_rate)
        self.reset()

    def reset(self) -> None:
        """Return to the start weights; forget the initial losses and the optimizer's moments."""
        super().reset()
        self._optimizer = self._make_optimizer([self.weights])
        self.skipped = self.averaged = 0
        self.products = torch.zeros_like(self.weights)
        if isinstance(self._initial_losses, int):
            self.steps_to_average = self._initial_losses
            self.initial_losses = torch.zeros_like(self.weights)
        else:
            self.steps_to_average = 0
            self.initial_losses = torch.tensor(self._initial_losses, dtype=torch.float64)

    def backward(self, losses, shared, layer=(), halves: Sequence[Sequence[Tensor]] = ()) -> Measured:
        """As `Balancer.backward`. halves: [2][T] losses of two halves of the batch, for `unbiased` norms."""
        if self.needs_halves:
            self._average_products(halves, layer or shared)  # before their graph is freed
        return super().backward(losses, shared, layer)

    def _average_products(self, halves: Sequence[Sequence[Tensor]], measure_at: Sequence[Tensor]) -> None:
        # At tensors of the cut each frame has a gradient of its own, and halves have none in common.
        if len(halves) != 2 or not all(tensor.is_leaf for tensor in measure_at):
            text = "give `halves` their losses, and `layer` or the shared parameters to measure at"
            raise ValueError(f"norms = 'unbiased': {text}")
        products = []
        for pair in zip(*halves, strict=True):
            own = (mean_over_processes(gradients_at(loss, measure_at), self.process_group) for loss in pair)
            products.append(sum((a.float() * b.float()).sum() for a, b in zip(*own, strict=True)).cpu())
        if (found := torch.stack(products).double()).isfinite().all():
            self.averaged += 1
            self.products.lerp_(found, 1 / min(self.averaged, PRODUCTS_AVERAGED))

    def norms(self, gradients: TaskGradients, measure_at: Sequence[Tensor]) -> Tensor:
        """The norms [T] by which the weights learn; 0 where noise alone is seen."""
        if self.needs_halves:
            return self.products.clamp(min=0).sqrt().float().to(measure_at[0].device)
        return super().norms(gradients, measure_at)

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
        """Let the weights take one step, after they were used. losses, norms: [T]."""
        # The weights live on the CPU, where their step costs least; this is all that they wait for.
        losses, norms = torch.cat((losses, norms)).detach().cpu().double().chunk(2)
        if not all((v.isfinite() & (v > 0)).all() for v in (losses, norms)):
            self.skipped += 1
            if not (losses + norms).isfinite().all():
                bad = ", ".join(map(str, (~(losses + norms).isfinite()).nonzero().flatten().tolist()))
                warnings.warn(
                    f"GradNorm: loss or gradient of task {bad} is not finite; the weights rest for this step",
                    RuntimeWarning,
                    stacklevel=3,
                )
            return
        if self.steps_to_average:
            self.initial_losses += losses / self._initial_losses
            self.steps_to_average -= 1
            if self.steps_to_average or self._initial_losses > 1:
                return
        self.weights.grad = self.gradient(losses, norms)
        self._optimizer.step()
        self.weights.clamp_(*self.bounds)
        if self.renormalise:
            self.weights.mul_(len(self.weights) / self.weights.sum())

    def state_dict(self) -> dict:
        """Weights, initial losses, the optimizer's moments, and the number of skipped steps."""
        return {
            **super().state_dict(),
            "initial_losses": self.initial_losses.clone(),
            "steps_to_average": self.steps_to_average,
            "skipped": self.skipped,
            "averaged": self.averaged,
            "products": self.products.clone(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from the `state_dict()` of a GradNorm with the same settings."""
        super().load_state_dict(state)
        self.initial_losses.copy_(state["initial_losses"])
        self.products.copy_(state["products"])
        for name in ("steps_to_average", "skipped", "averaged"):
            setattr(self, name, state[name])
        self._optimizer.load_state_dict(state["optimizer"])
