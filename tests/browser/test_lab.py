"""What drives JupyterLab, on a notebook of which everything is known."""

import nbformat
import pytest

CELLS = (
    """\
import io, time
import ipywidgets
from PIL import Image

def drawn(shade):
    made = io.BytesIO()
    Image.new("RGB", (64, 48), shade).save(made, "png")
    return made.getvalue()""",
    """\
shade = ipywidgets.IntSlider(0, 0, 255, description="shade")
bright = ipywidgets.Checkbox(False, description="bright")
colour = ipywidgets.Dropdown(options=["grey", "red"], description="colour")
several = ipywidgets.SelectMultiple(options=["a", "b", "c"], description="several")
again = ipywidgets.Button(description="white")
figure, said = ipywidgets.Image(), ipywidgets.Label()

def draw(_=None):
    time.sleep(0.2)
    level = min(shade.value + 100 * bright.value, 255)
    figure.value = drawn((level, level, level) if colour.value == "grey" else (level, 0, 0))
    said.value = f"{shade.value} {bright.value} {colour.value} {several.value}"

def whiten(_):
    figure.value = drawn("white")

for one in (shade, bright, colour, several):
    one.observe(draw, "value")
again.on_click(whiten)
draw()
ipywidgets.VBox([shade, bright, colour, several, again, figure, said])""",
    """\
first = time.monotonic()
while time.monotonic() < first + 60:
    time.sleep(0.1)""",
    "drawn((1, 2, 3)) and Image.new('RGB', (32, 32))",
    "import sys; print('no good', file=sys.stderr)",
    "ipywidgets.Image(value=b'no picture')",
    "ipywidgets.HTML('<b>ValueError</b>: no good')",
)
EXPLORER, LONG, PICTURE, STDERR, BROKEN, SAID = 1, 2, 3, 4, 5, 6


@pytest.fixture
def notebook(project, lab):
    """A notebook with a figure behind sliders, a cell that takes long, and cells that are wrong."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(made, project / "notebooks/known.ipynb")
    return lab("notebooks/known.ipynb")


def test_widgets_are_moved_and_their_figure_changes(notebook):
    notebook.run(0)
    notebook.run("draw()")  # a cell by a text in it
    start = notebook.digest(EXPLORER)
    took = notebook.changed(EXPLORER, lambda: notebook.slide("shade"))
    assert 200 <= took < 5000  # it sleeps for 0.2 s
    assert notebook.digest(EXPLORER) != start
    notebook.changed(EXPLORER, lambda: notebook.tick("bright"))
    notebook.changed(EXPLORER, lambda: notebook.choose("colour", "red"))
    # There and back is a change, also where the way there has yet to be drawn.
    notebook.tick("bright", EXPLORER)
    notebook.changed(EXPLORER, lambda: (notebook.page.wait_for_timeout(1000), notebook.tick("bright")))
    notebook.choose("several", ["a", "c"])
    notebook.output(EXPLORER).get_by_text("1 True red ('a', 'c')").wait_for()
    notebook.changed(EXPLORER, lambda: notebook.press("white"))
    # Back to where it was, many steps at once: the last one counts.
    notebook.tick("bright", EXPLORER)
    notebook.choose("colour", "grey", EXPLORER)
    notebook.slide("shade", 5, EXPLORER)
    notebook.slide("shade", -6, EXPLORER)
    assert notebook.settled(EXPLORER) == start
    assert notebook.errors() == []


def test_a_figure_that_stays_is_said_to(notebook):
    notebook.run(0)
    notebook.run(EXPLORER)
    with pytest.raises(Exception, match="did not change in 1000 ms"):
        notebook.changed(EXPLORER, lambda: notebook.choose("several", ["a"]), seconds=1)


def test_a_cell_is_interrupted(notebook):
    notebook.run(0)
    notebook.start(LONG)
    notebook.interrupt()
    notebook.rest(20)
    (error,) = notebook.errors()
    assert "KeyboardInterrupt" in error
    notebook.run(PICTURE)  # the kernel lives
    assert notebook.figures(PICTURE) == [32]


def test_what_is_wrong_is_found(notebook):
    notebook.run(0)
    notebook.run(STDERR)
    assert notebook.errors() == ["no good\n"]
    notebook.run(BROKEN)
    assert notebook.figures() == [0]
    notebook.run(SAID)
    assert notebook.errors()[1:] == ["ValueError: no good"]
    page = notebook.page
    with page.expect_event("pageerror"):
        page.evaluate("void setTimeout(() => { throw new Error('of a script') })")
    with page.expect_console_message():
        page.evaluate("console.error('of a widget')")
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Restart Kernel…").click()
    page.locator(".jp-Dialog").wait_for()
    found = notebook.errors()
    assert [any(text in error for error in found) for text in ("script", "widget", "Restart Kernel?")] == [
        True
    ] * 3


def test_all_cells_run_until_one_fails(notebook):
    notebook.start()
    notebook.interrupt()
    notebook.rest(20)
    assert "KeyboardInterrupt" in notebook.errors()[0]
