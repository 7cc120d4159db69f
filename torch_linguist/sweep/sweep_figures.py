"""The figures of a sweep, drawn from its table of runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from torch_linguist.report.figure_style import ACCENT, MUTED, PALETTE, TRAIN, VALID, new_figure
from torch_linguist.report.plots import draw_heatmap

MOST_CURVES = 60
NAMED_CURVES = 8
COLOR_MAP = "viridis_r"


def draw_key_heatmap(values: pd.DataFrame, losses: pd.Series, path: Path) -> None:
    """Draw the mean validation loss of the runs over two keys, the columns of `values`."""
    down, across = sorted(values.columns, key=lambda key: values[key].nunique())
    cells = values.assign(loss=losses).pivot_table(index=down, columns=across, values="loss", aggfunc="mean")
    grid = cells.to_numpy()
    texts = np.vectorize(lambda value: f"{value:.3f}" if np.isfinite(value) and grid.shape[1] <= 8 else "")(grid)
    with new_figure(path, max(2.2, 1.2 + 0.42 * grid.shape[0])) as figure:
        axes = figure.subplots()
        draw_heatmap(axes, grid, texts, "valid loss")
        axes.set_xticks(range(grid.shape[1]), [_short(value) for value in cells.columns])
        axes.set_yticks(range(grid.shape[0]), [_short(value) for value in cells.index])
        axes.tick_params(axis="x", rotation=45 if grid.shape[1] > 6 else 0)
        axes.set(xlabel=str(across), ylabel=str(down))


def draw_parallel(values: pd.DataFrame, losses: pd.Series, path: Path) -> None:
    """Draw parallel coordinates: one line per run through its values to its validation loss, the best in front."""
    with new_figure(path, 3.8, max(6.4, 1.5 + 1.25 * values.shape[1])) as figure:
        axes = figure.subplots()
        positions, ends = [], []
        for key in values:
            heights, ticks = _heights(values[key])
            positions.append(heights)
            ends.append(ticks)
        low, high = float(losses.min()), float(losses.max())
        positions.append((losses.to_numpy() - low) / (high - low) if high > low else np.full(len(losses), 0.5))
        ends.append({0.0: f"{low:.3f}", 1.0: f"{high:.3f}"} if high > low else {0.5: f"{low:.3f}"})
        lines = np.array(positions).T
        colors = mpl.colormaps[COLOR_MAP](Normalize(low, high if high > low else low + 1)(losses.to_numpy()))
        order = np.argsort(-losses.to_numpy(), kind="stable")
        for index in order:
            best = index == order[-1]
            axes.plot(
                lines[index], color=VALID if best else colors[index], linewidth=2.6 if best else 1.1,
                alpha=1 if best else 0.6, zorder=3 if best else 2,
            )  # fmt: skip
        _name_axes(axes, [*map(str, values.columns), "valid loss"], ends)


def _name_axes(axes: Axes, names: Sequence[str], ends: Sequence[Mapping[float, str]]) -> None:
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_yticks([])
    axes.set_xticks(range(len(names)), [name.replace(".", ".\n") for name in names])
    axes.set(xlim=(-0.15, len(names) - 0.45), ylim=(-0.06, 1.06))
    for place, labels in enumerate(ends):
        axes.axvline(place, color=MUTED, linewidth=1, zorder=1)
        for height, text in labels.items():
            axes.text(
                place + 0.03, height, text, fontsize=9, va="center", zorder=4,
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1},
            )  # fmt: skip


def draw_importance(shares: pd.Series, path: Path) -> None:
    """Draw the share of each key as a bar.

    Args:
        shares: key to share of the variance, the largest first.
        path: the PNG file.
    """
    with new_figure(path, max(1.6, 1.0 + 0.36 * len(shares))) as figure:
        axes = figure.subplots()
        bars = axes.barh([str(key) for key in shares.index][::-1], 100 * shares.to_numpy()[::-1], color=ACCENT)
        axes.bar_label(bars, fmt="%.0f%%", padding=3)
        axes.set(xlim=(0, 110), xlabel="share of the variance of the validation loss (%)")
        axes.grid(visible=False, axis="y")


def draw_effect(key: str, values: pd.Series, losses: pd.Series, path: Path) -> None:
    """Draw the validation loss against one key, one point per run."""
    with new_figure(path, 3.0) as figure:
        axes = figure.subplots()
        if pd.api.types.is_numeric_dtype(values):
            axes.plot(values, losses, "o", color=TRAIN, alpha=0.7)
            if (values > 0).all() and values.max() > 20 * values.min():
                axes.set_xscale("log")
        else:
            names = list(dict.fromkeys(map(str, values)))
            axes.plot([names.index(str(value)) for value in values], losses, "o", color=TRAIN, alpha=0.7)
            axes.set_xticks(range(len(names)), [_short(name) for name in names], rotation=30 if len(names) > 5 else 0)
            axes.set_xlim(-0.5, len(names) - 0.5)
        best = int(losses.to_numpy().argmin())
        place = values.iloc[best]
        if not pd.api.types.is_numeric_dtype(values):
            place = list(dict.fromkeys(map(str, values))).index(str(place))
        axes.plot([place], [losses.iloc[best]], "D", color=VALID, markersize=8)
        axes.set(xlabel=key, ylabel="validation loss (nats per token)")


def draw_curves(curves: Mapping[str, pd.DataFrame], losses: Mapping[str, float], path: Path) -> None:
    """Draw the validation losses during training, the best runs named.

    Args:
        curves: run name to its `step` and `valid_loss`.
        losses: run name to its final validation loss, for the order; runs without one come last.
        path: the PNG file.
    """
    order = sorted(curves, key=lambda name: (losses.get(name, np.inf), name))[:MOST_CURVES]
    with new_figure(path, 4.2) as figure:
        axes = figure.subplots()
        for place, name in reversed(list(enumerate(order))):
            curve = curves[name]
            named = place < min(NAMED_CURVES, len(PALETTE))
            axes.plot(
                curve["step"], curve["valid_loss"], "o-" if len(curve) < 30 else "-", markersize=3,
                color=PALETTE[place] if named else MUTED, linewidth=1.8 if named else 0.9,
                label=name if named else None, zorder=3 if named else 2,
            )  # fmt: skip
        last = [float(curves[name]["valid_loss"].iloc[-1]) for name in order]
        first = [float(curves[name]["valid_loss"].iloc[min(1, len(curves[name]) - 1)]) for name in order]
        low, high = min(last), max(np.quantile(first, 0.9), np.quantile(last, 0.9))
        if high > low:
            axes.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low))
        axes.set(xlabel="update", ylabel="validation loss (nats per token)")
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], fontsize=8)


def _heights(column: pd.Series) -> tuple[np.ndarray, dict[float, str]]:
    """Return the position of each value on an axis from 0 to 1, and the tick labels by position."""
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > 1:
        numbers = column.to_numpy(dtype=float)
        wide = numbers.min() > 0 and numbers.max() > 20 * numbers.min()
        scale = np.log if wide else np.asarray
        low, high = scale(numbers.min()), scale(numbers.max())
        heights = (scale(numbers) - low) / (high - low)
        shown = np.unique(numbers) if len(np.unique(numbers)) <= 6 else np.array([numbers.min(), numbers.max()])
        return heights, {float((scale(value) - low) / (high - low)): _short(value) for value in shown}
    names = sorted(set(map(str, column)))
    places = {name: index / (len(names) - 1) if len(names) > 1 else 0.5 for index, name in enumerate(names)}
    return np.array([places[str(value)] for value in column]), {place: _short(name) for name, place in places.items()}


def _short(value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 16 else f"{text[:15]}…"
