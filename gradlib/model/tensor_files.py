"""Files of `torch.save` as untrusted input: nothing in them is run, and memory is bounded by their size.

PyTorch's restricted unpickler (`weights_only=True`) makes tensors and plain values; an inert object takes the
place of everything else that a file names. Tensors are views of the file (`mmap=True`): PyTorch refuses one
that claims more than the file has, and nothing is decompressed, so a small file stays small.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

MAX_PICKLE_BYTES = 64 * 2**20  # of all but the tensors: in an official checkpoint 1 MB
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)


class Inert:
    """Stands for any object of a file: has its attributes and does nothing."""

    def __init__(self, *arguments):
        pass

    def __setstate__(self, state):
        if isinstance(state, dict):
            self.__dict__.update(state)


def load_tensors(
    path: Path, allowed: tuple[str, ...] = (), cure: str = "download it again, or give another"
) -> object:
    """The content of the file. allowed: prefixes of the names of classes that become `Inert`. cure: ends the
    error about a damaged file.

    Raises FileNotFoundError, or ValueError naming the file and the reason, if it is no such file, is cut
    short or compressed, or holds anything but tensors, plain values and what is allowed.
    """
    inert = _inert_classes(path, allowed, cure)
    try:
        with torch.serialization.safe_globals(inert):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged file makes the unpickler raise anything
        raise ValueError(f"{path}: cannot be read ({_reason(error)}); {cure}") from None


def check_tensors(
    path: Path, tensors: Mapping, expected: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """`tensors`, if they are tensors by name, no more of them than the file holds, dense and finite.

    expected: tensors (on any device, also meta) of the names and shapes that they must have.
    Raises ValueError naming the file and the tensor.
    """
    size = unread = path.stat().st_size
    for name, tensor in tensors.items():
        what = f"{path}: {repr(name)[:100]}"
        if not isinstance(name, str) or type(tensor) not in (Tensor, torch.nn.Parameter):
            raise ValueError(f"{what} is no tensor; give a file of weights alone")
        if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in DTYPES:
            kind = "meta" if tensor.is_meta else f"{tensor.layout}, {tensor.dtype}"
            raise ValueError(f"{what} is a tensor of another kind ({kind}); give float or int64 numbers")
        unread -= tensor.numel() * tensor.element_size()
        if unread < 0:  # one value stands for many, or one storage for several tensors
            raise ValueError(f"{what} and those before it are more than the {size:,} bytes of the file")
        if not tensor.isfinite().all():
            raise ValueError(f"{what} has values that are not finite; take weights from before that")
    expected = tensors if expected is None else expected
    for name in {**expected, **tensors}:
        required, given = (describe(named.get(name)) for named in (expected, tensors))
        if required != given:
            raise ValueError(f"{path}: {repr(name)[:100]}: expected {required}, got {given}")
    return dict(tensors)


def describe(tensor: Tensor | None) -> str:
    """A tensor's shape and kind of numbers, for an error."""
    if tensor is None:
        return "no such tensor"
    return f"{list(tensor.shape)} of {'floats' if tensor.is_floating_point() else 'integers'}"


def _inert_classes(path: Path, allowed: tuple[str, ...], cure: str) -> list[type]:
    """A class for every object that the file may hold beside tensors and plain values; ValueError if it
    names anything else."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; give the path of a YOLOv5 checkpoint, as yolov5n.pt")
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(16)
        is_cut = start.startswith(b"PK")
        reason = "is cut short" if is_cut else f"is no PyTorch checkpoint (starts with {start!r})"
        raise ValueError(f"{path}: {reason}; {cure}")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed, which PyTorch's are not")
        if any(e.file_size > MAX_PICKLE_BYTES for e in entries if e.filename.endswith("data.pkl")):
            raise ValueError(f"it has more than {MAX_PICKLE_BYTES:,} bytes beside its tensors")
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, ValueError, UnpicklingError, EOFError, LookupError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: is no PyTorch checkpoint, or damaged ({_reason(error)}); {cure}") from None
    refused = sorted(name for name in names if not name.startswith(allowed))
    if refused:
        raise ValueError(
            f"{path}: holds {', '.join(map(repr, refused[:5]))}; only tensors, plain values and modules of "
            "YOLOv5 and PyTorch are read, nothing is run. Use a checkpoint of YOLOv5 itself, or a state dict"
        )
    parts = [name.rpartition(".") for name in names]
    return [type(attribute, (Inert,), {"__module__": module}) for module, _, attribute in parts]


def _reason(error: Exception) -> str:
    """The first line of an error, printable."""
    return repr((str(error).splitlines() or [type(error).__name__])[0])[1:-1][:200]
