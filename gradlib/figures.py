"""What all figures have in common: the colour of a solution, how axes and legends look, a PNG file."""

import io
import zlib

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from gradlib.config import SOLUTIONS

__all__ = ["axes", "colour", "legend", "png"]

# With any kind of colour vision, lines in the first ten are told apart, and larger marks in all twenty; each
# stands out from white. The tests measure it.
PALETTE = (
    *("#1e4696", "#be461e", "#148c64", "#8c0afa", "#461414", "#0096fa", "#d28200", "#0a1e50", "#8c9696"),
    *("#8c140a", "#e454cc", "#0c009c", "#f04878", "#00483c", "#78546c", "#6c3060", "#9c789c", "#60609c"),
    *("#0c6c54", "#3c5430"),
)


def colour(name: str) -> tuple[float, float, float]:
    """The colour of a solution, the same in every figure: by its place in the registry.

    Other solutions get one of the second ten by a checksum of their name (`hash` differs from process to
    process), so none looks like one of the first.
    """
    known = list(SOLUTIONS)
    place = known.index(name) if name in known else 10 + zlib.crc32(name.encode()) % 10
    return to_rgb(PALETTE[place % len(PALETTE)])


def axes(ax: Axes | None, title: str, x: str, y: str, size=(6.4, 4.0)) -> Axes:
    """`ax`, or axes of a new figure, with its title and labels."""
    ax = ax if ax is not None else plt.subplots(figsize=size, layout="constrained")[1]
    ax.set(title=title, xlabel=x, ylabel=y)
    sns.despine(ax=ax)
    ax.grid(alpha=0.25, linewidth=0.6)
    return ax


def legend(ax: Axes, **options) -> Axes:
    """`ax` with its legend, or with a word that says there is nothing to show."""
    if ax.get_legend_handles_labels()[1]:
        ax.legend(**{"frameon": False, "fontsize": "small", **options})
    else:
        ax.text(0.5, 0.5, "nothing to show", transform=ax.transAxes, ha="center", color="0.4")
    return ax


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    # zlib's fastest level: of a photograph the default makes a tenth less in four times the time.
    figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 1})
    return buffer.getvalue()
