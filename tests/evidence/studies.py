"""Studies small enough to work out by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from gradlib.evidence import tables

STEP = ["step", "epoch", "loss_detection", "loss_classification", "weight_detection", "weight_classification"]
STEP += ["norm_detection", "norm_classification", "share_detection", "lr_shared", "lr_detection"]


def runs(*rows: dict) -> pd.DataFrame:
    """Rows of `Study.runs`; what a row does not name is missing, as it is for a specialist."""
    columns = ["solution", "fold", "seed", "path", "branch", "balancer", *tables.PERFORMANCE, *tables.COST]
    return pd.DataFrame([{"fold": 0, "seed": 0, "balancer": "fixed", **row} for row in rows], columns=columns)


def steps(solution: str, share=None, seed: int = 0, **columns) -> pd.DataFrame:
    """A table of steps; scalars hold for all of them."""
    n = max((len(v) for v in (share, *columns.values()) if np.ndim(v)), default=20)
    frame = pd.DataFrame({"step": range(n), "epoch": np.arange(n) * 5 // n}).reindex(columns=STEP)
    frame = frame.assign(share_detection=np.nan if share is None else share, **columns).astype(float)
    return frame.assign(solution=solution, fold=0, seed=seed)


def study(
    runs: pd.DataFrame, steps=None, probes=None, epochs=None, configs=None, kept=None
) -> SimpleNamespace:
    """What `runs.load` returns, without the folder."""
    key = ["solution", "fold", "seed"]
    return SimpleNamespace(
        runs=runs,
        steps=pd.DataFrame(columns=[*key, *STEP]) if steps is None else steps,
        probes=pd.DataFrame(columns=key) if probes is None else probes,
        epochs=pd.DataFrame(columns=[*key, "epoch"]) if epochs is None else epochs,
        incomplete=[],
        config=lambda solution, fold=0, seed=0: (configs or {})[solution],
        predictions=lambda solution, fold=0, seed=0: (kept or {})[solution],
    )
