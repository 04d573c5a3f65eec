"""The device and the precision of a run, through Lightning Fabric."""

import sys
from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor

from gradlib.config import Training


def fabric_for(training: Training) -> Fabric:
    """The device and precision of a run. ValueError for a device that is not here, and for bf16 on a
    processor without it."""
    try:
        fabric = Fabric(accelerator=training.device, devices=1)
    except (RuntimeError, ValueError):  # not here, or not known to Fabric
        raise ValueError(f"device: {training.device!r} is not here; take 'auto' or 'cpu'") from None
    device, precision = fabric.device.type, precision_of(training, fabric.device.type)
    if precision == "32-true":
        return fabric
    if device == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise ValueError(f"precision {precision!r}: this processor has no bfloat16; take '32-true'")
    # As a plugin: given by name, Fabric announces it on stderr every time.
    return Fabric(accelerator=device, devices=1, plugins=MixedPrecision(precision, device))


def precision_of(training: Training, device: str) -> str:
    """The precision of a run on a `device` ("cpu", "cuda", ...): `auto` is bf16 where it is no emulation."""
    if training.precision != "auto":
        return training.precision
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # not in every PyTorch
        fast = device == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return "bf16-mixed" if fast else "32-true"


def prepare(batch: Sequence[Tensor], fabric: Fabric) -> tuple[Tensor, Tensor, Tensor]:
    """A collated batch on the device: images [B, 3, S, S] in 0-1, boxes [M, 6], views [B]."""
    images, boxes, views = (fabric.to_device(tensor) for tensor in batch[:3])
    images = images.to(memory_format=torch.channels_last).float() / 255
    return images, boxes, views


def peak_memory_mb(device: str) -> float:
    """The most memory that this process (on an accelerator: its tensors) has held, in MiB."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource  # not on Windows, where nothing else needs it

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
