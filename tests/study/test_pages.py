"""Pages of an executed notebook: complete in themselves, in each format."""

import base64
import re
from html import unescape

import nbformat
import pytest

from gradlib.study import pages
from gradlib.study.spec import ANALYSIS, COMPARE, Job

# One pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
COLUMNS = [f"a column of number {number}" for number in range(16)]
TABLE = "\n".join(f"|{'|'.join(row)}|" for row in (COLUMNS, ["---"] * 16, *[["0.123"] * 16] * 4))


@pytest.fixture
def notebook(tmp_path):
    """An executed notebook with text, a wide table and a figure."""
    outputs = [
        nbformat.v4.new_output("display_data", {"text/markdown": f"## Gains\n\n{TABLE}\n"}),
        nbformat.v4.new_output("display_data", {"image/png": PNG, "text/plain": "<Figure>"}),
        nbformat.v4.new_output("display_data", {"text/markdown": "梯度衝突"}),
    ]
    cells = [
        nbformat.v4.new_markdown_cell("# The analysis"),
        nbformat.v4.new_code_cell("show(everything)", outputs=outputs, execution_count=1),
    ]
    path = tmp_path / "runs/demo/analysis.zh-Hant.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_html_holds_everything(notebook):
    page = pages.write_html(notebook, "zh-Hant")
    text = page.read_text(encoding="utf-8")
    assert page.name == "analysis.zh-Hant.html"
    assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]*"', text)
    assert "<script" not in text and "everything" not in text
    assert '<html lang="zh-Hant">' in text and "梯度衝突" in text
    assert f"data:image/png;base64,{PNG}" in text.replace("\n", "")
    assert "break-inside: avoid" in text


def test_of_a_figure_its_words_are_there(notebook):
    content = nbformat.read(notebook, as_version=4)
    words = content.cells[1].metadata["alt"] = 'cosines "by stage" < 0 >'
    nbformat.write(content, notebook)
    text = pages.write_html(notebook).read_text(encoding="utf-8")
    (said,) = re.findall(r"<img[^>]* alt='([^']*)'", text)
    assert "<" not in said and unescape(said) == words
    assert f"![{words}](" in pages.write_markdown(notebook).read_text(encoding="utf-8")


def test_of_widgets_their_pictures_stay(notebook):
    """For the state that papermill saves, nbconvert would leave room for scripts that a page has not."""
    content, shown = nbformat.read(notebook, as_version=4), {pages.WIDGET: {"model_id": "one"}}
    bar = nbformat.v4.new_output("display_data", {**shown, "text/plain": "0% of the steps"})
    explorer = nbformat.v4.new_output("display_data", {**shown, "text/plain": "Explorer()", "image/png": PNG})
    content.cells[1].outputs = [bar, explorer]
    state = {"state": {"one": {"model_name": "VBoxModel"}}, "version_major": 2, "version_minor": 0}
    content.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": state}
    nbformat.write(content, notebook)
    text = pages.write_html(notebook).read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 2  # the figure and the explorer
    assert not re.search(r"0% of the steps|Explorer\(\)|VBoxModel", text)


def test_markdown_has_its_figures_beside_it(notebook):
    stale = notebook.with_name("analysis.zh-Hant_files") / "old.png"
    stale.parent.mkdir()
    stale.touch()
    text = pages.write_markdown(notebook).read_text(encoding="utf-8")
    assert "# The analysis" in text and "|a column of number 0|" in text and "梯度衝突" in text
    assert "everything" not in text
    (link,) = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert link.startswith("analysis.zh-Hant_files/")
    assert (notebook.parent / link).read_bytes() == base64.b64decode(PNG)
    assert not stale.exists()


def test_only_the_analysis_is_markdown_too(notebook, tmp_path):
    def write(template: str) -> list[str]:
        return pages.write(
            Job("x", template, f"runs/demo/{notebook.name}", {"language": "zh-Hant"}), tmp_path
        )

    assert write(COMPARE) == ["runs/demo/analysis.zh-Hant.html"]
    assert write(ANALYSIS) == ["runs/demo/analysis.zh-Hant.html", "runs/demo/analysis.zh-Hant.md"]
