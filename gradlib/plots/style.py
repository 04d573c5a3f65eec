"""What all figures share: the colour of a solution, axes, legends, PNG files."""

import io
import textwrap
import zlib
from collections import Counter

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from gradlib.config import SOLUTIONS, in_registry_order
from gradlib.plots.language import translate

# With any kind of colour vision, lines in the first ten are told apart, and larger marks in all twenty; each
# stands out from white. The tests measure it.
PALETTE = (
    *("#1e4696", "#be461e", "#148c64", "#8c0afa", "#461414", "#0096fa", "#d28200", "#0a1e50", "#8c9696"),
    *("#8c140a", "#e454cc", "#0c009c", "#f04878", "#00483c", "#78546c", "#6c3060", "#9c789c", "#60609c"),
    *("#0c6c54", "#3c5430"),
)
SHADES = sns.color_palette("colorblind")  # for what is no solution
# The place in the palette of each solution in the registry, or whose colour was requested.
_places = {name: place for place, name in enumerate(SOLUTIONS)}


def colour(name: str) -> tuple[float, float, float]:
    """The colour of a solution, the same in every figure: by its place in the registry.

    Other solutions get one of the second ten, so none looks like one of the first: by a checksum of their
    name (`hash` differs from process to process), or the next that no other solution has in this process.
    """
    if name not in _places:
        taken, start = Counter(_places.values()), zlib.crc32(name.encode())
        _places[name] = min((10 + (start + i) % 10 for i in range(10)), key=taken.__getitem__)
    return to_rgb(PALETTE[_places[name] % len(PALETTE)])


def axes(ax: Axes | None, title: str, x: str, y: str, size=(6.4, 4.0), grid: bool = True) -> Axes:
    """`ax`, or axes of a new figure, with its title and labels, and a grid behind what is drawn."""
    size = [min(side, 24) for side in size]  # inches, as of a table of many classes
    ax = ax if ax is not None else plt.subplots(figsize=size, layout="constrained")[1]
    ax.set(xlabel=x, ylabel=y)
    ax.set_title(title, y=1)  # else matplotlib lays out all ticks to look for a place above them
    sns.despine(ax=ax)
    if grid:
        ax.locator_params(nbins=6)
        ax.grid(alpha=0.25, linewidth=0.6)
        ax.set_axisbelow(True)
    return ax


def legend(ax: Axes, beside: bool = False) -> Axes:
    """`ax` with its legend, or with a note that there is nothing to show.

    beside: right of the axes. A long legend goes there too, if the figure has a layout that makes room.
    """
    if entries := _legend_entries(ax):
        beside = beside or (len(entries) > 4 and ax.figure.get_layout_engine() is not None)
        place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if beside else {}
        ax.legend(frameon=False, fontsize="small", **place)
    return ax


def one_legend(figure: Figure) -> None:
    """A legend of the solutions in all axes of `figure`, in its right margin; a note in axes without any."""
    lines = {name: line for ax in figure.axes for name, line in _legend_entries(ax).items()}
    labels = {name: textwrap.fill(name, 20) for name in in_registry_order(lines)}
    handles = [lines[name] for name in labels]
    figure.legend(handles, labels.values(), loc="center right", frameon=False, fontsize="small")


def _legend_entries(ax: Axes) -> dict:
    """What the legend of `ax` shows, by label; where that is nothing, `ax` gets a note."""
    handles, labels = ax.get_legend_handles_labels()
    if not labels:
        words = translate("label.nothing")
        ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", color="0.4")
    return dict(zip(labels, handles, strict=True))


class _PlainNumbers(LogFormatter):
    """The ticks that LogFormatter labels, with plain numbers: 0.6, not 6e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def log_scale(ax: Axes) -> None:
    """A logarithmic vertical axis with plain numbers: formulas are off, see `enable_cjk_font`."""
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(_PlainNumbers())
    # All ticks of less than three quarters of a decade, some of up to one and a half.
    ax.yaxis.set_minor_formatter(_PlainNumbers(minor_thresholds=(1.5, 0.75)))


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    # zlib's fastest level: of a photograph the default makes a tenth less in four times the time.
    figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 1})
    return buffer.getvalue()
