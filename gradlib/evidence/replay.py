"""The weights that GradNorm would have given a run, from what the run recorded."""

from functools import partial

import pandas as pd
import torch

from gradlib.balance.gradnorm import GradNorm
from gradlib.config import TASKS
from gradlib.evidence.tables import numbers


@torch.inference_mode()  # a fifth faster
def replay_gradnorm(
    steps: pd.DataFrame, weights: tuple[float, float], alpha: float, learning_rate: float = 0.025, **options
) -> pd.DataFrame:
    """The weights that GradNorm would have given each step of one run, from its losses and gradient norms.

    Columns step, weight_detection, weight_classification, share_detection. With the run's own settings these
    are its own weights. With others it is a first look, not a run: other weights would have trained another
    network, with other losses and norms. weights: at the start. learning_rate, options: see `GradNorm`.
    Raises ValueError where the run recorded no norms.
    """
    losses, norms = (
        torch.tensor(numbers(steps, [f"{what}_{task}" for task in TASKS]).to_numpy())
        for what in ("loss", "norm")
    )
    if norms.isnan().all():
        raise ValueError("nothing is shared in this run, so it kept no gradient norms to balance")
    adam = partial(torch.optim.Adam, foreach=False)  # finding that out in every step takes a fifth longer
    options = {"alpha": alpha, "learning_rate": learning_rate, **options}
    balancer, used = GradNorm(weights, optimizer=adam, **options), []
    for loss, norm in zip(losses, norms, strict=True):
        used.append(balancer.weights.clone())
        balancer.update(loss, norm)
    used = torch.stack(used)
    weighted = used * norms
    table = pd.DataFrame(used.numpy(), columns=[f"weight_{task}" for task in TASKS])
    table.insert(0, "step", steps["step"].to_numpy())
    return table.assign(share_detection=(weighted[:, 0] / weighted.sum(1)).numpy())
