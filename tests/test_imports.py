"""Importing the core is cheap: no package that it does not need."""

import re
import subprocess
import sys

import pytest

HEAVY = {"pandas", "matplotlib", "IPython", "dask", "optuna", "papermill", "sklearn", "seaborn"}


def imported(statement: str) -> set[str]:
    """The top-level packages that a new process imports for `statement`."""
    command = [sys.executable, "-X", "importtime", "-c", statement]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = re.findall(r"^import time:.*\|\s+([\w.]+)$", result.stderr, re.MULTILINE)
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize(
    ("statement", "needed"),
    [
        ("from gradlib import GradNorm", {"torch"}),
        ("from gradlib import MultiTaskYOLO", {"torch"}),
        ("from gradlib import Solution, Training", set()),
        ("import gradlib, gradlib.balance, gradlib.model, gradlib.probe, gradlib.train", set()),
    ],
)
def test_the_core_imports_torch_at_most(statement, needed):
    packages = imported(statement)
    assert packages & (HEAVY | {"torch"}) == needed
    assert "gradlib" in packages
