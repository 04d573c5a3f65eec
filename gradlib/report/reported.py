"""The figures of the reference report, which were simulated: shown beside measured ones, never instead.

Left out is what does not mean the same thing here: its precision equals its mAP to the last digit, its
detection MSE is above 1, which boxes in 0-1 cannot reach on average, and its losses are undefined. Its mAP
names no IoU and stands beside mAP@0.5.
"""

import numpy as np

from gradlib.evidence.tables import per_cent

_METRICS = ("map50", "recall", "f1", "accuracy", "parameters", "seconds")
#: Final figures by solution and metric.
FINAL = {
    "gradnorm": dict(zip(_METRICS, (0.0666, 0.2071, 0.1007, 0.6547, 1752, 45.2), strict=True)),
    "dual": dict(zip(_METRICS, (0.0610, 0.2500, 0.0981, 0.6220, 5400, 120.5), strict=True)),
}
#: What moved in training, from start to end, by solution and quantity of `tables.dynamics`.
MOVES = {
    "gradnorm": {"weight_detection": (1.0, 0.0), "weight_classification": (0.01, 4.0)},
    "dual": {"lr_detection": (0.001, 0.0001), "lr_classification": (0.001, 0.0001)},
}


def change(first: str, second: str, metric: str) -> float:
    """Relative change from one solution to another in per cent; NaN where the report has no such figures."""
    return per_cent(*(FINAL.get(name, {}).get(metric, np.nan) for name in (first, second)))
