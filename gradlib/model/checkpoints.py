"""Weights from and for YOLOv5's own files: official checkpoints, exported detectors.

An official checkpoint pickles a whole object of YOLOv5's classes. None of their code is needed or run: see
`tensor_files`. The tensors are taken out of the inert objects that stand for its modules.
"""

import contextlib
from pathlib import Path

import torch
from torch import Tensor

from gradlib.model.tensor_files import Inert, check_tensors, describe, load_tensors
from gradlib.model.yolo import ANCHORS, SIZES, STRIDES, MultiTaskYOLO

ALLOWED = (
    *("models.", "torch.nn.modules."),  # YOLOv5's own modules, and PyTorch's
    # A checkpoint saved during a training keeps its best fitness as an array, and its options.
    *("numpy.core.multiarray.", "numpy._core.multiarray.", "numpy.ndarray", "numpy.dtype", "numpy.float"),
    *(
        "pathlib.P",
        "pathlib.W",
        "pathlib._local.",
        "datetime.",
        "argparse.Namespace",
        "types.SimpleNamespace",
    ),
)
ANCHOR_CELLS = "model.24.anchors"  # in a file in cells of each level, in the network in pixels
CLASS_BIAS = "model.24.m.0.bias"  # [A * (5 + K)]
MAX_MODULES = 10_000  # of a checkpoint; YOLOv5x has some 500


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a YOLOv5 checkpoint, or of one from `export`, by YOLOv5's names, floats as float32.

    The averaged weights (`ema`) come before the last ones (`model`), as in YOLOv5. Raises FileNotFoundError,
    or ValueError naming the file and its content if it is no checkpoint, is cut short, or holds anything but
    tensors, plain values and modules. Nothing in the file is run.
    """
    path = Path(path)
    content = load_tensors(path, ALLOWED)
    if isinstance(content, dict) and "model" in content:
        content = content["model"] if content.get("ema") is None else content["ema"]
    tensors = {}
    if isinstance(content, Inert):
        with contextlib.suppress(AttributeError, TypeError, ValueError):  # named like a module only
            tensors = _state_dict(content)
    elif isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values()):
        tensors = content
    if not tensors:
        raise ValueError(f"{path}: holds no network; give a YOLOv5 checkpoint or an exported detector")
    tensors = check_tensors(path, tensors)
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def start_from(model: MultiTaskYOLO, path: str | Path) -> list[str]:
    """Copy the weights of a YOLOv5 checkpoint into every layer of `model` that YOLOv5 has too. Every copy of
    a layer gets the same, so that two backbones start equal. The classification head keeps its start.

    With another number of classes the rows of Detect that predict classes are left out. Returns the names of
    the tensors that were not, or only in part, copied. Raises as `read_checkpoint` does, and ValueError if
    the file is of another size or another network, or if `model` has another width than YOLOv5's.
    """
    if model.width != 1:
        raise ValueError(
            f"{path}: a checkpoint has YOLOv5's own channels, and this network is {model.width:g} times as "
            "wide; leave 'pretrained' out, for the solutions it is compared with too, or take width 1"
        )
    tensors = read_checkpoint(path)
    size = _size_of(tensors, model.size)
    if size is None:
        raise ValueError(f"{path}: holds no YOLOv5 detector of release 6 or 7; give yolov5{model.size}.pt")
    if size != model.size:
        cure = f"set size to {size!r} or give yolov5{model.size}.pt"
        raise ValueError(f"{path}: holds a YOLOv5{size}, and the run's size is {model.size!r}; {cure}")
    copied = set()
    for name, own in model.state_dict().items():
        official = _yolov5_name(name)
        if official is None:
            continue
        given = tensors[official].to(own.device)
        if official == ANCHOR_CELLS:
            given = given * given.new_tensor(STRIDES)[:, None, None]
        if given.shape == own.shape:
            own.copy_(given)
            copied.add(official)
        else:  # Detect, of another number of classes: box and objectness come first
            rows, given_rows = (t.unflatten(0, (len(ANCHORS[0]), -1)) for t in (own, given))  # [A, 5 + K]
            rows[:, :5] = given_rows[:, :5]
    return sorted(tensors.keys() - copied)


def export(model: MultiTaskYOLO) -> dict[str, Tensor]:
    """The detector in `model` as a state dict with YOLOv5's names, for YOLOv5's own code (after `torch.save`)
    or for `start_from`. Raises ValueError if `model` does not detect."""
    if "detection" not in model.tasks:
        raise ValueError("this network does not detect; export one of a solution with detection")
    tensors = {
        _yolov5_name(name): tensor.detach().cpu().clone()
        for name, tensor in model.state_dict().items()
        if name.startswith(("shared.", "paths.detection."))
    }
    tensors[ANCHOR_CELLS] /= tensors[ANCHOR_CELLS].new_tensor(STRIDES)[:, None, None]
    return tensors


def _state_dict(root: Inert) -> dict[str, Tensor]:
    """The result of `root.state_dict()`, without its code. ValueError for too many modules: one may hold
    itself, or the same one twice, and so on."""
    tensors, stack, visited = {}, [("", root)], 0
    while stack:
        visited += 1
        if visited + len(stack) > MAX_MODULES:
            raise ValueError("too many modules")
        prefix, module = stack.pop()
        state = vars(module)
        hidden = state.get("_non_persistent_buffers_set") or ()
        for name, tensor in {**state.get("_parameters", {}), **state.get("_buffers", {})}.items():
            if isinstance(tensor, Tensor) and name not in hidden:
                tensors[f"{prefix}{name}"] = tensor.detach()
        for name, child in state.get("_modules", {}).items():
            if isinstance(child, Inert):
                stack.append((f"{prefix}{name}.", child))
    return tensors


def _yolov5_name(name: str) -> str | None:
    """YOLOv5's name of a tensor of `MultiTaskYOLO`; None for one it does not have (classification head)."""
    parts = name.split(".")
    rest = parts[2:] if parts[0] == "shared" else parts[3:]
    return ".".join(("model", *rest)) if rest[0].isdigit() else None


def _size_of(tensors: dict[str, Tensor], likely: str) -> str | None:
    """The size whose detector has exactly these names and shapes, or None."""
    if CLASS_BIAS not in tensors:
        return None
    classes = tensors[CLASS_BIAS].numel() // len(ANCHORS[0]) - 5
    given = {name: describe(tensor) for name, tensor in tensors.items()}
    for size in (likely, *SIZES):
        with torch.device("meta"):  # names and shapes, no memory
            model = MultiTaskYOLO(size, max(classes, 1), 0, ("detection",), "neck")
        if given == {_yolov5_name(name): describe(t) for name, t in model.state_dict().items()}:
            return size
    return None
