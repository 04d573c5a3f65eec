"""Names that would be markup are text, from the files of a data set through the notebooks to the pages."""

import json
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from gradlib import explore
from gradlib.__main__ import main
from gradlib.data import phantom
from gradlib.data.files import one_line
from gradlib.evidence import controls, tables
from gradlib.plots import frames, style, training
from gradlib.plots.language import enable_cjk_font
from gradlib.report.rendering import bullets, escape, header
from gradlib.runs.read import load_study
from gradlib.study import executor, pages
from gradlib.study.spec import read_spec

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
MARKUP = (
    *(
        "<script>hostile()</script>",
        "<img src=hostile onerror=hostile()>",
        '"><svg onload=hostile()>',
        "</td>hostile",
    ),
    *(
        "[hostile](javascript:hostile())",
        "![hostile](hostile)",
        "<https://hostile>",
        "https://hostile.example",
    ),
    *(
        "**hostile**",
        "__hostile__",
        "`hostile`",
        "```hostile",
        "~~hostile~~",
        "a|hostile|b",
        "# hostile",
        "- hostile",
    ),
    *(
        r"$\input{hostile}$",
        "$hostile$",
        r"\hostile",
        "&lt;hostile&gt;",
        "hostile@example.org",
        "a\nhostile",
        "a\thostile",
    ),
    *(
        "\u202ehostile",
        "\x1b[31mhostile",
        "\x00hostile",
        "hostile" * 14,
        "' onclick='hostile()",
        "{{ hostile }}",
        "%hostile%",
    ),
)
# What a data.yaml may have for names, and what may stand before the first - of a file's.
CLASSES = [
    "[hostile](javascript:hostile())",
    "**hostile|** `hostile`",
    '" onclick="hostile()',
    "https://hostile.example",
]
VIEWS = ["__hostile__", "![hostile](hostile)", "&lt;hostile&gt; \u202e~~hostile~~"]
PATIENTS = [
    *(
        "<img src=hostile onerror=hostile()>",
        '"><svg onload=hostile()>',
        "[hostile](javascript:hostile())",
        "`hostile|`",
    ),
    *(
        r"$\input{hostile}$",
        "$hostile$",
        "__hostile__",
        "**hostile**",
        "<script>hostile()<!",
        "{{ hostile }}",
        "\u202ehostile",
        "梯度",
    ),
]


class Page(HTMLParser):
    """The elements of a page that a name has made, and its text."""

    def __init__(self, content: str):
        super().__init__()
        self.made, self.text, self._open = [], "", []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        bad = tag in ("script", "svg", "iframe", "object", "embed", "form", "base", "link")
        for name, value in attributes:
            said = (value or "").lower()
            bad |= name.startswith("on") or "javascript:" in said or ("hostile" in said and name != "alt")
        if bad:
            self.made.append((tag, attributes))
        if tag in ("a", "b", "code", "del", "em", "strong", "s", "h1", "h2", "li"):
            self._open.append([tag, ""])

    def handle_endtag(self, tag):
        if self._open and self._open[-1][0] == tag:
            said = self._open.pop()[1].strip()
            if tag not in ("li",) and said in ("hostile", "hostile|"):  # nothing but a name's inside
                self.made.append((tag, said))

    def handle_data(self, data):
        self.text += data
        for one in self._open:
            one[1] += data


@pytest.mark.parametrize("name", MARKUP)
def test_a_name_is_text_in_markdown(name):
    safe = escape(name)
    parts = (f"**{safe}**: {safe} is.", "\n".join((header(("a", "b")), f"| {safe} | 1 |")), bullets(safe))
    page = Page(markdown2html_mistune("\n\n".join(parts) + "\n"))
    assert page.made == [] and page.text.count(one_line(name)) == 4
    assert one_line(name).isprintable()


@pytest.mark.parametrize("name", MARKUP)
def test_a_name_is_text_in_tables(name):
    table = pd.DataFrame({name: [name, "b"]}, index=pd.Index([name, "c"], name="solution"))
    for shown in (table, tables.captioned(table, name)):
        page = Page(shown._repr_html_())
        assert page.made == []


@pytest.fixture
def close_figures():
    before = plt.rcParams.copy()
    plt.switch_backend("Agg")
    yield
    plt.close("all")
    plt.rcParams.update(before)


@pytest.mark.parametrize("name", MARKUP)
def test_a_name_is_text_in_figures(name, close_figures):
    enable_cjk_font(name)
    ax = frames.detections([np.zeros((8, 8, 3), np.uint8)], [[[0, 0.5, 0.5, 0.1, 0.1]]], [name], [name])[0, 0]
    assert style.png(ax.figure).startswith(b"\x89PNG")
    assert not any(text.get_parse_math() for text in (ax.title, *ax.texts))


def test_a_logarithmic_axis_has_numbers(close_figures):
    enable_cjk_font()
    runs = pd.DataFrame({("baseline", 0, 0): [0.3, 0.9, 2.0]})
    runs.columns.names, runs.index.name = ["solution", "fold", "seed"], "step"
    ax = training.curves(runs, "Loss", log=True)
    style.png(ax.figure)
    labels = [label.get_text() for label in ax.get_yticklabels(which="both") if label.get_text()]
    assert {"0.3", "0.6", "1", "2"} <= set(labels) and not any("$" in label for label in labels)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project of a study on a data set whose classes, views and patients are called like markup."""
    folder = tmp_path_factory.mktemp("project") / "set"
    phantom.write(folder, patients=len(PATIENTS), videos=1, frames=3, size=(96, 72))
    settings = yaml.safe_load((folder / "data.yaml").read_text())
    settings |= {
        "names": CLASSES[: len(settings["names"])],
        "image_classes": VIEWS[: len(settings["image_classes"])],
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True))
    files = [path for path in folder.rglob("*-*") if path.suffix in (".png", ".jpg", ".txt")]
    called = dict(zip(sorted({path.name.partition("-")[0] for path in files}), PATIENTS, strict=True))
    for path in files:
        patient, dash, rest = path.name.partition("-")
        path.rename(path.with_name(called[patient] + dash + rest))
    shutil.copytree(NOTEBOOKS, folder / "notebooks", ignore=shutil.ignore_patterns(".*", "figures"))
    text = "name: strange\ndata: data.yaml\nsolutions: [gradnorm, baseline]\n"
    (folder / "hostile.yaml").write_text(
        text + "parameters: {image_size: 64, epochs: 1, probe_every: 1, batch_size: 8}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["study", "hostile.yaml", "--workers", "2"]) == 0
    return folder


def check(page: Path, *shown: str) -> None:
    """That names are shown in this page, and have made nothing in it."""
    text = page.read_text(encoding="utf-8")
    found = Page(markdown2html_mistune(text) if page.suffix == ".md" else text)
    assert found.made == []
    for name in shown:
        assert one_line(name) in found.text or name in found.text, name
    if page.suffix == ".html":
        assert "Content-Security-Policy" in text and "default-src 'none'" in text


def test_the_names_of_a_data_set_are_text_in_its_pages(project):
    runs = project / "runs/strange"
    check(runs / "pages/data.html", *CLASSES, *VIEWS)
    shown = Page((runs / "pages/data.html").read_text(encoding="utf-8")).text
    assert sum(one_line(patient) in shown for patient in PATIENTS) >= 3
    check(runs / "pages/compare.html")  # classes are in its figures
    for page in ("analysis.html", "analysis.md", "analysis.zh-Hant.html"):
        check(runs / "pages" / page, *CLASSES, *VIEWS)
    for path in runs.rglob("seed=*/notebook.ipynb"):
        page = pages.write_html(path)
        check(page)
        shown = Page(page.read_text(encoding="utf-8")).text
        assert any(one_line(name) in shown for name in CLASSES)  # those with boxes in the test part


def test_nothing_is_said_of_them_but_the_page(project):
    for path in (project / "runs").rglob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                assert output.output_type != "error" and output.get("name") != "stderr", (path, output)


def test_the_names_of_a_strangers_run_are_text(project, monkeypatch):
    """What no data.yaml may have for a name, a run folder may."""
    monkeypatch.chdir(project)
    classes, views = (
        ["<script>hostile()</script>", "<img src=hostile onerror=hostile()>"],
        ["$\\input{hostile}$"],
    )
    for path in (project / "runs").rglob("config.json"):
        config = json.loads(path.read_text())
        config["classes"][:2], config["views"][:1] = classes, views
        config["solution"]["description"] = "<script>hostile()</script>"
        path.write_text(json.dumps(config))
        path.with_name("environment.json").write_text('{"accelerator": "<svg onload=hostile()>"}')
    stranger = project / "runs/strange/<script>hostile()<!/fold=0/seed=0"
    shutil.copytree(project / "runs/strange/baseline/fold=0/seed=0", stranger)
    os.remove(stranger / "notebook.ipynb")
    for job in read_spec("hostile.yaml").reports[:2]:
        assert executor.execute(job, str(project)).error == ""
        page = pages.write_html(project / job.output)
        check(page, "Complete, but not readable" if job.label == "analysis" else "1 not readable")
        assert "take letters, digits" in page.read_text()
    check(pages.write_markdown(project / job.output), *classes, *views)
    study = controls.with_controls(load_study("runs/strange"))
    for explore_study in (
        explore.explore_runs,
        explore.explore_conflicts,
        explore.explore_detections,
        explore.what_if,
    ):
        explorer = explore_study(study)
        for control in explorer.controls.values():
            if len(getattr(control, "options", ())) > 1:
                control.index = len(control.options) - 1  # the last class, view, patient, step
        assert Page(explorer.note.value).made == [] and "Error" not in explorer.note.value, (
            explorer.note.value
        )
