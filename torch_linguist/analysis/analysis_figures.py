"""Figures of an analysis."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from torch_linguist.report.figure_style import (
    MUTED,
    color,
    label_cells,
    log_axis,
    new_figure,
    percent,
    printable,
    short_number,
    turns_labels,
)

Floats = NDArray[np.float64]

DIVERGING = "RdBu_r"


def draw_intervals(path: Path, tables: Mapping[str, pd.DataFrame], xlabel: str, reference: float | None = None) -> None:
    """Draw a point and its interval for each group, one color per run.

    Args:
        path: PNG file to write.
        tables: rows of one slice by run: `value`, `loss`, `low`, `high`, `tokens`.
        xlabel: label of the axis.
        reference: value of a dashed line; None for none.

    Example:
        >>> import pandas as pd
        >>> row = {"value": "early", "loss": 4.0, "low": 3.9, "high": 4.1, "tokens": 100}
        >>> draw_intervals(Path("eras.png"), {"LSTM": pd.DataFrame([row])}, "nats per token")
        >>> Path("eras.png").is_file()
        True
    """
    first = next(iter(tables.values()))
    names = list(dict.fromkeys(value for table in tables.values() for value in table["value"]))
    known = dict(zip(first["value"], first["tokens"], strict=True))
    step = 0.62 / len(tables)
    with new_figure(path, 1.0 + (0.2 + 0.08 * len(tables)) * len(names) + 0.3 * (len(tables) > 1)) as figure:
        axes = figure.subplots()
        for index, (label, table) in enumerate(tables.items()):
            rows = np.array([names.index(value) for value in table["value"]])
            places = -rows - step * (index - (len(tables) - 1) / 2)
            axes.hlines(places, table["low"], table["high"], color=color(index), linewidth=2, alpha=0.55)
            axes.plot(table["loss"], places, "o", color=color(index), markersize=4.5, label=label)
        if reference is not None:
            axes.axvline(reference, color=MUTED, linestyle="--", linewidth=1, zorder=0)
        labels = [
            f"{printable(name, 30)} ({known[name]:,})" if name in known else printable(name, 30) for name in names
        ]
        axes.set_yticks(-np.arange(len(names)), labels)
        axes.tick_params(axis="y", labelsize=9, length=0)
        axes.set(xlabel=xlabel, ylim=(-len(names) + 0.4, 0.6))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        if len(tables) > 1:
            figure.legend(loc="outside upper center", ncols=len(tables))


def draw_values(path: Path, table: pd.DataFrame, label: str, limits: tuple[float, float]) -> None:
    """Draw a table of numbers as a heatmap, each number in its cell; empty cells stay gray.

    Args:
        path: PNG file to write.
        table: numbers; the names of index and columns become axis labels.
        label: label of the color bar.
        limits: smallest and largest number of the color scale.

    Example:
        >>> import pandas as pd
        >>> draw_values(Path("values.png"), pd.DataFrame({"spoken": [4.0, 4.5]}), "nats", limits=(4.0, 5.0))
        >>> Path("values.png").is_file()
        True
    """
    values = table.to_numpy(np.float64)
    with new_figure(path, 1.5 + 0.32 * len(table) + (0.8 if turns_labels(table) else 0.0)) as figure:
        axes = figure.subplots()
        axes.set_facecolor("#eef0f3")
        image = axes.imshow(np.ma.masked_invalid(values), cmap="YlOrBr", aspect="auto", vmin=limits[0], vmax=limits[1])
        label_cells(axes, table)
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
                shade = "white" if dark else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8.5, color=shade)
        figure.colorbar(image, ax=axes, label=label, shrink=0.9)


def draw_context(path: Path, curves: Mapping[str, pd.DataFrame]) -> None:
    """Draw the perplexity against the length of the context, with its interval and the score of the whole stream.

    Example:
        >>> probes = sample_contexts(corpus.train, count=20, width=4, seed=1)
        >>> curve = context_curve(model, probes, target_nll(model, probes.contexts, probes.targets))
        >>> draw_context(Path("context.png"), {"bigram": curve})
        >>> Path("context.png").is_file()
        True
    """
    lengths = sorted({int(length) for curve in curves.values() for length in curve["context"] if length})
    with new_figure(path, 3.8) as figure:
        axes = figure.subplots()
        for index, (label, curve) in enumerate(curves.items()):
            own, scored = curve[curve["context"] > 0], curve[curve["context"] == 0].iloc[0]
            axes.plot(own["context"], own["perplexity"], "o-", color=color(index), markersize=4, label=label)
            low, high = (np.exp(own[edge] + scored["loss"]) for edge in ("low", "high"))
            axes.fill_between(own["context"], low, high, color=color(index), alpha=0.15, linewidth=0)
            axes.axhline(scored["perplexity"], color=color(index), linestyle="--", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(lengths))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        everything = np.concatenate([curve["perplexity"] for curve in curves.values()])
        log_axis(axes.yaxis, float(everything.min()), float(everything.max()))
        axes.set(xlabel="tokens of context", ylabel="perplexity")
        axes.legend(title="dashed: as scored")


def draw_damages(path: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Draw the increase of the loss as the context is shuffled beyond a distance, and as a share of it is damaged.

    Example:
        >>> probes = sample_contexts(corpus.train, count=20, width=8, seed=1)
        >>> table = damage_table(model, corpus.tokenizer, probes, width=4, seed=1)
        >>> draw_damages(Path("damages.png"), {"bigram": table})
        >>> Path("damages.png").is_file()
        True
    """
    with new_figure(path, 6.6) as figure:
        above, below = figure.subplots(2, 1)
        styles = {"drop": "o-", "swap": "s--", "misspell": "^:"}
        for index, (label, table) in enumerate(tables.items()):
            shuffled = table[table["change"] == "shuffle"]
            _band(above, shuffled["amount"], shuffled, color(index), "o-", label)
            for change, style in styles.items():
                own = table[table["change"] == change]
                name = change if len(tables) == 1 else f"{label}: {change}"
                paint = color(index) if len(tables) > 1 else color(list(styles).index(change))
                _band(below, own["amount"], own, paint, style, name)
        distances = sorted({float(value) for table in tables.values() for value in _shuffled(table)["amount"]})
        above.set_xscale("symlog", base=2, linthresh=1)
        above.xaxis.set_major_locator(FixedLocator(distances))
        above.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        above.xaxis.set_minor_locator(NullLocator())
        above.set(xlabel="tokens before the target that keep their order", ylabel="nats above undamaged")
        above.set_title("shuffled beyond a distance")
        below.xaxis.set_major_formatter(FuncFormatter(percent))
        below.set(xlabel="share of the context", ylabel="nats above undamaged")
        below.set_title("a share dropped, swapped, misspelled")
        for axes in (above, below):
            axes.axhline(0, color=MUTED, linewidth=1, zorder=0)
            axes.legend(fontsize=8.5)


def _shuffled(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["change"] == "shuffle"]


def _band(axes: Axes, x: pd.Series, table: pd.DataFrame, paint: str, style: str, label: str) -> None:
    axes.plot(x, table["increase"], style, color=paint, markersize=4, label=label)
    axes.fill_between(x, table["low"], table["high"], color=paint, alpha=0.13, linewidth=0)


def draw_divergence(path: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Draw the divergence of the prediction against the distance of the changed word.

    Example:
        >>> import pandas as pd
        >>> draw_divergence(Path("changes.png"), {"LSTM": pd.DataFrame({"distance": [1, 2], "js": [0.3, 0.1]})})
        >>> Path("changes.png").is_file()
        True
    """
    with new_figure(path, 3.6) as figure:
        axes = figure.subplots()
        for index, (label, table) in enumerate(tables.items()):
            grouped = table.groupby("distance")["js"]
            mean = grouped.mean()
            axes.plot(mean.index, mean, "o-", color=color(index), markersize=4, label=f"{label}: mean")
            axes.plot(grouped.max().index, grouped.max(), "^:", color=color(index), markersize=4, label="largest")
        axes.axhline(math.log(2), color=MUTED, linewidth=1, linestyle="--", zorder=0)
        axes.set_ylim(-0.02, math.log(2) * 1.12)
        axes.text(1, math.log(2) * 1.02, "ln 2, the maximum", fontsize=8, color="#5b6472")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set(xlabel="distance of the changed word from the target", ylabel="JS divergence (nats)")
        axes.legend(ncols=len(tables), fontsize=8.5, loc="upper right", bbox_to_anchor=(1, 0.92))


def draw_matrix(
    path: Path, matrix: Floats, columns: Sequence[str], rows: Sequence[str], label: str, most: float
) -> None:
    """Draw the effect of each token on each prediction after it.

    Args:
        path: PNG file to write.
        matrix: effects, NaN for no effect [rows, columns].
        columns: tokens left out.
        rows: tokens predicted.
        label: label of the color bar.
        most: absolute effect shown in the strongest color.

    Example:
        >>> effects = np.array([[np.nan, np.nan], [0.5, np.nan]])
        >>> draw_matrix(Path("matrix.png"), effects, ["the", "cat"], ["the", "cat"], "nats", most=1.0)
        >>> Path("matrix.png").is_file()
        True
    """
    with new_figure(path, 1.6 + 0.2 * len(rows)) as figure:
        axes = figure.subplots()
        norm = TwoSlopeNorm(0, -most, most)
        image = axes.imshow(np.ma.masked_invalid(matrix), cmap=DIVERGING, norm=norm, aspect="auto")
        axes.set_xticks(range(len(columns)), [printable(piece.strip(), 14) for piece in columns], rotation=90)
        axes.set_yticks(range(len(rows)), [printable(piece.strip(), 16) for piece in rows])
        axes.tick_params(axis="both", length=0, labelsize=7.5)
        axes.set(xlabel="left out", ylabel="predicted")
        axes.grid(visible=False)
        figure.colorbar(image, ax=axes, label=label, shrink=0.8, extend="both")


def draw_attention(path: Path, maps: Mapping[str, Floats], pieces: Sequence[str]) -> None:
    """Draw attention maps, two per row.

    Args:
        path: PNG file to write.
        maps: weights [T, T] by title.
        pieces: texts of the T tokens.

    Example:
        >>> draw_attention(Path("maps.png"), {"head 1": np.eye(2)}, ["the", "cat"])
        >>> Path("maps.png").is_file()
        True
    """
    names = [printable(piece.strip(), 9) for piece in pieces]
    rows = -(-len(maps) // 2)
    with new_figure(path, 0.6 + 2.75 * rows) as figure:
        grid = figure.subplots(rows, 2, squeeze=False)
        for axes in grid.flat[len(maps) :]:
            axes.set_axis_off()
        for axes, (title, weights) in zip(grid.flat, maps.items(), strict=False):
            # The square root makes small weights visible.
            image = axes.imshow(np.sqrt(weights), cmap="Blues", vmin=0, vmax=1)
            axes.set_title(title, fontsize=9)
            axes.set_xticks(range(len(names)), names, rotation=90)
            axes.set_yticks(range(len(names)), names)
            axes.tick_params(axis="both", length=0, labelsize=6.5)
            axes.grid(visible=False)
        bar = figure.colorbar(image, ax=grid, shrink=0.4, pad=0.01)
        bar.set_ticks([0, math.sqrt(0.1), math.sqrt(0.5), 1], labels=["0", "0.1", "0.5", "1"])


def draw_map(path: Path, table: pd.DataFrame) -> None:
    """Draw words in the plane, one color per class.

    Example:
        >>> import pandas as pd
        >>> row = {"word": "cat", "count": 5, "class": "words", "tsne_1": 0.0, "tsne_2": 1.0}
        >>> draw_map(Path("map.png"), pd.DataFrame([row]))
        >>> Path("map.png").is_file()
        True
    """
    with new_figure(path, 6.4) as figure:
        axes = figure.subplots()
        paint = {str(kind): color(index) for index, kind in enumerate(sorted(table["class"].unique()))}
        for kind, own in table.groupby("class", sort=True):
            axes.plot(own["tsne_1"], own["tsne_2"], ".", color=paint[str(kind)], markersize=4, alpha=0.5, label=kind)
        for row in _without_overlaps(table).itertuples():
            axes.annotate(
                printable(row.word, 14), (row.tsne_1, row.tsne_2), fontsize=6, color=paint[str(row[3])],
                ha="center", va="bottom",
            )  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        figure.legend(loc="outside upper center", ncols=5)


def _without_overlaps(table: pd.DataFrame) -> pd.DataFrame:
    """Return the words whose labels do not overlap those of more frequent words, which come first."""
    span = [max(float(np.ptp(table[axis])), 1e-9) for axis in ("tsne_1", "tsne_2")]
    # As shares of the figure, for 6-point letters on about six inches.
    height = 0.0145 * span[1]
    placed: list[tuple[float, float, float]] = []
    kept = []
    points = table[["tsne_1", "tsne_2"]].to_numpy(np.float64).tolist()
    for place, (word, (x, y)) in enumerate(zip(table["word"], points, strict=True)):
        half = 0.0046 * len(printable(word, 14)) * span[0]
        if all(abs(x - other) > half + wide or abs(y - below) > height for other, below, wide in placed):
            placed.append((x, y, half))
            kept.append(place)
    return table.iloc[kept]


def draw_reliability(path: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Draw the accuracy of the first choice against its confidence, and the number of predictions per bin.

    Example:
        >>> import pandas as pd
        >>> row = {"low": 0.4, "high": 0.5, "confidence": 0.45, "accuracy": 0.5, "error": 0.1, "predictions": 30}
        >>> draw_reliability(Path("bins.png"), {"LSTM": pd.DataFrame([row])})
        >>> Path("bins.png").is_file()
        True
    """
    with new_figure(path, 5.2) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1, label="perfect calibration")
        for index, (label, table) in enumerate(tables.items()):
            above.errorbar(
                table["confidence"], table["accuracy"], yerr=1.96 * table["error"], fmt="o-", color=color(index),
                markersize=4, linewidth=1.4, elinewidth=1, label=label,
            )  # fmt: skip
            below.stairs(
                _per_bin(table), np.linspace(0, 1, len(_per_bin(table)) + 1), color=color(index), linewidth=1.5
            )
        above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        below.set(xlabel="confidence (probability of the first choice)", ylabel="predictions", yscale="log")
        for axis in (above.xaxis, above.yaxis):
            axis.set_major_formatter(FuncFormatter(percent))
        low = max(1.0, float(min(table["predictions"].min() for table in tables.values())))
        high = float(max(table["predictions"].max() for table in tables.values()))
        log_axis(below.yaxis, low, high)
        below.yaxis.set_major_formatter(FuncFormatter(short_number))
        above.legend(loc="upper left")


def _per_bin(table: pd.DataFrame) -> Floats:
    """Return the number of predictions in every bin, empty ones included."""
    width = float((table["high"] - table["low"]).iloc[0])
    counts = np.zeros(round(1 / width))
    counts[np.round(table["low"] / width).astype(int)] = table["predictions"]
    return counts
