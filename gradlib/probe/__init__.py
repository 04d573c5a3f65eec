"""The measurements of a probe: how the tasks' gradients in the shared layers relate.

probe     one probe of a network in training: all that follows, as rows
frames    the losses of some of a batch's frames, as of its halves
split     inner products of the gradients on two halves of a batch: signal apart from noise
stages    these in every shared stage
pairs     cosine by class of jet and view
affinity  what a step along one task's gradient does to the other's loss
"""

from gradlib import offer

__all__, __getattr__, __dir__ = offer(
    __name__,
    probe="Probe",
    frames="frames_of half_losses",
    split="SplitGradients",
    stages="conflict_by_stage magnitude_similarity",
    pairs="conflict_by_pair cosine",
    affinity="affinity",
)
