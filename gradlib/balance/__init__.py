"""How the tasks' losses are weighted, for any torch model; nothing here knows the network.

balancer   Balancer (the step), FixedWeights, Measured
gradnorm   GradNorm
torchjd    the methods of TorchJD as balancers
gradients  each task's gradient at the tensors that leave the shared part
"""

from gradlib import offer

__all__, __getattr__, __dir__ = offer(
    __name__, balancer="Balancer FixedWeights Measured", gradnorm="GradNorm", torchjd="from_torchjd"
)
