"""The executed notebooks that are shipped: figures of the real study, nothing of its frames or patients."""

import os
import re
from pathlib import Path

import nbformat
import pytest
import yaml

from gradlib.data import read_dataset

ROOT = Path(__file__).parent.parent
EXECUTED = sorted((ROOT / "notebooks/executed").glob("*.ipynb"))
NUMBER = re.compile(r"[-+]?\d+\.\d+")


def text_of(notebook: nbformat.NotebookNode) -> str:
    """What a notebook says: its cells, and its outputs but for pictures."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    said = [text for one in outputs for kind, text in one.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join([*(cell.source for cell in notebook.cells), *said])


def test_all_are_there():
    assert [path.name for path in EXECUTED] == [
        "02_compare.ipynb",
        "03_analysis.ipynb",
        "03_analysis.zh-Hant.ipynb",
    ]


@pytest.mark.parametrize("path", EXECUTED, ids=lambda path: path.name)
def test_no_frame_no_patient_no_path_no_error(path):
    assert path.stat().st_size < 1_500_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    told = notebook.metadata.papermill
    assert told.exception is None and told.parameters.study == "regurgitation"
    file = yaml.safe_load((ROOT / "notebooks/regurgitation.yaml").read_text())
    assert told.parameters.margin == file["margin"]
    if path.stem == "02_compare":  # what draws frames is off
        assert told.parameters.examples == 0 and told.parameters.interactive is False
    whole = path.read_text()
    assert not re.search(r'"output_type": "error"|application/vnd\.jupyter\.widget', whole)
    assert not re.search(r"(?<![\w.:/])/(home|root|tmp|work|Users|mnt|opt|usr)/|[A-Z]:\\\\", whole)
    assert not re.search(r"\.mp4|\.jpe?g", text_of(notebook))
    if data := os.environ.get("GRADLIB_REAL_DATA"):
        patients = {frame.patient for frame in read_dataset(data).frames}
        assert not [patient for patient in patients if patient in whole]


def test_the_numbers_of_the_readme_are_those_of_the_notebooks():
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("## What was found on real frames")[2].partition("\n## ")[0]
    said = "\n".join(text_of(nbformat.read(path, as_version=4)) for path in EXECUTED)
    shown, known = set(NUMBER.findall(section)), set(NUMBER.findall(said))
    assert len(shown) > 20 and not shown - known
