"""Style of all figures: colors, fonts, sizes, number formats and logarithmic axes."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from torch_linguist.report.fonts import font_families
from torch_linguist.runs.files import whole_file

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 5.6
"""Width of figures on pages, in inches: on a phone, their text is still about 9 pixels high."""

TRAIN, VALID, ACCENT, MUTED = "#4c72b0", "#c44e52", "#2a7f62", "#b8bcc4"

PALETTE = (TRAIN, VALID, ACCENT, "#8172b3", "#ccb974", "#64b5cd")

STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    # Words of a corpus, such as `$`, are not formulas.
    "text.parse_math": False,
}


@contextmanager
def new_figure(path: Path, height: float, width: float = WIDTH) -> Iterator[Figure]:
    """Create a figure, and write it atomically when the block ends. No display is needed.

    Args:
        path: PNG file to write.
        height: height in inches.
        width: width in inches.

    Yields:
        The empty figure.
    """
    with mpl.rc_context(STYLE | {"font.family": font_families("DejaVu Sans")}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                # The default labels of logarithmic axes are formulas, which are not parsed here.
                if isinstance(axis.get_major_formatter(), LogFormatter):
                    axis.set_major_formatter(FuncFormatter(short_number))
                    axis.set_minor_formatter(NullFormatter())
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png")


def color(index: int) -> str:
    """Return the color of the series with an index."""
    return PALETTE[index % len(PALETTE)]


def short_number(value: float, _: object = None) -> str:
    """Format a number for an axis: 950, 2k, 1.5M, 0.01."""
    size = abs(value)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.4g}{letter}"
    return f"{value:.4g}"


def percent(value: float, _: object = None) -> str:
    """Format a share for an axis: 5%, 0.5%."""
    return f"{100 * value:.3g}%"


def printable(word: object, most: int = 26) -> str:
    """Return a word as a label: invisible characters replaced, cut to `most` characters."""
    text = "".join(sign if sign.isprintable() else "␣" if sign.isspace() else "·" for sign in str(word))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def label_cells(axes: Axes, table: "pd.DataFrame", longest: int = 24) -> None:
    """Label the rows and columns of a heatmap of a table; the names of index and columns become axis labels."""
    columns = [printable(name, longest) for name in table.columns]
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(table)), [printable(name, longest) for name in table.index])
    axes.tick_params(axis="both", length=0, labelsize=9)
    if turns_labels(table):
        axes.tick_params(axis="x", rotation=40)
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    axes.set(xlabel=str(table.columns.name), ylabel=str(table.index.name))
    axes.grid(visible=False)


def turns_labels(table: "pd.DataFrame") -> bool:
    """Return whether the columns of a heatmap are so many or so long that their labels are turned."""
    return len(table.columns) > 5 or any(len(str(name)) > 9 for name in table.columns)


def log_axis(axis: Axis, low: float, high: float) -> None:
    """Make an axis logarithmic, with plain numbers as ticks: 1, 10, 100, 1k, 10k.

    Args:
        axis: `axes.xaxis` or `axes.yaxis`.
        low: smallest value, positive.
        high: largest value.
    """
    (axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale)("log")
    decades = math.log10(max(high, low * 1.0001) / low)
    steps = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(10, steps, numticks=12) if decades > 0.5 else MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(short_number))
    axis.set_minor_formatter(NullFormatter())
    if decades <= 1.5:
        axis.set_minor_locator(NullLocator())
