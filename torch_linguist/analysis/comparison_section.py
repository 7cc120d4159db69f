"""The section on two runs: where one beats the other."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from torch_linguist.analysis.analysis_figures import draw_intervals
from torch_linguist.analysis.analysis_settings import AnalysisSettings
from torch_linguist.analysis.analyzed_run import AnalyzedRun
from torch_linguist.analysis.attribution_section import PASSAGE, passages
from torch_linguist.evaluation.slices import Grouping, slice_table
from torch_linguist.evaluation.uncertainty import Parts, paired_difference
from torch_linguist.report.page_parts import ColoredRow, ColoredText, PageFigure, PageTable, Section

LEAST_TOKENS = 100
"""Smaller groups are not among those with the largest difference."""

MOST_GROUPS = 12
"""Of each side, in the figure."""

STRONGEST_NATS = 3.0
"""Difference of the strongest color."""

Floats = NDArray[np.float64]


def comparison(first: AnalyzedRun, second: AnalyzedRun, settings: AnalysisSettings) -> Section:
    """Where one run beats the other, token by token where they share a tokenizer, else line by line.

    Args:
        first: a run.
        second: another on the same text.
        settings: of the samples.
    """
    title = f"{first.label} and {second.label}"
    if first.shares_tokens(second):
        differences = second.evaluation.nll - first.evaluation.nll
        section = _section(first, second, differences, first.groupings, "token", settings)
        section.tables.append(_words_won(first, second, differences))
        section.colored_texts.extend(_colored(first, second, settings))
        return section
    if first.stream.num_lines != second.stream.num_lines or first.stream.num_documents != second.stream.num_documents:
        return Section("comparison", title, ["The two read different texts: there is nothing to compare."])
    lines = [_line_nats(run) for run in (first, second)]
    lengths = np.diff(first.stream.line_offsets).astype(np.int64)
    groupings = [grouping for grouping in first.groupings if grouping.of_lines]
    spread = np.repeat((lines[1] - lines[0]) / lengths, lengths)
    section = _section(first, second, spread, groupings, f"token of {first.label}", settings)
    section.text.append(
        f"The two have different tokenizers, so that they are compared line by line: a line's difference is spread "
        f"over its tokens of {first.label}."
    )
    section.tables.append(_lines_won(first, second, lines))
    return section


def _section(
    first: AnalyzedRun,
    second: AnalyzedRun,
    differences: Floats,
    groupings: Sequence[Grouping],
    unit: str,
    settings: AnalysisSettings,
) -> Section:
    parts = first.evaluation.parts
    table = slice_table(differences, groupings, parts, seed=settings.seed)
    table = table.rename(columns={"loss": "difference"}).drop(columns="share_of_loss")
    sums = parts.sums(differences)
    whole = paired_difference(sums, np.zeros_like(sums), len(differences), seed=settings.seed)
    better, worse = (first, second) if whole.mean > 0 else (second, first)
    text = [
        f"{better.label} needs {abs(whole.mean):.4f} nats a {unit} less than {worse.label} (95% interval of the "
        f"difference {whole.interval.low:+.4f} to {whole.interval.high:+.4f}, paired bootstrap over {len(parts)} "
        f"{parts.kind}; randomization test p = {whole.p_value:.2g}).",
        f"Below, positive means that {first.label} is better: so many nats a {unit} less than {second.label}.",
    ]
    found = _largest(table)
    figures = [
        PageFigure(
            "differences",
            "The largest differences",
            f"Groups of {LEAST_TOKENS} tokens and more, furthest from the difference of all (dashed). Beside the "
            "names: tokens.",
            partial(
                draw_intervals,
                tables={"difference": found},
                xlabel=f"nats a {unit} that {second.label} needs more",
                reference=whole.mean,
            ),
        )
    ]
    caption = f"difference: nats a {unit} of {second.label} less those of {first.label}."
    tables = [PageTable("differences", "By slice", table, caption, rows=0)]
    return Section("comparison", f"Where {first.label} and {second.label} differ", text, figures, tables)


def _largest(table: pd.DataFrame) -> pd.DataFrame:
    """The groups with the largest differences on both sides, as `draw_intervals` takes them."""
    own = table[table["tokens"] >= LEAST_TOKENS]
    own = (own if len(own) else table).sort_values("difference", kind="stable")
    chosen = own if len(own) <= 2 * MOST_GROUPS else pd.concat([own.head(MOST_GROUPS), own.tail(MOST_GROUPS)])
    named = chosen.assign(value=chosen["slice"] + ": " + chosen["value"], loss=chosen["difference"])
    return named.drop_duplicates("value").iloc[::-1]


def _words_won(first: AnalyzedRun, second: AnalyzedRun, differences: Floats) -> PageTable:
    """The words by which most is won and lost."""
    size = first.tokenizer.vocab_size
    totals, counts = np.bincount(first.ids, differences, size), np.bincount(first.ids, minlength=size)
    order = np.argsort(-totals, kind="stable")
    chosen = [*order[:10].tolist(), *order[-10:].tolist()] if size > 20 else order.tolist()
    rows = [
        (
            first.pieces[token].strip(),
            int(counts[token]),
            float(totals[token]),
            float(totals[token] / counts[token]),
        )
        for token in chosen
        if counts[token]
    ]
    names = ["word", "occurrences", "nats in all", "nats each"]
    caption = f"Positive: {first.label} needs less for it than {second.label}. The ten largest on both sides."
    return PageTable("words_won", "Words", pd.DataFrame(rows, columns=names), caption, rows=20)


def _colored(first: AnalyzedRun, second: AnalyzedRun, settings: AnalysisSettings) -> list[ColoredText]:
    found = []
    both = zip(passages(first, settings), passages(second, settings), strict=True)
    for number, (own, other) in enumerate(both, 1):
        # Of a text of one's own each may have read another end.
        size = min(len(own.ids), len(other.ids), PASSAGE)
        differences = other.nll[-size:] - own.nll[-size:]
        pieces = [first.pieces[token] for token in own.ids[-size:]]
        hints = [f"{value:+.2f} nats" for value in differences]
        row = ColoredRow("", pieces, differences.tolist(), hints, STRONGEST_NATS, signed=True)
        caption = (
            f"Orange: {first.label} expected the word more; blue: {second.label} did. Strongest color from "
            f"{STRONGEST_NATS:g} nats; in all {differences.sum():+.1f}."
        )
        found.append(ColoredText(f"difference_{number}", own.source, caption, [row]))
    return found


def _line_nats(run: AnalyzedRun) -> Floats:
    offsets = np.asarray(run.stream.line_offsets)
    return Parts("lines", offsets).sums(run.evaluation.nll)


def _lines_won(first: AnalyzedRun, second: AnalyzedRun, nats: Sequence[Floats]) -> PageTable:
    """The lines by which most is won and lost, by nats."""
    offsets = np.asarray(first.stream.line_offsets)
    differences = nats[1] - nats[0]
    order = np.argsort(-differences, kind="stable")
    rows = []
    for line in dict.fromkeys([*order[:6].tolist(), *order[-6:].tolist()]):
        text = first.tokenizer.decode(first.ids[offsets[line] : offsets[line + 1] - 1].tolist())
        rows.append((line + 1, text, *(float(own[line]) for own in nats), float(differences[line])))
    names = ["line", "text", f"nats {first.label}", f"nats {second.label}", "difference"]
    frame = pd.DataFrame(rows, columns=names)
    return PageTable("lines_won", "Lines", frame, f"Positive: {first.label} needs less.", rows=12)


__all__ = ["comparison"]
