"""How two tasks' gradients relate in every shared stage: inner products on two halves of a batch, and the
cosine, conflict and magnitude similarity of the whole batch, which are mostly noise."""

import math
from collections.abc import Mapping, Sequence

from torch import nn

from gradlib.probe.split import SplitGradients


def magnitude_similarity(norm_a: float, norm_b: float) -> float:
    """2ab / (a^2 + b^2): 1 for gradients of equal norm, towards 0 as one outgrows the other.

    Yu et al. 2020 (Gradient Surgery, NeurIPS), definition 2.
    """
    return 2 * norm_a * norm_b / (norm_a**2 + norm_b**2) if norm_a or norm_b else math.nan


def conflict_by_stage(
    stages: Mapping[str, nn.Module], split: SplitGradients, tasks: Sequence[str], weights: Sequence[float]
) -> list[dict]:
    """How two tasks' gradients relate in every shared stage.

    split: of the two `tasks`, at the parameters of `stages`, in order. One row a (stage, kind), kind `conv`
    or `norm` (normalisation parameters apart, because they head the list of conflicts in Recon, Shi et al.
    2023): the inner products of `SplitGradients.products`; and of the mean of both halves, as the whole batch
    has them: cosine, conflict (cosine < 0, Yu et al. 2020), norms of the unweighted gradients, their
    magnitude similarity, and the first task's share of the summed weighted norms.
    """
    named = [(stage, p) for stage, module in stages.items() for p in module.parameters()]
    (first, second), (weight_a, weight_b) = tasks, weights
    rows = []
    for stage in stages:
        for kind in ("conv", "norm"):
            # Convolutions here have no bias: a parameter of one dimension belongs to a normalisation.
            chosen = [i for i, (s, p) in enumerate(named) if s == stage and (p.ndim == 1) == (kind == "norm")]
            row = split.products(tasks, chosen)
            norm_a, norm_b = (
                math.sqrt(max((row[f"square_{task}"] + row[f"signal_{task}"]) / 2, 0)) for task in tasks
            )
            dot = (row[f"same_{first}_{second}"] + row[f"cross_{first}_{second}"]) / 2
            cosine = dot / (norm_a * norm_b) if norm_a and norm_b else math.nan
            total = weight_a * norm_a + weight_b * norm_b
            rows.append(
                {
                    "stage": stage,
                    "kind": kind,
                    **row,
                    "cosine": cosine,
                    f"norm_{first}": norm_a,
                    f"norm_{second}": norm_b,
                    "magnitude_similarity": magnitude_similarity(norm_a, norm_b),
                    "conflict": int(cosine < 0),
                    f"share_{first}": weight_a * norm_a / total if total else math.nan,
                }
            )
    return rows
