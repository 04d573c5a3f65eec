"""Weights from files: official YOLOv5 checkpoints, exported detectors, the networks of finished runs.

An official checkpoint pickles a whole foreign object. None of its code is needed or run: PyTorch's
restricted unpickler (`weights_only=True`) reads the file, with an inert object in the place of every
network module that it names, and the tensors are taken out of these.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from gradlib.config import solution
from gradlib.models import ANCHORS, SIZES, STRIDES, MultiTaskYOLO

__all__ = ["export", "read", "restore", "start_from"]

ALLOWED = (
    "models.",  # YOLOv5's own modules
    "torch.nn.modules.",
    # A checkpoint saved in the midst of a training keeps its best fitness as an array.
    "numpy.core.multiarray.",
    "numpy._core.multiarray.",
    "numpy.ndarray",
    "numpy.dtype",
)
ANCHOR_CELLS = "model.24.anchors"  # in a file in cells of each level, in the network in pixels
CLASSES = "model.24.m.0.bias"  # [A * (5 + K)]
DETECTOR = ("shared.", "paths.detection.")


class _Inert:
    """Stands for any object of a checkpoint: takes its attributes and does nothing."""

    def __init__(self, *arguments):
        pass

    def __setstate__(self, state):
        if isinstance(state, dict):
            self.__dict__.update(state)


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a YOLOv5 checkpoint (or of a detector that `export` gave) by YOLOv5's names, floating
    point as float32.

    The averaged weights (`ema`) come before the last ones (`model`), as in YOLOv5. Raises
    FileNotFoundError, or ValueError naming the file and what it holds if it is no checkpoint, is cut short,
    or holds anything but tensors, plain values and modules. Nothing of such a file is run.
    """
    path = Path(path)
    content = _load(path, _inert_classes(path))
    if isinstance(content, dict) and "model" in content:
        content = content["model"] if content.get("ema") is None else content["ema"]
    if isinstance(content, _Inert):
        try:
            tensors = dict(_tensors(content))
        except (AttributeError, RecursionError, TypeError):  # called a module, and not built like one
            tensors = {}
    elif isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values()):
        tensors = content
    else:
        tensors = {}
    if not tensors:
        raise ValueError(f"{path}: holds no network; give a YOLOv5 checkpoint or an exported detector")
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def start_from(model: MultiTaskYOLO, path: str | Path) -> list[str]:
    """Copy the weights of a YOLOv5 checkpoint into every layer of `model` that YOLOv5 has too; every copy
    of a layer gets the same, so that two backbones start equal. The classification head keeps its start.

    With another number of classes the rows of Detect that predict classes are left out. Returns the names
    of the tensors that were not, or only in part, taken over. Raises as `read` does, and ValueError if the
    file is of another size or another network, or if `model` has another width than YOLOv5's.
    """
    if model.width != 1:
        raise ValueError(
            f"{path}: a checkpoint has YOLOv5's own channels, and this network is {model.width:g} times as "
            "wide; leave 'pretrained' out, for the solutions it is compared with too, or take width 1"
        )
    tensors = read(path)
    held = _size_of(tensors, model.size)
    if held != model.size:
        raise ValueError(
            f"{path}: holds "
            + (f"a YOLOv5{held}" if held else "no YOLOv5 detector of release 6 or 7")
            + f", and the run's size is {model.size!r}; "
            + (f"set size to {held!r} or " if held else "")
            + f"give yolov5{model.size}.pt"
        )
    state = model.state_dict()
    taken = set()
    for name, own in state.items():
        official = _yolov5_name(name)
        if official is None:
            continue
        given = tensors[official].to(own.device)
        if official == ANCHOR_CELLS:
            given = given * given.new_tensor(STRIDES)[:, None, None]
        if given.shape == own.shape:
            own.copy_(given)
            taken.add(official)
        else:  # Detect, of another number of classes: box and objectness come first
            split_own, split_given = (t.unflatten(0, (len(ANCHORS[0]), -1)) for t in (own, given))
            split_own[:, :5] = split_given[:, :5]
    return sorted(tensors.keys() - taken)


def export(model: MultiTaskYOLO) -> dict[str, Tensor]:
    """The detector within `model` as a state dict with YOLOv5's names, for YOLOv5's own code (after
    `torch.save`) or for `start_from`. Raises ValueError if `model` does not detect."""
    if "detection" not in model.tasks:
        raise ValueError("this network does not detect; export one of a solution with detection")
    tensors = {
        _yolov5_name(name): tensor.detach().cpu().clone()
        for name, tensor in model.state_dict().items()
        if name.startswith(DETECTOR)
    }
    tensors[ANCHOR_CELLS] /= tensors[ANCHOR_CELLS].new_tensor(STRIDES)[:, None, None]
    return tensors


def restore(folder: str | Path) -> MultiTaskYOLO:
    """The network of a finished run, in eval mode, from the run's folder."""
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename}: not found; give the folder of a finished run, runs/<study>/<solution>/"
            "fold=<k>/seed=<s>"
        ) from None
    chosen = solution(config["solution"])
    counts = len(config["classes"]), len(config["views"])
    model = MultiTaskYOLO(config["size"], *counts, chosen.tasks, chosen.branch, chosen.width)
    model.load_state_dict(weights)
    return model.eval()


def _inert_classes(path: Path) -> list[type]:
    """A class for every object that the file may hold beside tensors and plain values; ValueError if it
    names anything else."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; give the path of a YOLOv5 checkpoint, as yolov5n.pt")
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(16)
        raise ValueError(
            f"{path}: is cut short; download it again"
            if start.startswith(b"PK")
            else f"{path}: is no PyTorch checkpoint (it starts with {start!r}); give one, as yolov5n.pt"
        )
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, ValueError, UnpicklingError, EOFError) as error:
        raise ValueError(f"{path}: is no PyTorch checkpoint, or damaged ({_first_line(error)})") from None
    refused = sorted(name for name in names if not name.startswith(ALLOWED))
    if refused:
        raise ValueError(
            f"{path}: holds {', '.join(refused[:5])}; only tensors, plain values and modules of YOLOv5 and "
            "PyTorch are read, nothing else is run. Use a checkpoint of YOLOv5 itself, or a state dict"
        )
    return [
        type(parts[-1], (_Inert,), {"__module__": parts[0]}) for parts in (n.rsplit(".", 1) for n in names)
    ]


def _load(path: Path, inert: list[type]):
    """What the file holds, by PyTorch's restricted unpickler."""
    try:
        with torch.serialization.safe_globals(inert):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({_first_line(error)}); download it again") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _tensors(module: _Inert, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """What `module.state_dict()` would give, had it its code."""
    state = vars(module)
    hidden = state.get("_non_persistent_buffers_set") or ()
    for name, tensor in {**state.get("_parameters", {}), **state.get("_buffers", {})}.items():
        if isinstance(tensor, Tensor) and name not in hidden:
            yield prefix + name, tensor.detach()
    for name, child in state.get("_modules", {}).items():
        if isinstance(child, _Inert):
            yield from _tensors(child, f"{prefix}{name}.")


def _yolov5_name(name: str) -> str | None:
    """YOLOv5's name of a tensor of `MultiTaskYOLO`; None for one it does not have (classification head)."""
    parts = name.split(".")
    rest = parts[2:] if parts[0] == "shared" else parts[3:]
    return ".".join(("model", *rest)) if rest[0].isdigit() else None


def _size_of(tensors: dict[str, Tensor], likely: str) -> str | None:
    """The size whose detector has exactly these names and shapes, or None."""
    if CLASSES not in tensors:
        return None
    classes = len(tensors[CLASSES]) // len(ANCHORS[0]) - 5
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    for size in (likely, *SIZES):
        with torch.device("meta"):
            model = MultiTaskYOLO(size, max(classes, 1), 0, ("detection",), "neck")
            if shapes == {_yolov5_name(name): t.shape for name, t in model.state_dict().items()}:
                return size
    return None
