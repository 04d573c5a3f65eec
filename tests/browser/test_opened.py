"""Every notebook in JupyterLab: opened, all cells run, and looked at."""

import pytest
from lab import pictures_of
from nbconvert import HTMLExporter

DATA = {"data": "small/data.yaml"}
TRAINING = {"image_size": 64, "epochs": 2, "probe_every": 2}
DIGITS = {"seeds": 2, "epochs": 1, "pairs": 400}
PAPER = {"seeds": 2, "steps": 20, "samples": 200, "every": 10}
PLANTED = {"seeds": 1, "repetitions": 1, "probes": 6, "steps": 12, "large": 500}


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
        pytest.param("12_planted_conflict", PLANTED, 2, id="12_planted_conflict"),
    ],
)
def test_a_notebook_runs_and_shows_its_figures(name, given, figures, opened, page, request):
    if "study" in given:
        request.getfixturevalue(given["study"])
    notebook = opened(name, given)
    notebook.run()
    assert notebook.errors() == []
    shown = notebook.figures()
    assert len(shown) >= figures and min(shown) > 0
    assert notebook.output().locator("a[href^='mailto:']").count() == 0  # mAP@0.5 is no address
    # What JupyterLab's menu exports, without a kernel.
    saved = notebook.save()
    exported = saved.with_suffix(".html")
    exported.write_text(HTMLExporter().from_filename(str(saved))[0], encoding="utf-8")
    assert exported.stat().st_size < 5e6
    shown = pictures_of(saved, exported, page.context)
    assert len(shown) >= figures and min(shown) > 0
