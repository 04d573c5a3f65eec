"""TorchJD's methods as balancers, by TorchJD's own names, through the same per-task gradients.

*Aggregators* make one gradient of the shared parameters from those of T tasks (Quinton and Rey 2024); they
need every task's gradient at all shared parameters. *Scalarizers* make one loss of T losses.
A task's own parameters get that task's gradient, with the scalarizer's weight where there is one.
"""

import inspect
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.optim import Adam

from gradlib.balance.balancer import Balancer
from gradlib.checks import closest
from gradlib.config import TORCHJD_BY_TASKS, TORCHJD_DEFAULTS, torchjd_methods


class _TorchJD(Balancer):
    """A balancer around `method`, an aggregator or a scalarizer that `make` gives anew at every reset."""

    def __init__(self, weights: Sequence[float], make: Callable[[], nn.Module]):
        super().__init__(weights)
        self._make = make
        self.reset()

    def reset(self) -> None:
        """Return to the start, with a new method."""
        super().reset()
        self.method = self._make()

    def state_dict(self) -> dict:
        """Weights, and the method's parameters (UW, IMTLL, FAMO)."""
        parameters = {name: p.detach().clone() for name, p in self.method.named_parameters()}
        return {**super().state_dict(), "parameters": parameters}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a `state_dict()`. A memory of earlier steps begins anew, and a warning says so."""
        from torchjd import Stateful

        super().load_state_dict(state)
        self.method.load_state_dict({**self.method.state_dict(), **state["parameters"]})
        if isinstance(self.method, Stateful):
            warnings.warn(
                f"{type(self.method).__name__} begins its memory of earlier steps anew, for TorchJD does not "
                "save it: the run will differ from one without interruption",
                stacklevel=2,
            )


class Aggregated(_TorchJD):
    """The shared gradient by a TorchJD aggregator of the tasks' (weighted) gradients."""

    needs_jacobian = True

    def combine(self, gradients: Sequence[Sequence[Tensor]], weights: Sequence[float]) -> list[Tensor]:
        """Aggregate the Jacobian [T, P] of the losses in the P shared parameters."""
        jacobian = torch.stack([torch.cat([g.flatten() for g in own]) for own in gradients])  # [T, P]
        jacobian *= torch.tensor(weights, dtype=jacobian.dtype, device=jacobian.device)[:, None]
        parts = self.method(jacobian).split([g.numel() for g in gradients[0]])
        return [part.view_as(g) for part, g in zip(parts, gradients[0], strict=True)]


class Scalarized(_TorchJD):
    """The weights that a TorchJD scalarizer gives the (weighted) losses: its derivatives in them.

    learning_rate: Adam's, for a scalarizer with parameters (UW, IMTLL).
    """

    def __init__(self, weights: Sequence[float], make: Callable[[], nn.Module], learning_rate: float = 0.025):
        self._learning_rate = learning_rate
        super().__init__(weights, make)

    def reset(self) -> None:
        """Return to the start, with a new scalarizer and optimizer."""
        super().reset()
        self.method.double()
        has_optimizer = hasattr(self.method, "update")  # FAMO's own
        parameters = [] if has_optimizer else list(self.method.parameters())
        self._optimizer = Adam(parameters, lr=self._learning_rate) if parameters else None

    def weigh(self, losses: Tensor) -> Tensor:
        """The derivatives [T] of the scalarized loss in `losses` [T]; its parameters take a step."""
        losses = losses.to("cpu", torch.float64, copy=True).requires_grad_()
        self.method(self.start * losses).backward()
        if self._optimizer:
            self._optimizer.step()
            self._optimizer.zero_grad()
        self.weights = losses.grad
        return self.weights.clone()

    def after_step(self, losses: Callable[[], Tensor]) -> None:
        """FAMO learns from the change of the batch's losses over the step, which costs a forward pass."""
        if hasattr(self.method, "update"):
            self.method.update(self.start * losses().double())

    def after_epoch(self) -> None:
        """DWA compares epochs."""
        if hasattr(self.method, "step"):
            self.method.step()


def from_torchjd(
    name: str, weights: Sequence[float], options: dict, learning_rate: float = 0.025
) -> Aggregated | Scalarized:
    """The balancer of TorchJD's aggregator or scalarizer `name` (see `config.torchjd_methods`), made with
    `options`.

    ValueError for an unknown name or option; ModuleNotFoundError, with the cure, for a missing package.
    """
    package = torchjd_methods().get(name)
    if package is None:
        raise ValueError(f"unknown method of TorchJD {name!r}{closest(name, torchjd_methods())}")
    method = getattr(import_module(f"torchjd.{package}"), name)
    known = inspect.signature(method).parameters
    settings = {**TORCHJD_DEFAULTS.get(name, {}), **options}
    settings |= {own: len(weights) for own in TORCHJD_BY_TASKS if own in known}
    unknown = [option for option in settings if option not in known]
    if unknown:
        options = ", ".join(known) or "none"
        raise ValueError(f"balancer {name}: unknown option {unknown[0]!r}; TorchJD knows {options}")
    try:
        if package == "scalarization":
            return Scalarized(weights, lambda: method(**settings), learning_rate)
        return Aggregated(weights, lambda: method(**settings))
    except ImportError as error:
        raise ModuleNotFoundError(f"balancer {name}: {error}") from error
