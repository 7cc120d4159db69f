"""Sections on the documents: overview, samples, lengths, metadata, duplicates."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from torch_linguist.data import Document
from torch_linguist.explore.columns import (
    Column,
    by_group,
    counts_by_year,
    cross_tables,
    find_years,
    groups,
)
from torch_linguist.explore.curves import draw_years
from torch_linguist.explore.drawing import draw_boxes, draw_histogram, draw_table_heatmap
from torch_linguist.explore.duplicates import duplicate_counts, find_duplicates, line_digests
from torch_linguist.explore.measure import Measurements, totals
from torch_linguist.report.figure_style import color
from torch_linguist.report.page_parts import Excerpt, PageFigure, PageTable, Section

MOST_COLUMNS = 8
"""Metadata columns that get a figure of their own."""

EXCERPT_CHARACTERS = 600


def overview(measured: Measurements) -> Section:
    """Make the section with the counts of each split and what was read."""
    table = totals(measured)
    text = [coverage_note(measured), *(f"Note: {note}." for note in measured.notes)]
    empty = int(table["empty documents"].iloc[-1])
    if empty:
        text.append(f"{empty:,} documents hold no word at all.")
    caption = (
        "words: separated by white space; tokens: of the tokenizer, the <eos> of each line included; types: different "
        "words, <eos> included; unknown: tokens for words outside the vocabulary of "
        f"{measured.tokenizer.vocab_size:,} types, which comes from train alone."
    )
    read = pd.DataFrame(
        {
            "split": measured.splits,
            "documents read": [sample.scanned for sample in measured.samples.values()],
            "documents explored": [len(sample.documents) for sample in measured.samples.values()],
            "characters read": [sample.characters for sample in measured.samples.values()],
            "read to the end": [sample.complete for sample in measured.samples.values()],
            "documents cut short": [sample.cut for sample in measured.samples.values()],
        }
    )
    tables = [
        PageTable("overview", "Counts", table, caption, shares=("unknown rate",)),
        PageTable("read", "What was read", read, rows=0 if measured.is_whole else 12),
    ]
    return Section("overview", "Overview", text, tables=tables)


def coverage_note(measured: Measurements) -> str:
    """Return a sentence that says whether the page describes the whole corpus or a sample."""
    if measured.is_whole:
        return "The whole corpus was read; every number below is of all of it."
    parts = []
    for split, sample in measured.samples.items():
        if sample.is_whole:
            parts.append(f"all of {split}")
        else:
            seen = f"{sample.scanned:,} documents" + ("" if sample.complete else " at its beginning")
            parts.append(f"{len(sample.documents):,} of {split}'s {seen}")
    return (
        f"This is a sample: explored were {'; '.join(parts)}, drawn with a seed. The rest did not go into any number "
        "below but those on duplicates. explore.sample_mebibytes and explore.scan_mebibytes set how much is taken."
    )


def samples(measured: Measurements, count: int, seed: int) -> Section:
    """Make the section with random excerpts of each split."""
    generator = np.random.default_rng(seed)
    excerpts = []
    for split, sample in measured.samples.items():
        candidates = [index for index, document in enumerate(sample.documents) if document.text.strip()]
        chosen = generator.permutation(np.array(candidates, np.int64))[:count]
        for index in sorted(chosen.tolist()):
            document = sample.documents[index]
            source = ", ".join([f"{split} {int(sample.positions[index])}", *_facts(document)])
            excerpts.append(Excerpt(source, excerpt(document.text, generator)))
    frame = pd.DataFrame([(entry.source, entry.text) for entry in excerpts], columns=["document", "text"])
    tables = [PageTable("samples", "Samples", frame, rows=0)] if excerpts else []
    return Section("samples", "Random samples", [], tables=tables, excerpts=excerpts)


def excerpt(text: str, generator: np.random.Generator) -> str:
    """Return some lines from a random place on, empty ones left out."""
    characters = EXCERPT_CHARACTERS
    begin = int(generator.integers(0, max(1, len(text) - characters)))
    if begin:
        line = text.find("\n", begin, begin + 4 * characters)
        begin = line + 1 if 0 <= line < len(text.rstrip()) else begin
    piece = text[begin : begin + 3 * characters]
    lines = "\n".join(line.strip() for line in piece.split("\n") if line.strip())
    return lines if len(lines) <= characters else f"{lines[:characters].rsplit(' ', 1)[0]} …"


def _facts(document: Document) -> list[str]:
    return [f"{name}: {str(value)[:60]}" for name, value in document.metadata.items() if value is not None]


def lengths(measured: Measurements) -> Section:
    """Make the section on the lengths of documents, lines and words, by split and by metadata column."""
    frame = measured.documents
    by_split = {split: frame.loc[frame["split"] == split, "tokens"].to_numpy() for split in measured.splits}
    lines = {split: encoded.line_lengths for split, encoded in measured.tokens.items()}
    colors = [color(index) for index in range(len(measured.splits))]
    unit = "tokens, <eos> included"
    figures = [
        PageFigure(
            "document_lengths",
            "Documents",
            "Each split is drawn as shares of its own documents.",
            lambda path: draw_histogram(path, by_split, f"{unit}, of a document", "share of the documents"),
        ),
        PageFigure(
            "document_lengths_by_split",
            "Documents, by split",
            "Boxes: the middle half and the median, whiskers to 1.5 times its width. Violins: kernel densities, the "
            "point is the median. Beside the names: how many documents.",
            lambda path: draw_boxes(path, by_split, unit, colors),
        ),
        PageFigure(
            "line_lengths",
            "Lines",
            "Empty lines, where the corpus keeps them, are the shortest.",
            lambda path: draw_histogram(path, lines, f"{unit}, of a line", "share of the lines"),
        ),
        PageFigure(
            "line_lengths_by_split",
            "Lines, by split",
            "Beside the names: how many lines.",
            lambda path: draw_boxes(path, lines, unit, colors),
        ),
    ]
    chosen, text = choose_columns(measured.columns)
    figures += [_lengths_by(measured, column, unit) for column in chosen]
    return Section("lengths", "Lengths", text, figures, [_length_table(by_split, lines)])


def choose_columns(columns: list[Column]) -> tuple[list[Column], list[str]]:
    """Return the metadata columns that get a figure, and a sentence on the others."""
    grouping = [column for column in columns if column.is_grouping]
    chosen, rest = grouping[:MOST_COLUMNS], grouping[MOST_COLUMNS:]
    left_out = [
        f"{column.name} (the same everywhere)"
        if column.kind == "constant"
        else f"{column.name} ({column.values:,} different values)"
        for column in columns
        if not column.is_grouping
    ] + [f"{column.name} (one column too many)" for column in rest]
    if not columns:
        return [], ["The documents carry no metadata."]
    return chosen, [f"Metadata columns without a figure: {', '.join(left_out)}."] if left_out else []


def _lengths_by(measured: Measurements, column: Column, unit: str) -> PageFigure:
    grouped = by_group(measured.documents, groups(measured.documents, column), "tokens")
    return PageFigure(
        f"document_lengths_by_{column.name}",
        f"Documents, by {column.name}",
        f"All splits together. Beside the names: how many documents. {column.values:,} different values.",
        lambda path: draw_boxes(path, grouped, unit),
    )


def _length_table(documents: Mapping[str, NDArray[np.int64]], lines: Mapping[str, NDArray[np.int64]]) -> PageTable:
    rows = []
    for what, samples_of in (("documents", documents), ("lines", lines)):
        for split, values in samples_of.items():
            quantiles = np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
            rows.append((what, split, len(values), float(values.mean()), *(float(value) for value in quantiles)))
    names = ["what", "split", "count", "mean", "least", "5%", "25%", "median", "75%", "95%", "most"]
    frame = pd.DataFrame(rows, columns=names).round(2)
    return PageTable("lengths", "Lengths in tokens", frame, "Quantiles, in tokens with the <eos> of each line.")


def metadata(measured: Measurements) -> Section | None:
    """Make the section with cross tables of metadata and counts by year; None if there is nothing to show."""
    frame = measured.documents
    figures: list[PageFigure] = []
    tables: list[PageTable] = []
    names = [column.name for column in measured.columns]
    years = find_years(frame, names)
    if years is not None:
        counted = counts_by_year(frame, years)
        figures.append(
            PageFigure(
                "by_year",
                "By year",
                "Documents and tokens, the splits on top of one another.",
                lambda path: draw_years(path, counted, measured.splits),
            )
        )
        tables.append(
            PageTable("by_year", "By year", counted, "A row for each year and split.", rows=6, plain=("year",))
        )
    for table in cross_tables(frame, measured.columns):
        one, other = str(table.index.name), str(table.columns.name)
        name = f"cross_{one}_{other}"
        figures.append(
            PageFigure(name, f"{one} × {other}", "Documents of each pair.", partial(draw_table_heatmap, table=table))
        )
        # A value may be called like the column that it is crossed with.
        named = [value if value != one else f"{other}={value}" for value in map(str, table.columns)]
        flat = table.set_axis(named, axis="columns").reset_index()
        tables.append(PageTable(name, f"{one} × {other}", flat, rows=0))
    for column in measured.columns:
        if column.kind == "category":
            values = groups(frame, column, most=10**6).rename("value")
            flat = frame.groupby(values, observed=True)["tokens"].agg(["size", "sum"]).reset_index()
            own = f"{column.name} (metadata)" if column.name in ("documents", "tokens") else column.name
            flat.columns = [own, "documents", "tokens"]
            tables.append(PageTable(f"values_{column.name}", f"Values of {column.name}", flat, rows=8))
    return Section("metadata", "Metadata", [], figures, tables) if figures or tables else None


def duplicates(measured: Measurements) -> Section:
    """Make the section on exact duplicates within and across splits."""
    documents = duplicate_counts({split: sample.digests for split, sample in measured.samples.items()})
    lines = duplicate_counts({split: line_digests(sample.documents) for split, sample in measured.samples.items()})
    crossing = documents[documents["in"] != documents["also in"]]
    held_out = crossing[(crossing["also in"] == "train")]
    names = " and ".join(f"{row['duplicates']:,} of {row['in']}" for _, row in held_out.iterrows())
    text = [f"Documents that also stand in train, letter for letter: {names}."]
    if int(crossing["duplicates"].sum()) == 0:
        text.append("No document is in two splits.")
    found = find_duplicates(
        {split: sample.documents for split, sample in measured.samples.items()},
        {split: sample.positions.tolist() for split, sample in measured.samples.items()},
    )
    own = "Where both splits are the same: copies beyond the first."
    tables = [
        PageTable("duplicate_documents", "Duplicate documents", documents, own, shares=("share",)),
        PageTable(
            "duplicate_lines", "Duplicate lines", lines, f"Lines of five words or more. {own}", shares=("share",)
        ),
    ]
    if len(found):
        tables.append(PageTable("duplicates_found", "Which they are", found, "The first hundred groups.", rows=10))
    return Section("duplicates", "Duplicates", text, tables=tables)
