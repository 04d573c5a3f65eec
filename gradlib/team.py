"""Several processes that train one network: what each needs of the others.

Every process has the whole batch and the same random numbers, puts its own rows of the images through the
network, and sees everybody's outputs: losses, GradNorm and probes are of the whole batch, in every process
the same. Batch normalisation takes its statistics from all rows, and gradients are summed. So several
processes compute what one would, but for rounding.

Letters: B images of the whole batch, b of one process, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

__all__ = ["ALONE", "Team", "join_layers"]


@dataclass(frozen=True)
class Team:
    """Process `rank` of `size`, in torch.distributed's default group; what it does alone costs nothing."""

    rank: int = 0
    size: int = 1

    def rows(self, images: int) -> slice:
        """The rows of a batch of so many images that are this process's."""
        return slice(self.rank * images // self.size, (self.rank + 1) * images // self.size)

    def total(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sums of like tensors over the processes."""
        if self.size == 1 or not tensors:
            return list(tensors)
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def gather(self, output: Tensor, images: int) -> Tensor:
        """Everybody's rows of an output [b, ...] -> [B, ...], float32 or wider; the gradient goes to one's
        own."""
        return output if self.size == 1 else _Gathered.apply(output, self, images)

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give every process what the first one has."""
        for tensor in tensors if self.size > 1 else ():
            distributed.broadcast(tensor, 0)


ALONE = Team()


class _Gathered(torch.autograd.Function):
    """The losses are computed in every process from all rows, so that a row's gradient is whole at home."""

    @staticmethod
    def forward(ctx, output: Tensor, team: Team, images: int) -> Tensor:
        ctx.rows, ctx.dtype = team.rows(images), output.dtype
        output = _wide(output)
        whole = output.new_zeros((images, *output.shape[1:]))
        whole[ctx.rows] = output
        distributed.all_reduce(whole)  # of zeros and one process's rows
        return whole

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        return gradient[ctx.rows].to(ctx.dtype), None, None


class _Normalised(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) over the images and pixels of all processes (Ioffe and Szegedy 2015,
    algorithm 1), times `weight`, plus `bias`; sums in double precision, as PyTorch's own on a CPU."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float, team: Team) -> tuple:
        wide = _wide(x)
        ones = torch.ones(1, dtype=torch.float64, device=x.device)
        total, count = team.total([_sum(wide), ones * (x.numel() // x.shape[1])])
        mean = total / count  # [C]
        centred = wide - _like(wide, mean)
        (squares,) = team.total([_sum(centred.square())])
        variance = squares / count
        scale = (variance + eps).rsqrt()
        normal = centred * _like(wide, scale)
        ctx.save_for_backward(normal, weight, scale, count)
        ctx.team, ctx.dtype = team, x.dtype
        ctx.mark_non_differentiable(mean, variance, count)
        y = normal * _like(wide, weight) + _like(wide, bias)
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx, gradient: Tensor, *_) -> tuple:
        normal, weight, scale, count = ctx.saved_tensors
        wide = _wide(gradient)
        of_bias, of_weight = _sum(wide), _sum(wide * normal)  # [C], of one's own rows
        mean, slope = (total / count for total in ctx.team.total([of_bias, of_weight]))
        inner = wide - _like(wide, mean) - normal * _like(wide, slope)
        of_x = inner * _like(wide, weight * scale)
        return of_x.to(ctx.dtype), of_weight.to(weight.dtype), of_bias.to(weight.dtype), None, None


def _sum(x: Tensor) -> Tensor:
    return x.sum((0, 2, 3), dtype=torch.float64)  # [b, C, H, W] -> [C]


def _like(x: Tensor, values: Tensor) -> Tensor:
    return values.to(x.dtype)[:, None, None]  # [C] -> [C, 1, 1]


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class _BatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the rows of all processes; in eval mode the usual one."""

    team: Team = ALONE

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y, mean, variance, count = _Normalised.apply(x, self.weight, self.bias, self.eps, self.team)
        with torch.no_grad():
            unbiased = variance * (count / (count - 1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked += 1
        return y


class _Dropout(nn.Dropout):
    """Dropout of one's own rows, drawn for all: as the random numbers of every process are the same, the
    rows of two would else lose the same."""

    team: Team = ALONE

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        (images,) = self.team.total([torch.tensor([len(x)], device=x.device)])
        kept = x.new_empty((int(images), *x.shape[1:])).bernoulli_(1 - self.p).div_(1 - self.p)
        return x * kept[self.team.rows(len(kept))]


TOGETHER = {nn.BatchNorm2d: _BatchNorm, nn.Dropout: _Dropout}


def join_layers(model: nn.Module, team: Team) -> None:
    """Have the layers of `model` that look beyond one image do so over the rows of all processes."""
    for module in model.modules() if team.size > 1 else ():
        if type(module) in TOGETHER:
            module.__class__ = TOGETHER[type(module)]
            module.team = team
