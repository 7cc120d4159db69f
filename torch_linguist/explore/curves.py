"""Figures of word frequencies: Zipf, Heaps, spectrum, coverage, out-of-vocabulary rates, years, and the word cloud."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from torch_linguist.explore.columns import round_width
from torch_linguist.explore.fits import PowerLaw
from torch_linguist.report.figure_style import TRAIN, VALID, color, log_axis, new_figure, percent, short_number
from torch_linguist.report.fonts import font_file_for
from torch_linguist.runs.files import whole_file

Ints = NDArray[np.int64]


def draw_zipf(path: Path, counts: Ints, law: PowerLaw | None) -> None:
    """Draw frequency against rank, with the fitted law."""
    ranks = np.arange(1, len(counts) + 1)
    with new_figure(path, 3.8) as figure:
        axes = figure.subplots()
        axes.plot(ranks, counts, ".", color=TRAIN, markersize=3, label="words of train", rasterized=True)
        if law is not None:
            ends = np.array([1, len(counts)])
            label = f"Zipf's law, exponent {-law.exponent:.2f}, R² = {law.r_squared:.3f}"
            axes.plot(ends, law(ends), color=VALID, linestyle="--", label=label)
        log_axis(axes.xaxis, 1, len(counts))
        log_axis(axes.yaxis, 0.8, float(counts[0]))
        axes.set(xlabel="rank of the word", ylabel="occurrences", ylim=(0.7, 2.5 * float(counts[0])))
        axes.legend(loc="lower left")


def draw_heaps(path: Path, tokens: Ints, types: Ints, law: PowerLaw | None) -> None:
    """Draw the size of the vocabulary against the words read, with the fitted law."""
    with new_figure(path, 3.6) as figure:
        axes = figure.subplots()
        axes.plot(tokens, types, color=TRAIN, linewidth=2, label="train, in its order")
        if law is not None:
            label = f"Heaps' law, K = {law.scale:.3g}, β = {law.exponent:.3f}, R² = {law.r_squared:.4f}"
            axes.plot(tokens, law(tokens), color=VALID, linestyle="--", label=label)
        log_axis(axes.xaxis, 1, float(tokens[-1]))
        log_axis(axes.yaxis, 1, float(types[-1]))
        axes.set(xlabel="words read", ylabel="different words")
        axes.legend(loc="upper left")


def draw_spectrum(path: Path, counts: Ints) -> None:
    """Draw how many types occur exactly n times, on logarithmic axes."""
    occurrences, types = np.unique(counts, return_counts=True)
    with new_figure(path, 3.6) as figure:
        axes = figure.subplots()
        axes.plot(occurrences, types, ".", color=TRAIN, markersize=4)
        for times, name, shift in ((1, "once", 8), (2, "twice", 8)):
            found = np.flatnonzero(occurrences == times)
            if len(found):
                number = int(types[found[0]])
                axes.annotate(
                    f"{name}: {number:,}",
                    (times, number),
                    (shift, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=9,
                )
        log_axis(axes.xaxis, 1, float(occurrences[-1]))
        log_axis(axes.yaxis, 0.8, float(types.max()))
        axes.set(xlabel="occurrences in train", ylabel="words with so many", ylim=(0.7, 2.5 * float(types.max())))


def draw_coverage(path: Path, frame: pd.DataFrame) -> None:
    """Draw the share of the text that the most frequent words make up; the table is that of `coverage`."""
    with new_figure(path, 3.4) as figure:
        axes = figure.subplots()
        splits = [str(name) for name in frame.columns if name != "vocabulary"]
        for index, split in enumerate(splits):
            axes.plot(frame["vocabulary"], frame[split], color=color(index), linewidth=1.8, alpha=0.85, label=split)
        log_axis(axes.xaxis, 1, float(frame["vocabulary"].iloc[-1]))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
        axes.set(xlabel="vocabulary: most frequent words of train", ylabel="share of the words", ylim=(0, 1.03))
        axes.legend(loc="upper left")


def draw_oov(path: Path, frame: pd.DataFrame) -> None:
    """Draw the table of `oov_by_frequency`: rates and size of the vocabulary against `min_frequency`."""
    with new_figure(path, 5.0) as figure:
        rates, sizes = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        splits = [str(name) for name in frame.columns if name not in ("min_frequency", "vocabulary")]
        for index, split in enumerate(splits):
            rates.plot(
                frame["min_frequency"], frame[split], "o-", color=color(index), markersize=3.5, alpha=0.85, label=split
            )
        rates.yaxis.set_major_formatter(FuncFormatter(percent))
        rates.set(ylabel="out-of-vocabulary tokens")
        rates.set_ylim(bottom=0)
        rates.legend()
        sizes.plot(frame["min_frequency"], frame["vocabulary"], "o-", color="black", markersize=3.5)
        low, high = float(frame["vocabulary"].min()), float(frame["vocabulary"].max())
        log_axis(sizes.yaxis, low, high)
        sizes.set_ylim(low / 1.25, high * 1.25)
        sizes.set(xlabel="min_frequency", ylabel="vocabulary")
        sizes.xaxis.set_major_locator(MaxNLocator(10, integer=True))


def draw_word_lengths(path: Path, frame: pd.DataFrame) -> None:
    """Draw shares of word lengths by split: columns `characters`, and `<split>` and `<split> types` for each split."""
    shown = frame[frame["characters"].between(1, 24)]
    with new_figure(path, 4.8) as figure:
        running, once = figure.subplots(2, 1, sharex=True)
        splits = [str(name) for name in frame.columns if name != "characters" and not str(name).endswith(" types")]
        for axes, suffix, label in ((running, "", "words as they occur"), (once, " types", "each word once")):
            for index, split in enumerate(splits):
                shares = shown[f"{split}{suffix}"]
                axes.plot(shown["characters"], shares, "o-", color=color(index), markersize=3.5, alpha=0.8, label=split)
            axes.yaxis.set_major_formatter(FuncFormatter(percent))
            axes.set(ylabel="share", title=label)
            axes.set_ylim(bottom=0)
        running.legend()
        once.set(xlabel="characters")
        once.xaxis.set_major_locator(MaxNLocator(12, integer=True))


def draw_years(path: Path, frame: pd.DataFrame, splits: Sequence[str]) -> None:
    """Draw documents and tokens by year, or by several years together, the splits stacked."""
    years = frame["year"].to_numpy(np.int64)
    width = int(round_width((int(years.max()) - int(years.min()) + 1) / 60, whole=True))
    first = int(years.min()) // width * width
    edges = np.arange(first, int(years.max()) + width + 1, width)
    unit = "year" if width == 1 else f"{width} years"
    with new_figure(path, 5.0) as figure:
        for axes, measure in zip(figure.subplots(2, 1, sharex=True), ("documents", "tokens"), strict=True):
            bottom = np.zeros(len(edges) - 1)
            for index, split in enumerate(splits):
                own = frame[frame["split"] == split]
                heights, _ = np.histogram(own["year"].to_numpy(np.int64), edges, weights=own[measure])
                axes.bar(
                    edges[:-1], heights, width, bottom=bottom, align="edge", color=color(index), label=split,
                    edgecolor="white", linewidth=0.4,
                )  # fmt: skip
                bottom += heights
            axes.set(ylabel=f"{measure} by {unit}")
            axes.yaxis.set_major_formatter(FuncFormatter(short_number))
            axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.grid(visible=False, axis="x")
            if measure == "documents":
                axes.legend(loc="upper center", ncols=len(splits), bbox_to_anchor=(0.5, 1.18))
            else:
                axes.set(xlabel="year")
                axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def draw_tokens_per_word(path: Path, frame: pd.DataFrame) -> None:
    """Draw the shares of words by their number of tokens: column `tokens`, and one for each split."""
    with new_figure(path, 3.4) as figure:
        axes = figure.subplots()
        splits = [str(name) for name in frame.columns if name != "tokens"]
        width = 0.8 / len(splits)
        for index, split in enumerate(splits):
            places = frame["tokens"] + (index - (len(splits) - 1) / 2) * width
            axes.bar(places, frame[split], width, color=color(index), label=split)
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
        axes.set(xlabel="tokens of a word", ylabel="share of the words")
        axes.grid(visible=False, axis="x")
        axes.legend()


def has_word_cloud() -> bool:
    """Return whether the library `wordcloud` is installed."""
    return importlib.util.find_spec("wordcloud") is not None


def draw_word_cloud(path: Path, frequencies: Mapping[str, int], seed: int) -> None:
    """Draw words as a cloud, each as large as it is frequent; needs the library `wordcloud`."""
    import wordcloud

    font = font_file_for(" ".join(frequencies))
    cloud = wordcloud.WordCloud(
        width=960,
        height=600,
        background_color="white",
        random_state=seed,
        max_words=150,
        colormap="viridis",
        font_path=None if font is None else str(font),
    )
    image = cloud.generate_from_frequencies(dict(frequencies)).to_image()
    with whole_file(path) as temporary:
        image.save(temporary, format="PNG")


def cloud_words(words: Mapping[str, int]) -> dict[str, int]:
    """Return the words that the library `wordcloud` does not count as function words."""
    import wordcloud

    return {
        word: count
        for word, count in words.items()
        if word.lower() not in wordcloud.STOPWORDS and len(word) > 1 and word.isalpha()
    }
