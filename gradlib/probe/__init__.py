"""The measurements of a probe: how the tasks' gradients in the shared layers relate.

stages  cosine, norms and conflict in every shared stage
pairs   cosine by class of jet and view
"""

from gradlib import offer

__all__, __getattr__, __dir__ = offer(
    __name__, stages="conflict_by_stage cosine magnitude_similarity", pairs="conflict_by_pair"
)
