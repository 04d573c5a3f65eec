"""The optimizer of a run, its learning rates, its balancer, and the moving average of the weights."""

import copy
import math

import torch
from torch import nn

from gradlib.balance.balancer import Balancer, FixedWeights
from gradlib.balance.gradnorm import GradNorm
from gradlib.balance.torchjd import from_torchjd
from gradlib.config import Solution, Training
from gradlib.model.yolo import MultiTaskYOLO


def optimizer_for(model: MultiTaskYOLO, training: Training) -> torch.optim.AdamW:
    """AdamW with a learning rate for the shared part and for each task's own, and weight decay on the
    weights of convolutions and linear layers only."""
    groups = []
    for name in ("shared", *model.tasks):
        parameters = list(model.shared_parameters() if name == "shared" else model.task_parameters(name))
        rate = training.learning_rate_classification if name == "classification" else training.learning_rate
        for decay, decayed in ((training.weight_decay, True), (0.0, False)):
            chosen = [p for p in parameters if (p.ndim > 1) == decayed]
            if chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay, "name": name})
    return torch.optim.AdamW(groups, fused=True)


def schedule(optimizer: torch.optim.Optimizer, training: Training, steps_per_epoch: int):
    """Linear warm-up, then a cosine from each group's own rate down to the common final one."""
    total = training.epochs * steps_per_epoch
    warmup = min(round(training.warmup_epochs * steps_per_epoch), total // 2)

    def factor(step: int, floor: float) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min((step - warmup) / max(total - 1 - warmup, 1), 1.0)
        return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2

    floors = [min(training.learning_rate_final / group["lr"], 1.0) for group in optimizer.param_groups]
    factors = [lambda step, floor=floor: factor(step, floor) for floor in floors]
    return torch.optim.lr_scheduler.LambdaLR(optimizer, factors)


def balancer_for(solution: Solution, training: Training) -> Balancer:
    """The balancer of a solution, at its start weights."""
    rate, options = training.weights_learning_rate, dict(solution.options)
    if solution.balancer == "fixed":
        return FixedWeights(solution.weights)
    if solution.balancer == "gradnorm":
        options.pop("measure_at", None)  # `train_step` resolves it
        return GradNorm(solution.weights, alpha=training.alpha, learning_rate=rate, **options)
    return from_torchjd(solution.balancer, solution.weights, options, rate)


class MovingAverage(nn.Module):
    """An exponential moving average of a network's weights and buffers, in the network `model`.

    Its decay rises from 0, so that short runs forget their random start (YOLOv5's rises over 2,000 steps;
    short studies have fewer in all). PyTorch's AveragedModel takes six times as long: it visits all modules.
    """

    def __init__(self, current: nn.Module, decay: float):
        super().__init__()
        self.model, self._decay = copy.deepcopy(current), decay
        self.register_buffer("updates", torch.zeros(()))  # on the CPU, as it is never moved
        averages, currents = ([*m.parameters(), *m.buffers()] for m in (self.model, current))
        self._floats = [[t for t in own if t.is_floating_point()] for own in (averages, currents)]
        self._counters = [[t for t in own if not t.is_floating_point()] for own in (averages, currents)]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network's present state."""
        torch._foreach_lerp_(*self._floats, 1 - self._decay * (1 - math.exp(-float(self.updates) / 200)))
        torch._foreach_copy_(*self._counters)
        self.updates += 1
