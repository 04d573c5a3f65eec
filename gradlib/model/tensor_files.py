"""Files of `torch.save`, read as a stranger's: nothing of them is run, and no more is read than they hold.

PyTorch's restricted unpickler (`weights_only=True`) makes tensors and plain values, with an inert object in
the place of everything else that a file may name. Tensors are views of the file (`mmap=True`): PyTorch
refuses one that claims more than the file has, and nothing is unpacked, so a small file stays small.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from gradlib.data.files import one_line

__all__ = ["Inert", "checked", "load"]

PICKLE = 64 * 2**20  # bytes of what is no tensor: of an official checkpoint a megabyte
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)


class Inert:
    """Stands for any object of a file: takes its attributes and does nothing."""

    def __init__(self, *arguments):
        pass

    def __setstate__(self, state):
        if isinstance(state, dict):
            self.__dict__.update(state)


def load(
    path: Path, allowed: tuple[str, ...] = (), cure: str = "download it again, or give another"
) -> object:
    """What the file holds. allowed: how the names of what becomes `Inert` begin. cure: what to do about a
    damaged file.

    Raises FileNotFoundError, or ValueError naming the file and what it is, if it is no such file, is cut
    short or packed, or holds anything but tensors, plain values and what is allowed.
    """
    inert = _inert_classes(path, allowed, cure)
    try:
        with torch.serialization.safe_globals(inert):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever the unpickler makes of a damaged file
        raise ValueError(f"{path}: cannot be read ({_reason(error)}); {cure}") from None


def checked(path: Path, tensors: Mapping) -> dict[str, Tensor]:
    """`tensors`, if they are weights by name, no more of them than the file holds: dense, finite numbers.

    Raises ValueError naming the file and the tensor.
    """
    held, left = path.stat().st_size, path.stat().st_size
    for name, tensor in tensors.items():
        what = f"{path}: {one_line(name)[:100]}"
        if not isinstance(name, str) or type(tensor) not in (Tensor, torch.nn.Parameter):
            raise ValueError(f"{what} is no tensor; give a file of weights alone")
        if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in DTYPES:
            kind = "meta" if tensor.is_meta else f"{tensor.layout}, {tensor.dtype}"
            raise ValueError(f"{what} is a tensor of another kind ({kind}); give float or int64 numbers")
        left -= tensor.numel() * tensor.element_size()
        if left < 0:  # one value stands for many, or one tensor for several
            raise ValueError(f"{what} and those before it are more than the {held:,} bytes of the file")
        if not tensor.isfinite().all():
            raise ValueError(f"{what} has values that are not finite; take weights from before that")
    return dict(tensors)


def _inert_classes(path: Path, allowed: tuple[str, ...], cure: str) -> list[type]:
    """A class for every object that the file may hold beside tensors and plain values; ValueError if it
    names anything else."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; give the path of a YOLOv5 checkpoint, as yolov5n.pt")
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(16)
        raise ValueError(
            f"{path}: is cut short; {cure}"
            if start.startswith(b"PK")
            else f"{path}: is no PyTorch checkpoint (it starts with {start!r}); {cure}"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed, which PyTorch's are not")
        if any(entry.file_size > PICKLE for entry in entries if entry.filename.endswith("data.pkl")):
            raise ValueError(f"more than {PICKLE:,} bytes of it are no tensors")
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, ValueError, UnpicklingError, EOFError, LookupError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: is no PyTorch checkpoint, or damaged ({_reason(error)}); {cure}") from None
    refused = sorted(name for name in names if not name.startswith(allowed))
    if refused:
        raise ValueError(
            f"{path}: holds {', '.join(map(plain, refused[:5]))}; only tensors, plain values and modules of "
            "YOLOv5 and PyTorch are read, nothing else is run. Use a checkpoint of YOLOv5 itself, or a state "
            "dict"
        )
    return [
        type(parts[-1], (Inert,), {"__module__": parts[0]}) for parts in (n.rsplit(".", 1) for n in names)
    ]


def _reason(error: Exception) -> str:
    return one_line((str(error).splitlines() or [type(error).__name__])[0])[:200]
