"""The network of a finished run, loaded from its folder."""

from pathlib import Path

import torch

from gradlib.config import find_solution
from gradlib.data.files import one_line
from gradlib.model.tensor_files import check_tensors, load_tensors
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.runs.schema import read_config


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
