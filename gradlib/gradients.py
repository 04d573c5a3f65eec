"""The tasks' gradients where the network is shared: taken at the cut, measured by stage.

The *cut* is the tuple of feature maps that leave the shared part. Each task runs back to its own leaf
copy of the cut (heads are disjoint, so this costs what one joint backward would), and the shared part
is run back once, from the weighted sum. Gradients multiply by the chain rule whatever their order, so
the result is that of one joint backward of the weighted loss.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Cut", "conflict_by_stage", "cosine", "magnitude_similarity", "weighted_shares"]


@dataclass
class Cut:
    """The cut of one training step.

    features: the tensors that leave the shared part, one graph for all tasks.
    leaves: for each task its own leaf copies, which collect the task's gradient.
    """

    features: tuple[Tensor, ...]
    leaves: dict[str, tuple[Tensor, ...]]

    @classmethod
    def of(cls, features: Sequence[Tensor], tasks: Sequence[str]) -> "Cut":
        """Cut the graph at `features`. What needs no gradient (input images, where nothing is shared)
        gets none."""
        return cls(
            tuple(features),
            {task: tuple(f.detach().requires_grad_(f.requires_grad) for f in features) for task in tasks},
        )

    def gradients(self, task: str) -> list[Tensor]:
        """The unweighted gradient of the task's loss at each tensor of the cut; zeros where the task
        does not reach. Valid once the task's loss has been run back."""
        return [
            torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            for leaf in self.leaves[task]
            if leaf.requires_grad
        ]

    def parameter_gradients(self, task: str, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """The task's unweighted gradient at shared `parameters`. Costs the way from the cut to them;
        the graph is kept."""
        features = [feature for feature in self.features if feature.requires_grad]
        found = torch.autograd.grad(
            features, parameters, self.gradients(task), retain_graph=True, allow_unused=True
        )
        return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]

    def backward_shared(self, weights: Mapping[str, Tensor | float]) -> None:
        """Run the shared part back once, from the weighted sum of the tasks' gradients at the cut."""
        features = [feature for feature in self.features if feature.requires_grad]
        if not features:
            return
        per_task = [[weights[task] * g for g in self.gradients(task)] for task in self.leaves]
        torch.autograd.backward(features, [sum(parts) for parts in zip(*per_task, strict=True)])

    def backward_tasks(
        self,
        losses: Mapping[str, Tensor],
        weights: Mapping[str, Tensor | float],
        parameters: Callable[[str], Iterable[nn.Parameter]],
    ) -> None:
        """Run each task's unweighted loss back to its leaves, then scale the gradients of the task's
        own `parameters(task)` by its weight.

        Unweighted, because a weight of 0 would hide the task's gradient from its own balancer.
        """
        for task, loss in losses.items():
            loss.backward()
            own = [p.grad for p in parameters(task) if p.grad is not None]
            torch._foreach_mul_(own, float(weights[task]))


def cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Cosine of the angle between two gradients, each a list of tensors; nan if one of them is zero."""
    dot = sum(torch.sum(x * y) for x, y in zip(a, b, strict=True))
    return float(dot / (_norm(a) * _norm(b)))


def magnitude_similarity(norm_a: float, norm_b: float) -> float:
    """2ab / (a^2 + b^2): 1 for gradients of equal length, towards 0 as one outgrows the other.

    Yu et al. 2020 (Gradient Surgery, NeurIPS), definition 2.
    """
    return 2 * norm_a * norm_b / (norm_a**2 + norm_b**2) if norm_a or norm_b else float("nan")


def weighted_shares(weights: Tensor, norms: Tensor) -> Tensor:
    """What part of the summed weighted gradient length is each task's: [T] -> [T], summing to 1."""
    weighted = weights * norms
    return weighted / weighted.sum()


def conflict_by_stage(
    cut: Cut, stages: Mapping[str, nn.Module], weights: Mapping[str, Tensor | float]
) -> list[dict]:
    """How two tasks' gradients stand to each other in every shared stage.

    One row a (stage, kind), kind `conv` or `norm` (normalisation parameters apart, because they head
    the list of conflicts in Recon, Shi et al. 2023): cosine, conflict (cosine < 0, Yu et al. 2020),
    the norms of the unweighted gradients, their magnitude similarity, and the first task's share of the
    weighted length. The weighted sum is left in the parameters' `.grad`: a probe replaces
    `backward_shared`, and so costs one pass more through the shared part, for two tasks.
    """
    first, second = cut.leaves
    named = [(stage, p) for stage, module in stages.items() for p in module.parameters()]
    parameters = [p for _, p in named]
    gradients = {task: cut.parameter_gradients(task, parameters) for task in cut.leaves}
    for i, p in enumerate(parameters):
        p.grad = sum(weights[task] * gradients[task][i] for task in cut.leaves)
    rows = []
    for stage in stages:
        for kind in ("conv", "norm"):
            # Convolutions here carry no bias: what has one dimension belongs to a normalisation.
            chosen = [i for i, (s, p) in enumerate(named) if s == stage and (p.ndim == 1) == (kind == "norm")]
            a, b = ([gradients[task][i] for i in chosen] for task in (first, second))
            norm_a, norm_b = float(_norm(a)), float(_norm(b))
            angle = cosine(a, b)
            total = weights[first] * norm_a + weights[second] * norm_b
            rows.append(
                {
                    "stage": stage,
                    "kind": kind,
                    "cosine": angle,
                    f"norm_{first}": norm_a,
                    f"norm_{second}": norm_b,
                    "magnitude_similarity": magnitude_similarity(norm_a, norm_b),
                    "conflict": int(angle < 0),
                    f"share_{first}": float(weights[first] * norm_a / total) if total else float("nan"),
                }
            )
    return rows


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of the concatenation."""
    return torch.stack([t.square().sum() for t in tensors]).sum().sqrt()
