"""What an explorer consists of: controls above a figure and a note.

A figure is an image that is replaced whole, so it does not flicker. A notebook that is saved without the
state of its widgets keeps the first one.
"""

import html
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence

import ipyevents
import ipywidgets
import numpy as np
import traitlets
from matplotlib.figure import Figure

from gradlib.evidence.tables import RUN
from gradlib.plots import style
from gradlib.runs.write import Study

__all__ = ["NARROW", "SNUG", "WIDE", "Explorer", "Panel", "Ticks", "choice", "offer", "panels", "slider"]

WIDE = ipywidgets.Layout(width="22em")
NARROW = ipywidgets.Layout(width="15em")
SNUG = {"description_width": "initial"}
WRAPPED = ipywidgets.Layout(flex_flow="row wrap", align_items="center", grid_gap="2px 12px")
NOTE = '<div style="line-height: 1.4">{}</div>'
# JupyterLab has widgets heard of in a thread of its own, but each one's first move in the main thread.
_one_at_a_time = threading.RLock()


class Ticks(ipywidgets.HBox):
    """Boxes to tick, side by side; `value` holds the options that are ticked, all at first."""

    value = traitlets.Tuple()

    def __init__(self, label: str, options: Sequence[Hashable]):
        self._boxes = {
            option: ipywidgets.Checkbox(
                True, description=str(option), indent=False, layout=ipywidgets.Layout(width="auto")
            )
            for option in options
        }
        super().__init__([ipywidgets.Label(f"{label}:"), *self._boxes.values()], layout=WRAPPED)
        self.value = tuple(options)
        for box in self._boxes.values():
            box.observe(self._ticked, "value")

    def _ticked(self, change) -> None:
        self.value = tuple(option for option, box in self._boxes.items() if box.value)


class Panel(ipywidgets.VBox):
    """Widgets about a `figure`, an Image; readers without a kernel see it as a plain image."""

    def _repr_mimebundle_(self, **options) -> dict:
        still = {"image/png": bytes(self.figure.value)} if self.figure.value else {}
        return {**super()._repr_mimebundle_(**options), **still}


class Explorer(Panel):
    """Controls above a figure and a note; whichever control moves, both are drawn anew.

    study: what the figure names things of. controls: by name, each with a `value`. draw: called with an empty
    figure and every control's value by its name; returns the note, plain text; where it moves a control
    itself, nothing is drawn for that. size: in inches. clicked: called for a click into the figure's first
    axes, with x and y in their units; moves a control.
    """

    def __init__(
        self,
        study: Study,
        controls: Mapping[str, ipywidgets.Widget],
        draw: Callable[..., str],
        size: tuple[float, float] = (9.6, 3.8),
        clicked: Callable[[float, float], None] | None = None,
    ):
        self.controls, self._draw, self._size, self._clicked = dict(controls), draw, size, clicked
        config = study.config(*study.runs.iloc[0][RUN])
        self._lacking = style.letters(*study.runs["solution"], *config["classes"], *config["views"])
        self.figure = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))
        self.note = ipywidgets.HTML()
        self._drawing = False
        if clicked:
            ipyevents.Event(source=self.figure, watched_events=["click"]).on_dom_event(self._click)
        super().__init__(
            [ipywidgets.Box(list(controls.values()), layout=WRAPPED), self.figure, self.note],
        )
        for control in controls.values():
            control.observe(self.redraw, "value")
        self.redraw()

    def redraw(self, change=None) -> None:
        """Draw the figure and the note for the controls as they are."""
        with _one_at_a_time:
            if self._drawing:
                return
            figure, self._drawing = Figure(self._size), True
            try:
                note = self._draw(figure, **{name: one.value for name, one in self.controls.items()})
                note = html.escape(note)
                self.figure.value = style.png(figure)
                self._drawn = figure
            except Exception as error:  # raised in a callback, it would be seen by nobody
                note = f"<b>{type(error).__name__}</b>: {html.escape(str(error))}"
            finally:
                self._drawing = False
            self.note.value = NOTE.format(f"{note} {self._lacking}".rstrip())

    def _click(self, event: Mapping) -> None:
        """A click on the picture of the figure, at a size that is the browser's."""
        across = event["relativeX"] / event["boundingRectWidth"]
        down = event["relativeY"] / event["boundingRectHeight"]
        at = self._drawn.bbox.size * (across, 1 - down)
        if (ax := self._drawn.axes[0]).bbox.contains(*at):
            self._clicked(*ax.transData.inverted().transform(at))


def panels(figure: Figure, columns: int, **options) -> np.ndarray:
    """Axes side by side, [columns]. Margins are set, for a layout that is sought draws everything twice."""
    margins = {"left": 0.09, "right": 0.99, "top": 0.91, "bottom": 0.13, "wspace": 0.15 * columns, **options}
    return figure.subplots(1, columns, squeeze=False, gridspec_kw=margins)[0]


def choice(label: str, options, value=None, layout=NARROW) -> ipywidgets.Dropdown:
    """A list to choose from, values or pairs of label and value; the first, or `value`, is chosen."""
    options = list(options)
    first = options[0][1] if options and isinstance(options[0], tuple) else next(iter(options), None)
    return ipywidgets.Dropdown(
        options=options, value=first if value is None else value, description=label, layout=layout, style=SNUG
    )


def offer(control: ipywidgets.Dropdown | ipywidgets.SelectionSlider, options, value):
    """Let `control` offer these options, values or pairs of label and value, and choose `value`, or the first
    where there is no such option; what is chosen then."""
    options = tuple(options)
    if control.options != options:
        control.options = options  # the first is chosen then
        if value in (one[1] if isinstance(one, tuple) else one for one in options):
            control.value = value
    return control.value


def slider(label: str, value: float, low: float, high: float, step: float, form: str = ".2f"):
    """A slider from `low` to `high`, whose number is written as `form`."""
    room = ipywidgets.Layout(width=f"{17 + len(label) / 2:g}em")  # as much for the slide, whatever the label
    return ipywidgets.FloatSlider(
        value, min=low, max=high, step=step, description=label, readout_format=form, layout=room, style=SNUG
    )
