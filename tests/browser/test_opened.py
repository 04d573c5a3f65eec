"""Every notebook in JupyterLab: opened, all cells run, and looked at."""

from pathlib import Path

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
DATA = {"data": "small/data.yaml"}
TRAINING = {"image_size": 64, "epochs": 2, "probe_every": 2}
DIGITS = {"seeds": 2, "epochs": 1, "pairs": 400}
PAPER = {"seeds": 2, "steps": 20, "samples": 200, "every": 10}


@pytest.mark.parametrize(
    ("name", "given", "figures"),
    [
        pytest.param("00_data", DATA, 4, id="00_data"),
        pytest.param("01_solution", DATA | TRAINING, 10, id="01_solution"),
        pytest.param("02_compare", {"study": "small"}, 16, id="02_compare"),
        pytest.param("03_analysis", {"study": "small"}, 3, id="03_analysis"),
        pytest.param("04_search", {"study": "searched"}, 3, id="04_search"),
        pytest.param("10_gradnorm_paper", PAPER, 2, id="10_gradnorm_paper"),
        pytest.param("11_two_digits", DIGITS, 3, id="11_two_digits"),
    ],
)
def test_a_notebook_runs_and_shows_its_figures(name, given, figures, project, lab, request):
    if "study" in given:
        request.getfixturevalue(given["study"])
    notebook = parameterize_notebook(load_notebook_node(str(NOTEBOOKS / f"{name}.ipynb")), given)
    nbformat.write(notebook, project / f"notebooks/{name}.ipynb")
    opened = lab(f"notebooks/{name}.ipynb")
    opened.run()
    assert opened.errors() == []
    shown = opened.figures()
    assert len(shown) >= figures and min(shown) > 0
    assert opened.output().locator("a[href^='mailto:']").count() == 0  # mAP@0.5 is no address
