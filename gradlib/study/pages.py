"""Executed notebooks as pages to share: HTML in one file, and Markdown with its figures.

A page holds everything it shows, and browsers are told to load nothing from elsewhere and to run nothing. A
figure's text for those who do not see it is `alt` in the metadata of the cell that draws it.
"""

import shutil
from pathlib import Path

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter, MarkdownExporter

from gradlib.runs.write import write_whole
from gradlib.study.spec import ANALYSIS, Job

WIDGET = "application/vnd.jupyter.widget-view+json"
# nbconvert's own template loads scripts from elsewhere; what does not move needs none.
HTML = """\
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
  img, svg, pre, tr { break-inside: avoid; max-width: 100% !important; height: auto !important; }
  table { font-size: 7.5pt !important; }
  .jp-RenderedHTMLCommon :is(th, td, pre) { white-space: pre-wrap; overflow-wrap: anywhere; }
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


def write(job: Job, project: Path) -> list[str]:
    """Write the pages of the executed notebook of `job`, the analysis as Markdown too; their paths in
    `project`."""
    notebook, language = project / job.output, job.parameters.get("language", "en")
    files = [write_html(notebook, language)]
    if job.notebook == ANALYSIS:
        files.append(write_markdown(notebook))
    return [file.relative_to(project).as_posix() for file in files]


def write_html(notebook: Path, language: str = "en") -> Path:
    """Write the executed `notebook`, without its code, as an HTML page next to it."""
    content = nbformat.read(notebook, as_version=4)
    content.metadata.pop("widgets", None)
    for cell in content.cells:  # an explorer is its picture, a progress bar is nothing
        if "outputs" in cell:
            data = [(output, output.get("data", {})) for output in cell.outputs]
            cell.outputs = [output for output, kinds in data if WIDGET not in kinds or "image/png" in kinds]
    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"page.html.j2": HTML})],
        template_file="page.html.j2",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    body, _ = exporter.from_notebook_node(content, {"metadata": {"name": notebook.stem}})
    # nbconvert's own setting knows languages of two letters only.
    body = body.replace('<html lang="en">', f'<html lang="{language}">', 1)
    write_whole(notebook.with_suffix(".html"), body)
    return notebook.with_suffix(".html")


def write_markdown(notebook: Path) -> Path:
    """Write the executed `notebook`, without its code, as Markdown; its figures go to <name>_files/."""
    folder = notebook.with_name(f"{notebook.stem}_files")
    loaders = [DictLoader({"page.md.j2": MARKDOWN})]
    exporter = MarkdownExporter(extra_loaders=loaders, template_file="page.md.j2", exclude_input=True)
    body, resources = exporter.from_filename(str(notebook), {"output_files_dir": folder.name})
    shutil.rmtree(folder, ignore_errors=True)  # figures of an earlier version
    for name, figure in resources["outputs"].items():
        write_whole(notebook.parent / name, figure)
    write_whole(notebook.with_suffix(".md"), body)
    return notebook.with_suffix(".md")
