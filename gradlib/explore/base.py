"""What an explorer consists of: controls above a figure and a note.

A figure is an image that is replaced as a whole, so it does not flicker. A notebook that is saved without the
state of its widgets keeps the first one.
"""

import html
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence

import ipyevents
import ipywidgets
import numpy as np
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from gradlib.evidence.tables import RUN
from gradlib.plots import style
from gradlib.plots.language import enable_cjk_font
from gradlib.runs.read import StudyResults

ROW = ipywidgets.Layout(flex_flow="row wrap", align_items="center", grid_gap="2px 12px")
WHOLE_LABEL = {"description_width": "initial"}
NOTE = '<div style="line-height: 1.4">{}</div>'
DATA_MISSING = "the data that the study names is not on this machine"
# JupyterLab may send the moves of several controls at once, each to a thread of its own.
_draw_lock = threading.RLock()


class Checkboxes(ipywidgets.HBox):
    """Checkboxes side by side; `value` holds the options that are ticked, all at first."""

    value = traitlets.Tuple()

    def __init__(self, label: str, options: Sequence[Hashable]):
        fit = {"indent": False, "layout": {"width": "auto"}}
        self._boxes = {one: ipywidgets.Checkbox(True, description=str(one), **fit) for one in options}
        super().__init__([ipywidgets.Label(f"{label}:"), *self._boxes.values()], layout=ROW)
        self.value = tuple(options)
        for box in self._boxes.values():
            box.observe(self._update, "value")

    def _update(self, change) -> None:
        self.value = tuple(one for one, box in self._boxes.items() if box.value)


class Panel(ipywidgets.VBox):
    """Widgets with a `figure`, an Image; without a kernel the figure is shown as a plain image."""

    def __init__(self, above: Sequence[ipywidgets.Widget], below: Sequence[ipywidgets.Widget] = ()):
        self.figure = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))
        super().__init__([ipywidgets.Box(list(above), layout=ROW), self.figure, *below])

    def _repr_mimebundle_(self, **options) -> dict:
        image = {"image/png": bytes(self.figure.value)} if self.figure.value else {}
        return {**super()._repr_mimebundle_(**options), "text/plain": type(self).__name__, **image}


class Explorer(Panel):
    """Controls above a figure and a note; whichever control moves, both are drawn anew.

    study: its names of solutions, classes and views may need a font. controls: by name, each with a `value`.
    draw: called with an empty figure and every control's value by its name; returns the note as plain text.
    A control that `draw` itself moves starts no second drawing. size: in inches. clicked: called with x and y
    (data units) of a click into the figure's first axes; moves a control.
    """

    def __init__(
        self,
        study: StudyResults,
        controls: Mapping[str, ipywidgets.Widget],
        draw: Callable[..., str],
        size: tuple[float, float] = (9.6, 3.8),
        clicked: Callable[[float, float], None] | None = None,
    ):
        self.controls, self._draw, self._size, self._clicked = dict(controls), draw, size, clicked
        config = study.config(*study.runs.iloc[0][RUN])
        self._missing_font = enable_cjk_font(*study.runs["solution"], *config["classes"], *config["views"])
        self.note, self._drawing = ipywidgets.HTML(), False
        super().__init__(list(controls.values()), [self.note])
        if clicked:
            ipyevents.Event(source=self.figure, watched_events=["click"]).on_dom_event(self._on_click)
        for control in controls.values():
            control.observe(self.redraw, "value")
        self.redraw()

    def redraw(self, change=None) -> None:
        """Draw the figure and the note for the controls as they are."""
        with _draw_lock:
            if self._drawing:
                return
            figure, self._drawing = Figure(self._size), True
            try:
                values = {name: control.value for name, control in self.controls.items()}
                note = html.escape(self._draw(figure, **values))
                self.figure.value = style.png(figure)
                self._drawn = figure
            except Exception as error:  # raised in a callback, nobody would see it
                note = f"<b>{type(error).__name__}</b>: {html.escape(str(error))}"
            finally:
                self._drawing = False
            self.note.value = NOTE.format(f"{note} {self._missing_font}".rstrip())

    def _on_click(self, event: Mapping) -> None:
        """A click into the image, which the browser may have scaled."""
        across = event["relativeX"] / event["boundingRectWidth"]
        down = event["relativeY"] / event["boundingRectHeight"]
        at = self._drawn.bbox.size * (across, 1 - down)
        if (ax := self._drawn.axes[0]).bbox.contains(*at):
            self._clicked(*ax.transData.inverted().transform(at))


def axes_row(figure: Figure, columns: int, **options) -> np.ndarray:
    """Axes side by side [columns], with fixed margins: a layout engine would draw everything twice."""
    margins = {"left": 0.09, "right": 0.99, "top": 0.91, "bottom": 0.13, "wspace": 0.15 * columns, **options}
    return figure.subplots(1, columns, squeeze=False, gridspec_kw=margins)[0]


def choice(label: str, options, em: int = 15, widget: type = ipywidgets.Dropdown) -> ipywidgets.Widget:
    """A dropdown (or slider) of values, or of pairs (label, value); the first is chosen. em: its width."""
    layout = {"width": f"{em}em"}
    return widget(options=list(options), description=label, index=0, layout=layout, style=WHOLE_LABEL)


def slider(label: str, value: float, low: float, high: float, step: float, form: str = ".2f"):
    """A slider from `low` to `high`, of integers where `step` is one. form: the format of its number."""
    widget = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
    scale = {"min": low, "max": high, "step": step, "readout_format": "d" if isinstance(step, int) else form}
    layout = {"width": f"{17 + len(label) / 2:g}em"}  # the track is as long for every label
    return widget(value, description=label, style=WHOLE_LABEL, layout=layout, **scale)


def set_options(control: ipywidgets.Dropdown | ipywidgets.SelectionSlider, options, value):
    """Give `control` these options, values or pairs (label, value), and choose `value`, or the first option
    where it is none of them; returns the value chosen."""
    options = tuple(options)
    if control.options != options:
        control.options = options  # chooses the first
        if value in (one[1] if isinstance(one, tuple) else one for one in options):
            control.value = value
    return control.value


def run_options(study: StudyResults, solutions: Sequence[str]) -> list[tuple[str, tuple]]:
    """The runs of these solutions as options: pairs of a label and the run's (solution, fold, seed)."""
    rows = study.runs[study.runs["solution"].isin(solutions)]
    keys = rows[RUN].itertuples(index=False, name=None)
    return sorted((f"{name}, fold {fold}, seed {seed}", (name, fold, seed)) for name, fold, seed in keys)


def rows_of(table: pd.DataFrame, run: tuple) -> pd.DataFrame:
    """The rows of one run (solution, fold, seed)."""
    return table[(table[RUN] == list(run)).all(axis=1)]
