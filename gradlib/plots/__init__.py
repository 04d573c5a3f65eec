"""Figures: a DataFrame in, matplotlib Axes out; no torch.

language   labels in English or Traditional Chinese, and a font for Chinese names
style      what all figures share: colours of solutions, axes, legends, PNG files
training   losses, weights and learning rates over a training
gradients  interference by stage, cosines by step, class-view pairs, gradient shares
results    test metrics, differences with intervals, precision and recall
data       counts of frames, boxes and patients
frames     images with their boxes
"""

from gradlib import offer

__all__, __getattr__, __dir__ = offer(
    __name__,
    language="LANGUAGES enable_cjk_font set_language translate",
    style="colour one_legend png",
    training="curves learning_rates live losses pivot_runs weights",
    gradients="cosine_heatmap gradient_share harm interference pair_map parts_map replayed stage_bars",
    results="forest leaking metric_bars precision_recall trade_off",
    data="count_map leakage_bars patient_bars",
    frames="batch detections frame",
)
