"""What the runs of a study show: tables, intervals, verdicts, diagnostics, controls; pandas in, pandas out.

tables       metrics, cost and training dynamics, a row a solution
bootstrap    metrics of resampled patients
pooling      how much repetitions vary, pooled over a study's solutions
intervals    levels and differences with 95 % intervals, and verdicts
interference  whether gradients fight, beyond noise: rho, signal, coupling, affinity
diagnostics  norms by stage, tasks switched off, stability
predictions  curves, confusions and examples of test predictions
coco         predictions of any two detectors, compared over patients
controls     solutions that need no training of their own
"""

from gradlib import offer

__all__, __getattr__, __dir__ = offer(
    __name__,
    coco="compare_detectors read_coco",
    intervals="Estimate Evidence across_runs holm proportion_interval",
    controls="with_controls",
)
