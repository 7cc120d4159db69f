"""Kinds of figures of an exploration. Each function writes a PNG file."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from torch_linguist.report.figure_style import (
    MUTED,
    TRAIN,
    color,
    label_cells,
    log_axis,
    new_figure,
    percent,
    printable,
    short_number,
    turns_labels,
)

VIOLIN_POINTS = 4000
"""A violin's density is estimated from so many values at most."""


def is_skewed(values: ArrayLike) -> bool:
    """Return whether lengths need a logarithmic axis: the largest are far above the median.

    Example:
        >>> is_skewed([1, 2, 3]), is_skewed([1, 2, 300])
        (False, True)
    """
    values = np.asarray(values)
    return bool(len(values)) and float(values.max()) > 5 * max(float(np.median(values)), 1.0)


def draw_histogram(path: Path, samples: Mapping[str, ArrayLike], xlabel: str, ylabel: str) -> None:
    """Draw overlaid histograms of positive values, each as shares of its sample.

    Example:
        >>> draw_histogram(Path("lengths.png"), {"train": [3, 4, 4, 5], "test": [3, 5]}, "words", "share")
        >>> Path("lengths.png").is_file()
        True
    """
    values = {name: np.asarray(sample, np.float64) for name, sample in samples.items() if len(np.asarray(sample))}
    everything = np.concatenate(list(values.values()))
    low, high = max(float(everything.min()), 1.0), max(float(everything.max()), 1.0)
    skewed = is_skewed(everything)
    with new_figure(path, 3.6) as figure:
        axes = figure.subplots()
        # As fine as the smallest sample bears (the cube root is that of Scott's and of Freedman and Diaconis' rules).
        bins = int(np.clip(2.5 * min(len(sample) for sample in values.values()) ** (1 / 3), 6, 40))
        edges = list(_edges(low, high, skewed, bins, whole=bool((everything == everything.round()).all())))
        for index, (name, sample) in enumerate(values.items()):
            weights = np.full(len(sample), 1 / len(sample))
            axes.hist(
                sample, edges, weights=weights, histtype="stepfilled", color=color(index), alpha=0.18, linewidth=0
            )
            label = f"{name} ({len(sample):,})"
            axes.hist(sample, edges, weights=weights, histtype="step", color=color(index), linewidth=1.6, label=label)
        if skewed:
            log_axis(axes.xaxis, low, high)
        else:
            axes.xaxis.set_major_formatter(FuncFormatter(short_number))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.legend()


def _edges(low: float, high: float, skewed: bool, bins: int, whole: bool) -> NDArray[Any]:
    """Return the edges of bins; between whole numbers they lie half-way, so that all bins hold equally many."""
    if skewed:
        edges = np.geomspace(low, high + 1, bins + 1)
        return np.unique(np.concatenate([[low - 0.5], np.floor(edges[1:]) + 0.5])) if whole else edges
    step = (high - low) / bins or 1.0
    if whole:
        step = max(1.0, math.ceil((high - low + 1) / bins))
        return np.arange(low - 0.5, high + step + 0.5, step)
    return low + step * np.arange(bins + 1)


def draw_boxes(path: Path, samples: Mapping[str, ArrayLike], xlabel: str, colors: Sequence[str] = ()) -> None:
    """Draw box plots and violin plots of positive values, one row per sample, in one color or one for each sample.

    Example:
        >>> draw_boxes(Path("boxes.png"), {"train": [3, 4, 4, 5], "test": [3, 5]}, "words")
        >>> Path("boxes.png").is_file()
        True
    """
    names = list(samples)[::-1]
    values = [np.asarray(samples[name], np.float64) for name in names]
    paint = list(colors)[::-1] or [TRAIN] * len(names)
    everything = np.concatenate(values)
    skewed = is_skewed(everything)
    low, high = max(float(everything.min()), 1.0), float(everything.max())
    rows = np.arange(1, len(names) + 1)
    with new_figure(path, 1.5 + 0.34 * len(names)) as figure:
        boxes, violins = figure.subplots(1, 2, sharey=True, sharex=True)
        drawn = boxes.boxplot(
            values,
            orientation="horizontal",
            positions=rows,
            widths=0.6,
            patch_artist=True,
            flierprops={"markersize": 2, "markeredgecolor": MUTED},
            medianprops={"color": "black"},
        )
        for patch, own in zip(drawn["boxes"], paint, strict=True):
            patch.set(facecolor=own, alpha=0.5)
        _violins(violins, values, rows, paint, skewed)
        for axes, title in ((boxes, "boxes"), (violins, "violins")):
            axes.set(xlabel=xlabel, title=title)
            if skewed:
                log_axis(axes.xaxis, low, high)
            else:
                axes.xaxis.set_major_locator(MaxNLocator(4))
                axes.xaxis.set_major_formatter(FuncFormatter(short_number))
            axes.tick_params(axis="x", labelsize=8.5)
        boxes.set_yticks(rows, [f"{printable(name, 24)} ({len(samples[name]):,})" for name in names])  # type: ignore[arg-type]
        boxes.tick_params(axis="y", labelsize=9)
        boxes.set_ylim(0.4, len(names) + 0.6)


def _violins(
    axes: Axes, values: Sequence[NDArray[np.float64]], rows: NDArray[np.int64], paint: Sequence[str], skewed: bool
) -> None:
    """Draw densities of the values, or of their logarithms on a logarithmic axis, with the median."""
    generator = np.random.default_rng(0)
    for sample, row, own in zip(values, rows, paint, strict=True):
        axes.plot(np.median(sample), row, "o", color="black", markersize=3, zorder=3)
        some = generator.choice(sample, VIOLIN_POINTS, replace=False) if len(sample) > VIOLIN_POINTS else sample
        some = np.log(np.maximum(some, 0.5)) if skewed else some
        if len(np.unique(some)) < 3:
            axes.plot(sample, np.full(len(sample), row), ".", color=own, markersize=4)
            continue
        grid = np.linspace(some.min(), some.max(), 120)
        density = _density(some, grid)
        height = 0.38 * density / density.max()
        axes.fill_between(
            np.exp(grid) if skewed else grid, row - height, row + height, color=own, alpha=0.5, linewidth=0.8
        )


def _density(values: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a Gaussian kernel density, with the width of Silverman's rule (1986, "Density Estimation", 3.31)."""
    quartiles = np.quantile(values, [0.25, 0.75])
    spread = min(float(values.std(ddof=1)), float(quartiles[1] - quartiles[0]) / 1.34 or math.inf)
    width = max(0.9 * spread * len(values) ** -0.2, 1e-3 * float(grid[-1] - grid[0]))
    return np.asarray(np.exp(-0.5 * ((grid[:, None] - values[None, :]) / width) ** 2).sum(axis=1))


def draw_distributions(path: Path, samples: Mapping[str, ArrayLike], xlabel: str, positive: bool = True) -> None:
    """Draw overlaid empirical distribution functions; with `positive`, the axis may be logarithmic.

    Example:
        >>> draw_distributions(Path("shares.png"), {"train": [3, 4, 4, 5], "test": [3, 5]}, "words")
        >>> Path("shares.png").is_file()
        True
    """
    with new_figure(path, 3.4) as figure:
        axes = figure.subplots()
        everything = np.concatenate([np.asarray(sample, np.float64) for sample in samples.values()])
        for index, (name, sample) in enumerate(samples.items()):
            values, counts = np.unique(np.asarray(sample, np.float64), return_counts=True)
            share = np.cumsum(counts) / counts.sum()
            axes.step(
                np.concatenate([values[:1], values]),
                np.concatenate([[0], share]),
                where="post",
                color=color(index),
                linewidth=1.8,
                alpha=0.85,
                label=f"{name} ({counts.sum():,})",
            )
        if positive and everything.min() > 0 and is_skewed(everything):
            log_axis(axes.xaxis, float(everything.min()), float(everything.max()))
        elif positive:
            axes.xaxis.set_major_formatter(FuncFormatter(short_number))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
        axes.set(xlabel=xlabel, ylabel="share up to this value", ylim=(0, 1.02))
        axes.legend(loc="lower right")


def draw_bars(path: Path, labels: Sequence[object], counts: ArrayLike, xlabel: str) -> None:
    """Draw horizontal bars, the first on top, with the count beside each.

    Example:
        >>> draw_bars(Path("bars.png"), ["spoken", "written"], [4, 2], "addresses")
        >>> Path("bars.png").is_file()
        True
    """
    values = np.asarray(counts, np.float64)
    with new_figure(path, 1.0 + 0.21 * len(values)) as figure:
        axes = figure.subplots()
        rows = np.arange(len(values))[::-1]
        axes.barh(rows, values, color=TRAIN, alpha=0.75, height=0.72)
        axes.set_yticks(rows, [printable(label) for label in labels])
        axes.tick_params(axis="y", labelsize=9, length=0)
        top = float(values.max()) if len(values) else 1.0
        for row, value in zip(rows, values, strict=True):
            axes.text(value + 0.01 * top, row, f"{value:,.0f}", va="center", fontsize=8, color="#555555")
        axes.set(xlabel=xlabel, xlim=(0, 1.14 * top), ylim=(-0.7, len(values) - 0.3))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(short_number))
        axes.grid(visible=False, axis="y")


def draw_grouped_bars(path: Path, frame: pd.DataFrame, xlabel: str) -> None:
    """Draw shares as bars side by side: one row per index value, one bar per column.

    Example:
        >>> import pandas as pd
        >>> draw_grouped_bars(Path("bars.png"), pd.DataFrame({"LSTM": [0.4, 0.1]}, index=["the", "a"]), "probability")
        >>> Path("bars.png").is_file()
        True
    """
    names = list(frame.columns)
    height = 0.8 / len(names)
    with new_figure(path, 1.3 + (0.14 * len(names) + 0.12) * len(frame)) as figure:
        axes = figure.subplots()
        rows = np.arange(len(frame))[::-1]
        for index, name in enumerate(names):
            axes.barh(rows + 0.4 - height * (index + 0.5), frame[name], height, color=color(index), label=str(name))
        axes.set_yticks(rows, [printable(label) for label in frame.index])
        axes.tick_params(axis="y", labelsize=9, length=0)
        axes.xaxis.set_major_formatter(FuncFormatter(percent))
        axes.set(xlabel=xlabel, ylim=(-0.6, len(frame) - 0.4))
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside upper center", ncols=len(names))


def draw_table_heatmap(path: Path, table: pd.DataFrame) -> None:
    """Draw the counts of a cross table in its cells; the names of index and columns become axis labels.

    Example:
        >>> import pandas as pd
        >>> draw_table_heatmap(Path("table.png"), pd.DataFrame({"spoken": [4, 0], "written": [2, 5]}))
        >>> Path("table.png").is_file()
        True
    """
    values = table.to_numpy(np.float64)
    with new_figure(path, 1.4 + 0.34 * len(table) + (0.9 if turns_labels(table) else 0.0)) as figure:
        axes = figure.subplots()
        # The square root: one large cell must not make all others look empty.
        axes.imshow(np.sqrt(values), cmap="Blues", aspect="auto", vmin=0, vmax=math.sqrt(max(values.max(), 1)) * 1.15)
        label_cells(axes, table)
        for (row, column), value in np.ndenumerate(values):
            dark = value > 0.4 * values.max()
            axes.text(
                column, row, f"{value:,.0f}", ha="center", va="center", fontsize=9, color="white" if dark else "black"
            )
