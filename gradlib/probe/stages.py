"""How two tasks' gradients relate in every shared stage: cosine, conflict, magnitude similarity."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gradlib.balance.gradients import norm


def cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Cosine of the angle between two gradients, each a list of tensors; nan if one of them is zero."""
    dot = sum(torch.sum(x * y) for x, y in zip(a, b, strict=True))
    return float(dot / (norm(a) * norm(b)))


def magnitude_similarity(norm_a: float, norm_b: float) -> float:
    """2ab / (a^2 + b^2): 1 for gradients of equal norm, towards 0 as one outgrows the other.

    Yu et al. 2020 (Gradient Surgery, NeurIPS), definition 2.
    """
    return 2 * norm_a * norm_b / (norm_a**2 + norm_b**2) if norm_a or norm_b else float("nan")


def conflict_by_stage(
    stages: Mapping[str, nn.Module],
    gradients: Sequence[Sequence[Tensor]],
    tasks: Sequence[str],
    weights: Sequence[float],
) -> list[dict]:
    """How two tasks' gradients relate in every shared stage.

    gradients: for each of the two `tasks` its unweighted gradients at the parameters of `stages`, in order.
    One row a (stage, kind), kind `conv` or `norm` (normalisation parameters apart, because they head the list
    of conflicts in Recon, Shi et al. 2023): cosine, conflict (cosine < 0, Yu et al. 2020), norms of the
    unweighted gradients, their magnitude similarity, and the first task's share of the summed weighted norms.
    """
    named = [(stage, p) for stage, module in stages.items() for p in module.parameters()]
    (first, second), (weight_a, weight_b) = tasks, weights
    rows = []
    for stage in stages:
        for kind in ("conv", "norm"):
            # Convolutions here have no bias: a parameter of one dimension belongs to a normalisation.
            chosen = [i for i, (s, p) in enumerate(named) if s == stage and (p.ndim == 1) == (kind == "norm")]
            a, b = ([own[i] for i in chosen] for own in gradients)
            norm_a, norm_b, angle = float(norm(a)), float(norm(b)), cosine(a, b)
            total = weight_a * norm_a + weight_b * norm_b
            rows.append(
                {
                    "stage": stage,
                    "kind": kind,
                    "cosine": angle,
                    f"norm_{first}": norm_a,
                    f"norm_{second}": norm_b,
                    "magnitude_similarity": magnitude_similarity(norm_a, norm_b),
                    "conflict": int(angle < 0),
                    f"share_{first}": weight_a * norm_a / total if total else float("nan"),
                }
            )
    return rows
