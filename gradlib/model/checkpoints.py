"""Weights from files: official YOLOv5 checkpoints, exported detectors, the networks of finished runs.

An official checkpoint pickles a whole foreign object. None of its code is needed or run: PyTorch's
restricted unpickler reads the file, with an inert object in the place of every network module that it
names (see `tensorfiles`), and the tensors are taken out of these.
"""

from pathlib import Path

import torch
from torch import Tensor

from gradlib.config import find_solution
from gradlib.data.files import one_line
from gradlib.model import tensor_files
from gradlib.model.tensor_files import Inert
from gradlib.model.yolo import ANCHORS, SIZES, STRIDES, MultiTaskYOLO
from gradlib.runs import schema

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
MODULES = 10_000  # of a checkpoint; YOLOv5x has some 500


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a YOLOv5 checkpoint (or of a detector that `export` gave) by YOLOv5's names, floating
    point as float32.

    The averaged weights (`ema`) come before the last ones (`model`), as in YOLOv5. Raises
    FileNotFoundError, or ValueError naming the file and what it holds if it is no checkpoint, is cut short,
    or holds anything but tensors, plain values and modules. Nothing of such a file is run.
    """
    path = Path(path)
    content = tensor_files.load(path, ALLOWED)
    if isinstance(content, dict) and "model" in content:
        content = content["model"] if content.get("ema") is None else content["ema"]
    if isinstance(content, Inert):
        try:
            tensors = _tensors(content)
        except (AttributeError, TypeError, ValueError):  # called a module, and not built like one
            tensors = {}
    elif isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values()):
        tensors = content
    else:
        tensors = {}
    if not tensors:
        raise ValueError(f"{path}: holds no network; give a YOLOv5 checkpoint or an exported detector")
    tensors = tensor_files.checked(path, tensors)
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
    """The network of a finished run, in eval mode, from the run's folder. Raises FileNotFoundError, or
    ValueError in one line, where the folder holds none."""
    folder = Path(folder)
    path = folder / "model.pt"
    try:
        config = schema.config(folder)
        weights = tensor_files.load(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{str(error).partition(': ')[0]}: not found; give the folder of a finished run, "
            "runs/<study>/<solution>/fold=<k>/seed=<s>"
        ) from None
    if not isinstance(weights, dict):
        raise ValueError(f"{path}: holds no weights by name; give the folder of a finished run")
    weights = tensor_files.checked(path, weights)
    try:
        chosen = find_solution(config["solution"])
        counts = len(config["classes"]), len(config["views"])
        asked = config["size"], *counts, chosen.tasks, chosen.branch, chosen.width
        with torch.device("meta"):  # of any size, for nothing
            expected = MultiTaskYOLO(*asked).state_dict()
    except (KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        reason = (
            f"lacks {error}" if isinstance(error, KeyError) else f"asks for no network ({one_line(error)[:200]})"
        )
        raise ValueError(f"{folder / 'config.json'}: {reason}; take it from the run again") from None
    for name in {**expected, **weights}:
        own, given = (_kind(tensors.get(name)) for tensors in (expected, weights))
        if own != given:
            text = f"{one_line(name)[:100]} is {given}, and config.json asks for {own}"
            raise ValueError(f"{path}: {text}: both must be of one run")
    model = MultiTaskYOLO(*asked)
    model.load_state_dict(weights)
    return model.eval()


def _kind(tensor: Tensor | None) -> str:
    """A tensor's shape and kind of numbers, for an error."""
    if tensor is None:
        return "not there"
    return f"{list(tensor.shape)} of {'floats' if tensor.is_floating_point() else 'whole numbers'}"


def _tensors(root: Inert) -> dict[str, Tensor]:
    """What `root.state_dict()` would give, had it its code. ValueError where there are too many modules: one
    may hold itself, or the same one twice, and so on."""
    found, todo, seen = {}, [("", root)], 0
    while todo:
        seen += 1
        if seen + len(todo) > MODULES:
            raise ValueError("too many modules")
        prefix, module = todo.pop()
        state = vars(module)
        hidden = state.get("_non_persistent_buffers_set") or ()
        for name, tensor in {**state.get("_parameters", {}), **state.get("_buffers", {})}.items():
            if isinstance(tensor, Tensor) and name not in hidden:
                found[f"{prefix}{name}"] = tensor.detach()
        for name, child in state.get("_modules", {}).items():
            if isinstance(child, Inert):
                todo.append((f"{prefix}{name}.", child))
    return found


def _yolov5_name(name: str) -> str | None:
    """YOLOv5's name of a tensor of `MultiTaskYOLO`; None for one it does not have (classification head)."""
    parts = name.split(".")
    rest = parts[2:] if parts[0] == "shared" else parts[3:]
    return ".".join(("model", *rest)) if rest[0].isdigit() else None


def _size_of(tensors: dict[str, Tensor], likely: str) -> str | None:
    """The size whose detector has exactly these names and shapes, or None."""
    if CLASSES not in tensors:
        return None
    classes = tensors[CLASSES].numel() // len(ANCHORS[0]) - 5
    kinds = {name: _kind(tensor) for name, tensor in tensors.items()}
    for size in (likely, *SIZES):
        with torch.device("meta"):
            model = MultiTaskYOLO(size, max(classes, 1), 0, ("detection",), "neck")
            if kinds == {_yolov5_name(name): _kind(t) for name, t in model.state_dict().items()}:
                return size
    return None
