"""Training and evaluation.

augmentation  moves of images with their boxes that keep the labels true
optimization  optimizer, schedule, balancer, average of the weights
step          losses and one training step
evaluation    predictions and all metrics of a network
metrics       mAP, precision, recall, F1, detection MSE, accuracy, from predictions
devices       device and precision
trainer       Trainer, History, Stopped
"""

from gradlib import offer

__all__, __getattr__, __dir__ = offer(
    __name__,
    trainer="History Stopped Trainer",
    evaluation="evaluate predict",
    metrics="best_confidence",
    devices="peak_memory_mb",
)
