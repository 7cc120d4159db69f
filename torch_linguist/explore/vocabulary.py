"""Sections on words: frequencies, vocabulary, word lengths, and agreement of the splits."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from torch_linguist.explore.columns import Column, groups
from torch_linguist.explore.counting import (
    coverage,
    frequency_spectrum,
    has_letter,
    oov_by_frequency,
    top_ngrams,
)
from torch_linguist.explore.curves import (
    cloud_words,
    draw_coverage,
    draw_heaps,
    draw_oov,
    draw_spectrum,
    draw_tokens_per_word,
    draw_word_cloud,
    draw_word_lengths,
    draw_zipf,
    has_word_cloud,
)
from torch_linguist.explore.drawing import draw_bars, draw_distributions, draw_grouped_bars
from torch_linguist.explore.fits import (
    PowerLaw,
    fit_heaps,
    fit_zipf,
    jensen_shannon,
    kolmogorov_smirnov,
    total_variation,
    vocabulary_growth,
)
from torch_linguist.explore.measure import Measurements
from torch_linguist.explore.settings import ExploreSettings
from torch_linguist.explore.texts import choose_columns
from torch_linguist.report.page_parts import PageFigure, PageTable, Section

ORDER_NAMES = {1: "words", 2: "bigrams", 3: "trigrams"}
LONG_WORD = 6


def frequencies(measured: Measurements, settings: ExploreSettings, seed: int) -> Section:
    """Make the section with the top words and n-grams of train, and the word cloud."""
    tokens = measured.word_tokenizer.tokens
    encoded = measured.words["train"]
    figures: list[PageFigure] = []
    tables: list[PageTable] = []
    for order in range(1, settings.max_order + 1):
        name = ORDER_NAMES.get(order, f"{order}-grams")
        frame = top_ngrams(encoded, tokens, order, 10 * settings.top)
        tables.append(
            PageTable(f"top_{name}", f"Top {name}", frame, rows=settings.top if order == 1 else 8, shares=("share",))
        )
        figures += _top_drawings(frame, name, order, settings.top)
    text = ["Counted in train; no n-gram runs over the end of a line."]
    if settings.word_cloud:
        words = _word_frequencies(measured)
        if not has_word_cloud():
            text.append(
                "There is no word cloud, since the library wordcloud is not installed: "
                'pip install "torch-linguist[explore]" adds it.'
            )
        elif chosen := cloud_words(words):
            figures.append(
                PageFigure(
                    "word_cloud",
                    "Word cloud",
                    "The words of train but function words, the larger the more frequent.",
                    lambda path: draw_word_cloud(path, chosen, seed),
                )
            )
    return Section("frequency", "Words and n-grams", text, figures, tables)


def _top_drawings(frame: pd.DataFrame, name: str, order: int, top: int) -> list[PageFigure]:
    shown = frame.head(top)
    figures = [
        PageFigure(
            f"top_{name}",
            f"Top {name}",
            "The most frequent ones of all, marks included.",
            lambda path: draw_bars(path, list(shown["ngram"]), shown["count"], "occurrences in train"),
        )
    ]
    wording = frame[frame["words_only"]]
    caption = "Those without marks, numbers and place-holders."
    if order == 1:
        wording = wording[wording["ngram"].str.len() >= LONG_WORD]
        caption = f"Those of {LONG_WORD} letters or more, which leaves out most function words."
    wording = wording.head(top)
    if len(wording):
        figures.append(
            PageFigure(
                f"top_{name}_of_letters",
                f"Top {'longer words' if order == 1 else f'{name} of words'}",
                caption,
                lambda path: draw_bars(path, list(wording["ngram"]), wording["count"], "occurrences in train"),
            )
        )
    return figures


def _word_frequencies(measured: Measurements) -> dict[str, int]:
    """Return the thousand most frequent words of train that have a letter."""
    counts, tokens = measured.word_counts["train"], measured.word_tokenizer.tokens
    order = np.argsort(-counts, kind="stable")[:3000]
    words = {tokens[index]: int(counts[index]) for index in order if counts[index] and has_letter(tokens[index])}
    return dict(list(words.items())[:1000])


def vocabulary(measured: Measurements, settings: ExploreSettings) -> Section:
    """Make the section on Zipf's and Heaps' laws, the spectrum, coverage and out-of-vocabulary rates."""
    counts = measured.word_counts
    train = np.sort(counts["train"][counts["train"] > 0])[::-1]
    zipf = fit_zipf(train)
    tokens, types = vocabulary_growth(measured.words["train"].words)
    heaps = fit_heaps(tokens, types) if len(tokens) else None
    covered = coverage(counts)
    line_ends = {split: len(encoded.line_lengths) for split, encoded in measured.words.items()}
    rates = oov_by_frequency(counts, line_ends, measured.word_tokenizer.unk_id, settings.max_min_frequency)
    fits = [("Zipf", -zipf.exponent, zipf.scale, zipf.r_squared)] if zipf else []
    fits += [("Heaps", heaps.exponent, heaps.scale, heaps.r_squared)] if heaps else []
    spectrum = frequency_spectrum(counts["train"])
    oov = PageFigure(
        "oov",
        "Out of vocabulary by min_frequency",
        "If words that occur less often in train were left out: tokens outside the vocabulary, as a share of all "
        "tokens with <eos>, and the size of the vocabulary. A literal <unk> of the text counts as known.",
        lambda path: draw_oov(path, rates),
    )
    figures = [*_train_figures(train, zipf, tokens, types, heaps, covered), oov] if len(train) else [oov]
    splits = tuple(measured.splits)
    tables = [
        PageTable("fits", "Fits", pd.DataFrame(fits, columns=["law", "exponent", "scale", "r_squared"])),
        PageTable(
            "spectrum", "Words by their occurrences", spectrum, shares=("share_of_types", "share_of_tokens"), rows=21
        ),
        PageTable("coverage", "Coverage", covered, rows=0, shares=splits),
        PageTable("oov", "Out-of-vocabulary rates", rates, rows=20, shares=splits),
        PageTable("growth", "Growth of the vocabulary", pd.DataFrame({"words": tokens, "types": types}), rows=0),
    ]
    return Section("vocabulary", "Vocabulary", [], figures, tables)


def _train_figures(
    counts: NDArray[np.int64],
    zipf: PowerLaw | None,
    tokens: NDArray[np.int64],
    types: NDArray[np.int64],
    heaps: PowerLaw | None,
    covered: pd.DataFrame,
) -> list[PageFigure]:
    return [
        PageFigure(
            "zipf",
            "Rank and frequency",
            "Zipf's law, by least squares on logarithms at ranks evenly spaced on the logarithmic axis, so that "
            "each decade of ranks has the same weight.",
            lambda path: draw_zipf(path, counts, zipf),
        ),
        PageFigure(
            "heaps",
            "Growth of the vocabulary",
            "Heaps' law, types = K · wordsᵝ, by least squares on logarithms from 100 words on.",
            lambda path: draw_heaps(path, tokens, types, heaps),
        ),
        PageFigure(
            "spectrum",
            "Words seen once, twice, …",
            "Number of different words with each number of occurrences in train.",
            lambda path: draw_spectrum(path, counts),
        ),
        PageFigure(
            "coverage",
            "Coverage by size of the vocabulary",
            "Share of the running words of each split that the most frequent words of train make up.",
            lambda path: draw_coverage(path, covered),
        ),
    ]


def words(measured: Measurements) -> Section:
    """Make the section on the lengths of words, and on tokens per word for subword tokenizers."""
    lengths = measured.word_lengths
    frame = pd.DataFrame({"characters": np.arange(int(lengths.max()) + 1)})
    means = []
    for split, counted in measured.word_counts.items():
        counts = counted.copy()
        counts[measured.word_tokenizer.unk_id] = 0  # A place-holder has no length.
        row: list[float] = []
        for name, weights in ((split, counts), (f"{split} types", (counts > 0).astype(np.int64))):
            held = np.bincount(lengths, weights=weights, minlength=len(frame))
            frame[name] = held / max(held.sum(), 1)
            row.append(float(np.average(lengths, weights=weights)) if weights.any() else 0.0)
        means.append((split, *row))
    frame = frame[frame["characters"] > 0]
    figures = [
        PageFigure(
            "word_lengths",
            "Lengths of words",
            "In characters, up to 24; longer ones are in the table. A literal <unk> is left out.",
            lambda path: draw_word_lengths(path, frame),
        )
    ]
    mean_table = pd.DataFrame(means, columns=["split", "mean of running words", "mean of different words"]).round(3)
    shares = tuple(str(name) for name in frame.columns[1:])
    tables = [
        PageTable("word_length_means", "Mean length of words, in characters", mean_table),
        PageTable("word_lengths", "Lengths of words", frame, rows=0, shares=shares),
    ]
    if measured.has_subwords:
        drawing, cut_tables = _tokens_per_word(measured)
        figures.append(drawing)
        tables += cut_tables
    return Section("words", "Inside words", [], figures, tables)


def _tokens_per_word(measured: Measurements) -> tuple[PageFigure, list[PageTable]]:
    """Return the figure and tables of tokens per word, over the whole text and word by word after a blank."""
    vocabulary = [token if index > 1 else "" for index, token in enumerate(measured.word_tokenizer.tokens)]
    pieces: NDArray[np.int64] = measured.tokenizer.encode_lines([f" {token}" for token in vocabulary]).lengths - 1
    everywhere = sum(measured.word_counts.values())[2:]  # type: ignore[index]
    within = np.cumsum(np.bincount(np.minimum(pieces[2:], 16), weights=everywhere)) / max(int(everywhere.sum()), 1)
    most = max(2, int(np.searchsorted(within, 0.9995)))
    frame = pd.DataFrame({"tokens": np.arange(1, most + 1)})
    rows = []
    for split, counts in measured.word_counts.items():
        held = np.bincount(np.minimum(pieces[2:], most), weights=counts[2:], minlength=most + 1)[1:]
        frame[split] = held / max(held.sum(), 1)
        own = measured.documents[measured.documents["split"] == split]
        lines, whole = int(own["lines"].sum()), int(own["tokens"].sum())
        running = max(int(own["words"].sum()), 1)
        rows.append((split, whole - lines, running, (whole - lines) / running, int(own["characters"].sum()) / whole))
    names = ["split", "tokens", "words", "tokens per word", "characters per token"]
    caption = "Tokens without the <eos> of the lines; words separated by white space."
    drawing = PageFigure(
        "tokens_per_word",
        "Tokens per word",
        f"Each word and mark behind a blank, as often as it occurs; {most} stands for {most} or more.",
        lambda path: draw_tokens_per_word(path, frame),
    )
    tables = [
        PageTable("tokens_per_word", "Tokens per word", pd.DataFrame(rows, columns=names).round(4), caption),
        PageTable("tokens_per_word_shares", "Words by their tokens", frame, rows=0, shares=tuple(measured.splits)),
    ]
    return drawing, tables


def agreement(measured: Measurements, seed: int) -> Section:
    """Make the section on the distributions of the splits and the distances between them."""
    frame = measured.documents
    rows: list[tuple[str, str, str, float, float | None]] = []
    figures = []
    quantities: list[tuple[str, str, str, dict[str, NDArray[np.float64]]]] = []
    for name, count, label in (
        ("tokens", "tokens", "tokens of a document"),
        ("richness", "types", "different words of a document"),
    ):
        quantities.append((name, label, label, _by_split(measured, frame[count])))
    chosen, _ = choose_columns(measured.columns)
    for column in chosen:
        if column.kind == "number":
            values = pd.to_numeric(frame[column.name], errors="coerce")
            quantities.append((column.name, column.name, column.name, _by_split(measured, values)))
    for name, what, label, own in quantities:
        if all(len(values) for values in own.values()):
            figures.append(_distribution(name, what, label, own))
            rows += [(what, "Kolmogorov–Smirnov", *compared) for compared in _compare(own)]
    lines = {split: encoded.line_lengths.astype(np.float64) for split, encoded in measured.tokens.items()}
    figures.append(_distribution("lines", "tokens of a line", "tokens of a line", lines))
    rows += [("tokens of a line", "Kolmogorov–Smirnov", pair, value, None) for pair, value, _ in _compare(lines)]
    for column in chosen:
        if column.kind == "category":
            drawing, compared = _shares(measured, column, seed)
            figures.append(drawing)
            rows += compared
    for split in measured.splits[1:]:
        divergence = jensen_shannon(measured.word_counts["train"], measured.word_counts[split])
        rows.append(("frequencies of words", "Jensen–Shannon (bits)", f"train, {split}", divergence, None))
    table = pd.DataFrame(rows, columns=["what", "statistic", "splits", "value", "p"]).round({"value": 4, "p": 4})
    text = [
        "Do valid and test look like train? Each statistic is 0 where two splits agree and 1 where they have nothing "
        "in common. p is the chance of so large a value if both were drawn from one source: Kolmogorov's limiting "
        "distribution for numbers, 2,000 random exchanges of documents for categories. Lines and words of one document "
        "are not drawn independently, so they get no p.",
        "tables/splits.csv lists every document with its split, metadata and counts.",
    ]
    tables = [
        PageTable("agreement", "How far the splits are apart", table, rows=60),
        PageTable("splits", "Documents", frame, rows=5, plain=tuple(column.name for column in measured.columns)),
    ]
    return Section("splits", "Do the splits agree?", text, figures, tables)


def _distribution(name: str, what: str, label: str, samples: dict[str, NDArray[np.float64]]) -> PageFigure:
    positive = all(bool((values >= 0).all()) for values in samples.values()) and "year" not in what.lower()
    return PageFigure(
        f"split_distribution_{name}",
        f"By split: {what}",
        "Empirical distribution functions; where they lie on one another, the splits agree.",
        lambda path: draw_distributions(path, samples, label, positive),
    )


def _by_split(measured: Measurements, values: pd.Series) -> dict[str, NDArray[np.float64]]:
    splits = measured.documents["split"]
    return {split: values[splits == split].dropna().to_numpy(np.float64) for split in measured.splits}


def _compare(samples: dict[str, NDArray[np.float64]]) -> list[tuple[str, float, float]]:
    """Compare train with each other split."""
    compared = []
    for split, values in samples.items():
        if split != "train":
            result = kolmogorov_smirnov(samples["train"], values)
            compared.append((f"train, {split}", result.statistic, result.p_value))
    return compared


def _shares(
    measured: Measurements, column: Column, seed: int
) -> tuple[PageFigure, list[tuple[str, str, str, float, float | None]]]:
    """Return a figure with the shares of the values of a column in each split, and the distances between splits."""
    counts = pd.crosstab(groups(measured.documents, column, most=12), measured.documents["split"]).reindex(
        columns=measured.splits, fill_value=0
    )
    rows: list[tuple[str, str, str, float, float | None]] = []
    for split in measured.splits[1:]:
        result = total_variation(counts["train"].to_numpy(), counts[split].to_numpy(), seed)
        rows.append((column.name, "total variation", f"train, {split}", result.statistic, result.p_value))
    shares = counts / counts.sum()
    drawing = PageFigure(
        f"split_shares_{column.name}",
        f"By split: {column.name}",
        "Share of each split's documents.",
        lambda path: draw_grouped_bars(path, shares, "share of the split's documents"),
    )
    return drawing, rows
