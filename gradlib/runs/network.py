"""The network of a run: what it costs, and loading it from the run's folder."""

import sys
from pathlib import Path

import torch

from gradlib.config import TASKS, find_solution
from gradlib.data.files import one_line
from gradlib.model.tensor_files import check_tensors, load_tensors
from gradlib.model.yolo import MultiTaskYOLO, multiply_adds
from gradlib.runs.schema import read_config


def model_cost(model: MultiTaskYOLO, image_size: int) -> dict[str, int]:
    """Numbers of parameters (all, shared, each task's own), and `macs`: multiply-additions of one image of
    image_size x image_size pixels."""

    def count(parameters) -> int:
        return sum(p.numel() for p in parameters)

    cost = {"parameters": count(model.parameters()), "macs": multiply_adds(model, image_size)}
    cost["parameters_shared"] = count(model.shared_parameters())
    own = {task: model.task_parameters(task) if task in model.tasks else () for task in TASKS}
    return cost | {f"parameters_{task}": count(parameters) for task, parameters in own.items()}


def peak_memory_mb(device: str) -> float:
    """The most memory that this process (on an accelerator: its tensors) has held, in MiB."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource  # not on Windows, where nothing else needs it

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def load_model(folder: str | Path) -> MultiTaskYOLO:
    """The network of a finished run, in eval mode, from the run's folder. Raises FileNotFoundError, or
    ValueError in one line, where the folder holds none."""
    path = Path(folder) / "model.pt"
    if not path.is_file():
        cure = "give the folder of a finished run, runs/<study>/<solution>/fold=<k>/seed=<s>"
        raise FileNotFoundError(f"{path}: not found; {cure}")
    config, weights = read_config(path.parent), load_tensors(path, cure="take it from the run again")
    if not isinstance(weights, dict):
        raise ValueError(f"{path}: holds no weights by name; give the folder of a finished run")
    try:
        solution = find_solution(config["solution"])
        sizes = config["size"], len(config["classes"]), len(config["views"])
        with torch.device("meta"):  # names and shapes, no memory
            expected = MultiTaskYOLO(*sizes, solution.tasks, solution.branch, solution.width).state_dict()
    except (KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else f"describes no network ({error})"
        text = f"{path.parent / 'config.json'}: {one_line(reason)[:200]}"
        raise ValueError(f"{text}; take it from the run again") from None
    weights = check_tensors(path, weights, expected)
    model = MultiTaskYOLO(*sizes, solution.tasks, solution.branch, solution.width)
    model.load_state_dict(weights)
    return model.eval()
