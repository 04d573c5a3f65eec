"""TorchJD's methods as balancers, by TorchJD's own names, through the same per-task gradients.

*Aggregators* make one gradient of the shared parameters from those of T tasks (Quinton and Rey 2024); they
need every task's gradient at all shared parameters, as a probe does. *Scalarizers* make one loss of T losses.
What one task owns gets that task's gradient, with the scalarizer's weight where there is one.
"""

import inspect
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from gradlib.balance.gradnorm import Balancer

__all__ = ["Aggregated", "Scalarized", "from_torchjd"]

#: What TorchJD leaves to be chosen: as its authors' experiments on NYUv2 (CAGrad), or plain (STCH).
CHOSEN = {"CAGrad": {"c": 0.4}, "STCH": {"mu": 1.0}}
#: What installs the packages that some methods need beside TorchJD.
EXTRAS = {"CAGrad": "cagrad", "NashMTL": "nash-mtl", "UPGrad": "quadprog-projector"}


class Aggregated(Balancer):
    """The shared gradient by a TorchJD aggregator of the tasks' (weighted) gradients."""

    needs_jacobian = True

    def __init__(self, weights: Sequence[float], make: Callable[[], nn.Module]):
        super().__init__(weights)
        self._make = make
        self.aggregator = make()

    def combine(self, gradients: Sequence[Sequence[Tensor]], weights: Sequence[float]) -> list[Tensor]:
        """Aggregate the Jacobian [T, P] of the losses in the shared parameters."""
        jacobian = torch.stack([torch.cat([g.flatten() for g in own]) for own in gradients])
        jacobian *= torch.tensor(weights, dtype=jacobian.dtype, device=jacobian.device)[:, None]
        parts = self.aggregator(jacobian).split([g.numel() for g in gradients[0]])
        return [part.view_as(g) for part, g in zip(parts, gradients[0], strict=True)]

    def reset(self) -> None:
        """Back to the start, with a new aggregator."""
        super().reset()
        self.aggregator = self._make()

    def state_dict(self) -> dict:
        """Weights, and what the aggregator remembers (GradVac, NashMTL)."""
        return {**super().state_dict(), "aggregator": _memory(self.aggregator)}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state_dict()` of one made with the same settings."""
        super().load_state_dict(state)
        _remember(self.aggregator, state["aggregator"])


class Scalarized(Balancer):
    """The weights that a TorchJD scalarizer of the (weighted) losses amounts to: its derivatives.

    learning_rate: Adam's, for a scalarizer that has parameters (UW, IMTLL).
    """

    def __init__(self, weights: Sequence[float], make: Callable[[], nn.Module], learning_rate: float = 0.025):
        super().__init__(weights)
        self._make, self._learning_rate = make, learning_rate
        self.reset()

    def weigh(self, losses: Tensor) -> Tensor:
        """The derivative of the scalarized loss in each of `losses`; its own parameters take their step."""
        losses = losses.clone().requires_grad_()
        self.scalarizer(self.start * losses).backward()
        if self._optimizer:
            self._optimizer.step()
            self._optimizer.zero_grad()
        self.weights = losses.grad
        return self.weights.clone()

    def after_step(self, losses: Callable[[], Tensor]) -> None:
        """FAMO learns from what the step did to the losses of its batch, which costs a forward pass."""
        if hasattr(self.scalarizer, "update"):
            self.scalarizer.update(self.start * losses().double())

    def after_epoch(self) -> None:
        """DWA compares epochs."""
        if hasattr(self.scalarizer, "step"):
            self.scalarizer.step()

    def reset(self) -> None:
        """Back to the start, with a new scalarizer."""
        super().reset()
        self.scalarizer = self._make().double()
        learnt = (
            [] if hasattr(self.scalarizer, "update") else list(self.scalarizer.parameters())
        )  # FAMO has its own
        self._optimizer = Adam(learnt, lr=self._learning_rate) if learnt else None

    def state_dict(self) -> dict:
        """Weights, what the scalarizer has learnt, and its optimizer's memory."""
        learning = self._optimizer and self._optimizer.state_dict()
        return {**super().state_dict(), "scalarizer": _memory(self.scalarizer), "optimizer": learning}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state_dict()` of one made with the same settings."""
        super().load_state_dict(state)
        _remember(self.scalarizer, state["scalarizer"])
        if self._optimizer:
            self._optimizer.load_state_dict(state["optimizer"])


def _memory(module: nn.Module) -> dict[str, dict]:
    """All that an object of TorchJD remembers, by part and name, as tensors and plain values. Its own
    `state_dict` has the parameters alone."""
    found = {}
    for path, part in module.named_modules():
        values = {**vars(part), **part._buffers, **part._parameters}
        found[path] = {name: _kept(value) for name, value in values.items() if _is_memory(value)}
    return found


def _is_memory(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_memory, value))
    return value is None or isinstance(value, Tensor | np.ndarray | Optimizer | int | float | torch.dtype)


def _kept(value):
    if isinstance(value, Optimizer):
        return value.state_dict()
    if isinstance(value, np.ndarray):
        return torch.tensor(value)
    return value.detach().clone() if isinstance(value, Tensor) else value


def _remember(module: nn.Module, memory: dict[str, dict]) -> None:
    """Give a new object what `_memory` took from another."""
    for path, part in module.named_modules():
        if hasattr(part, "_init_optim_problem"):  # NashMTL poses its problem in its first step only
            part._init_optim_problem()
        for name, value in memory[path].items():
            before = getattr(part, name)
            if isinstance(value, dict):
                optimizer = Adam(part.parameters(recurse=False))  # FAMO's, made in its first step
                optimizer.load_state_dict(value)
                setattr(part, name, optimizer)
            elif isinstance(before, nn.Parameter):
                before.data.copy_(value)
            else:
                setattr(part, name, value.numpy() if isinstance(before, np.ndarray) else value)


def from_torchjd(
    name: str, weights: Sequence[float], options: dict, learning_rate: float = 0.025
) -> Balancer:
    """The balancer of TorchJD's aggregator or scalarizer `name`, made with `options`.

    ModuleNotFoundError, with the command, where a package that the method needs is missing.
    """
    from torchjd import aggregation, scalarization

    method = getattr(scalarization, name, None) or getattr(aggregation, name)
    known = inspect.signature(method).parameters
    settings = {**CHOSEN.get(name, {}), **options}
    settings |= {own: len(weights) for own in ("n_tasks", "shape") if own in known}
    unknown = [option for option in settings if option not in known]
    if unknown:
        raise ValueError(
            f"balancer {name}: unknown option {unknown[0]!r}; TorchJD knows {', '.join(known) or 'none'}"
        )

    def make() -> nn.Module:
        return method(**settings)

    try:
        if issubclass(method, scalarization.Scalarizer):
            return Scalarized(weights, make, learning_rate)
        return Aggregated(weights, make)
    except ImportError as error:
        extra = EXTRAS.get(name)
        cure = f"; install them with: pip install 'torchjd[{extra}]'" if extra else ""
        raise ModuleNotFoundError(
            f"balancer {name} needs packages that are missing ({error}){cure}"
        ) from error
