"""Widgets for JupyterLab, each one line in a notebook: controls above a figure that `plots` draws.

training    explorers of trainings: curves, conflicts of gradients, GradNorm replayed
detections  the explorer of test frames: true boxes, detections, views, two runs side by side
live        a training with progress, live curves and a stop button
base        what an explorer consists of, for explorers of your own
"""

from gradlib import offer

__all__, __getattr__, __dir__ = offer(
    __name__,
    training="explore_runs explore_conflicts what_if replay_gradnorm",
    detections="explore_detections",
    live="train",
    base="Explorer Checkboxes choice slider axes_row",
)
