"""gradlib: do detection and classification fight in the layers they share?

    checks     how values are checked: types, names, errors of one line
    config     Solution and Training: what a run is made of
    model      the YOLOv5-style network and where its tasks part; losses; checkpoints
    balance    how the tasks' losses are weighted: GradNorm, fixed weights, TorchJD
    train      the training step, the Trainer, metrics
    probe      what the tasks' gradients do in the shared layers
    data       data.yaml, labels, images, patient folds, the synthetic phantom
    runs       the run folder: written, read into pandas
    evidence   intervals, verdicts, diagnostics, controls
    plots      DataFrame -> matplotlib Axes
    report     the analysis, in English and Traditional Chinese
    explore    widgets for JupyterLab
    study      many runs from one file: executor, search, pages

Imports point upwards in this list; `python -m gradlib study FILE` runs a whole study.
"""

from collections.abc import Callable
from importlib import import_module


def offer(package: str, **modules: str) -> tuple[list[str], Callable, Callable]:
    """`__all__`, `__getattr__` and `__dir__` of a package whose names are imported on first use.

    modules: by submodule the names that it offers, separated by spaces.
    """
    source = {name: f"{package}.{module}" for module, names in modules.items() for name in names.split()}

    def load(name: str):
        if name not in source:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(source[name]), name)

    return list(source), load, lambda: sorted(source)


__version__ = "0.1.0"
__all__, __getattr__, __dir__ = offer(
    __name__,
    config="Solution Training Parameters",
    model="MultiTaskYOLO",
    balance="GradNorm",
    train="Trainer",
    data="read_dataset",
    runs="RunFolder load_study",
)
