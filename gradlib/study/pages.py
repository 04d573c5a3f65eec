"""Executed notebooks as pages to share: HTML in one file, Markdown with its figures, and PDF.

A page holds everything it shows, and browsers are told to load nothing from elsewhere and to run nothing. A
figure is said in words, for those who do not see it, by `alt` in the metadata of the cell that draws it.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter, MarkdownExporter

from gradlib.plots import fonts
from gradlib.runs.write import write_whole
from gradlib.study.spec import ANALYSIS, Job

__all__ = ["NO_BROWSER", "browser", "html", "markdown", "pdf", "write"]

BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    *("msedge", "microsoft-edge", "chrome"),
)
NO_BROWSER = "no Chromium, Chrome or Edge was found for a PDF: open the page in a browser and print it"
WIDGET = "application/vnd.jupyter.widget-view+json"
PATIENCE = 120  # seconds for a browser to print a page
# Scripts come from elsewhere in nbconvert's own template; none is needed for what does not move.
TEMPLATE = """\
{% extends "lab/index.html.j2" %}
{% block html_head_js %}
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:">
{% endblock %}
{% block data_png scoped %}
{%- set words = cell.metadata.get("alt", "figure") | escape_html -%}
{{ super() | replace("<img ", '<img alt="' ~ words ~ '" ', 1) }}
{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}
<style type="text/css">
@media print {
  @page { size: A4; margin: 15mm; }
  body.jp-Notebook, main, .jp-Cell, .jp-OutputArea, .jp-OutputArea-child, .jp-OutputArea-output,
  .jp-RenderedHTMLCommon { display: block !important; overflow: visible !important; padding: 0;
    break-inside: auto !important; }
  .jp-RenderedHTMLCommon { font-size: 10pt; }
  h1, h2, h3, h4, h5 { break-after: avoid; }
  img, svg, pre, tr { break-inside: avoid; }
  img, svg { max-width: 100% !important; height: auto !important; }
  p { orphans: 3; widows: 3; }
  table { break-inside: avoid; width: auto !important; max-width: 100% !important;
    table-layout: auto !important; font-size: 7.5pt !important; }
  thead { display: table-header-group; }
  .jp-RenderedHTMLCommon th, .jp-RenderedHTMLCommon td { padding: 2px 4px; white-space: normal;
    overflow-wrap: break-word; max-width: none !important; }
  /* A number is not taken apart, but where there are so many columns that they would leave the page. */
  table:has(tr > :nth-child(11)) :is(th, td), td code {
    overflow-wrap: anywhere; white-space: normal; }
  pre { white-space: pre-wrap !important; overflow-wrap: anywhere; }
}
</style>
{% endblock %}
"""
MARKDOWN = """\
{% extends "markdown/index.md.j2" %}
{% block data_png scoped %}
{{ super() | replace("![png]", "![" ~ cell.metadata.get("alt", "figure") ~ "]", 1) }}
{% endblock %}
"""


def write(job: Job, project: Path) -> tuple[list[Path], list[str]]:
    """All pages of the executed notebook of `job`: their paths, and what could not be made and why.

    The analysis is for readers: without its code, and also as Markdown and PDF.
    """
    notebook, language = project / job.output, job.parameters.get("language", "en")
    if job.notebook != ANALYSIS:
        return [html(notebook, language)], []
    page = html(notebook, language, code=False)
    written, lacking, program = [page, markdown(notebook)], [], browser()
    if program is None:
        return written, [NO_BROWSER]
    if line := fonts.lacks(language, printed=True):
        lacking.append(line)
    try:
        written.append(pdf(page, program))
    except OSError as error:
        lacking.append(str(error))
    return written, lacking


def html(notebook: Path, language: str = "en", code: bool = True) -> Path:
    """Write the executed `notebook` as an HTML page next to it, with or without its code."""
    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"page.html.j2": TEMPLATE})],
        template_file="page.html.j2",
        exclude_input=not code,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    body, _ = exporter.from_notebook_node(_still(notebook), {"metadata": {"name": notebook.stem}})
    # nbconvert's own setting knows languages of two letters only.
    body = body.replace('<html lang="en">', f'<html lang="{language}">', 1)
    return _written(notebook.with_suffix(".html"), body)


def _still(notebook: Path) -> nbformat.NotebookNode:
    """The notebook without what only moves: of an explorer the picture stays, a progress bar goes."""
    content = nbformat.read(notebook, as_version=4)
    content.metadata.pop("widgets", None)
    for cell in content.cells:
        if "outputs" in cell:
            cell.outputs = [
                output
                for output in cell.outputs
                if WIDGET not in output.get("data", {}) or "image/png" in output["data"]
            ]
    return content


def markdown(notebook: Path) -> Path:
    """Write the executed `notebook`, without its code, as Markdown; its figures go to <name>_files/."""
    folder = notebook.with_name(f"{notebook.stem}_files")
    exporter = MarkdownExporter(
        extra_loaders=[DictLoader({"page.md.j2": MARKDOWN})],
        template_file="page.md.j2",
        exclude_input=True,
    )
    body, resources = exporter.from_filename(str(notebook), {"output_files_dir": folder.name})
    if folder.is_dir():  # figures of an earlier version
        shutil.rmtree(folder)
    for name, figure in resources["outputs"].items():
        write_whole(notebook.parent / name, figure)
    return _written(notebook.with_suffix(".md"), body)


def browser() -> str | None:
    """The browser on this machine that can print to a file, if there is one."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def pdf(page: Path, program: str) -> Path:
    """Print the HTML `page` with the browser `program`. Raises OSError, in one line, where that fails."""
    target = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory(prefix="gradlib-", ignore_cleanup_errors=True) as private:
        printed = Path(private) / "page.pdf"
        command = [
            *(program, "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
            *("--disable-component-update", "--disable-sync", "--disable-quic", "--no-pdf-header-footer"),
            *(f"--user-data-dir={private}/profile", f"--print-to-pdf={printed}"),
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")  # it refuses to start for root with one
        try:
            done = subprocess.run(
                [*command, page.resolve().as_uri()], capture_output=True, text=True, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"{program} did not print {page.name} in {PATIENCE} s") from None
        if not printed.is_file():
            said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            raise OSError(f"{program} did not print {page.name}: {said}")
        return _written(target, printed.read_bytes())


def _written(path: Path, content: str | bytes) -> Path:
    write_whole(path, content)
    return path
