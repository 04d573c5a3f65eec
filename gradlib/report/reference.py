"""The figures of the reference report, which were simulated: shown beside measured ones, never instead.

Left out is what does not mean the same thing here. Its precision equals its mAP to the last digit, so it is
no precision; its detection MSE is above 1, which boxes in 0-1 cannot reach on average; its losses are
undefined.
Its mAP names no IoU and stands beside mAP@0.5.
"""

__all__ = ["MOVES", "REPORTED"]

#: Final figures by solution and column of a study's `runs`.
REPORTED = {
    "gradnorm": {
        "map50": 0.0666,
        "recall": 0.2071,
        "f1": 0.1007,
        "accuracy": 0.6547,
        "parameters": 1752,
        "seconds": 45.2,
    },
    "dual": {
        "map50": 0.0610,
        "recall": 0.2500,
        "f1": 0.0981,
        "accuracy": 0.6220,
        "parameters": 5400,
        "seconds": 120.5,
    },
}
#: What moved in training, from start to end, by solution and quantity of `compare.dynamics`.
MOVES = {
    "gradnorm": {"weight_detection": (1.0, 0.0), "weight_classification": (0.01, 4.0)},
    "dual": {"lr_detection": (0.001, 0.0001), "lr_classification": (0.001, 0.0001)},
}
