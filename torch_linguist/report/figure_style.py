"""What all figures of a page share: one column wide, so that they stay readable on a phone; axes and labels."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from torch_linguist.report.plots import ACCENT, STYLE, TRAIN, VALID
from torch_linguist.runs.files import whole_file

WIDTH = 6.4
"""Of every figure, in inches: at a phone's width its text is still some 9 pixels high."""

PALETTE = (TRAIN, VALID, ACCENT, "#8172b3", "#ccb974", "#64b5cd")

FALLBACK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans", "Arial Unicode MS")
"""For words in scripts that matplotlib's own font lacks, those of them that are installed."""


@contextmanager
def new_figure(path: Path, height: float, width: float = WIDTH) -> Iterator[Figure]:
    """A figure in the house's style, written to `path` as a whole at the end of the block; needs no display.

    Args:
        path: of the PNG.
        height: in inches.
        width: in inches.
    """
    fonts = font_families("DejaVu Sans")
    # A word of the corpus such as `$` is no formula.
    own = {"font.family": fonts, "text.parse_math": False, "legend.fontsize": 9, "axes.titlesize": 11}
    with mpl.rc_context(STYLE | own), warnings.catch_warnings():
        # A sign that no installed font has is drawn as an empty box, which says it all.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png")


def font_families(first: str) -> list[str]:
    """A font and those that stand in for it where it lacks a sign."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [first, *(name for name in FALLBACK_FONTS if name in installed)]


def color(index: int) -> str:
    """The color of a split, by its place."""
    return PALETTE[index % len(PALETTE)]


def short_number(value: float, _: object = None) -> str:
    """A number for an axis: 950, 2k, 1.5M, 0.01."""
    size = abs(value)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.4g}{letter}"
    return f"{value:.4g}"


def percent(value: float, _: object = None) -> str:
    """A share for an axis: 5%, 0.5%."""
    return f"{100 * value:.3g}%"


def printable(word: object, most: int = 26) -> str:
    """A word as a label: no invisible signs, and not too long."""
    text = "".join(sign if sign.isprintable() else "␣" if sign.isspace() else "·" for sign in str(word))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def log_axis(axis: Axis, low: float, high: float) -> None:
    """Makes an axis logarithmic, its ticks numbers that a person reads: 1, 10, 100, 1k, 10k.

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
