"""Section that compares two runs: where one beats the other."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from torch_linguist.analysis.analysis_figures import draw_intervals
from torch_linguist.analysis.analysis_settings import AnalysisSettings
from torch_linguist.analysis.analyzed_run import AnalyzedRun
from torch_linguist.analysis.surprisal_section import PASSAGE, passages
from torch_linguist.evaluation.slices import Grouping, slice_table
from torch_linguist.evaluation.uncertainty import Parts, paired_difference
from torch_linguist.report.page_parts import ColoredRow, ColoredText, PageFigure, PageTable, Section

LEAST_TOKENS = 100
"""Minimum size of a group among the largest differences."""

MOST_GROUPS = 12
"""Groups on each side of the figure."""

STRONGEST_NATS = 3.0
"""Difference shown in the strongest color."""

Floats = NDArray[np.float64]


def comparison(first: AnalyzedRun, second: AnalyzedRun, settings: AnalysisSettings) -> Section:
    """Compare two runs, token by token where they share a tokenizer, else line by line.

    Args:
        first: one run.
        second: another run on the same text.
        settings: seed and samples.
    """
    if first.shares_tokens(second):
        differences = second.evaluation.nll - first.evaluation.nll
        section = _section(first, second, differences, first.groupings, "token", settings)
        section.tables.append(_word_differences(first, second, differences))
        section.colored_texts.extend(_colored(first, second, settings))
        return section
    if first.stream.num_lines != second.stream.num_lines or first.stream.num_documents != second.stream.num_documents:
        text = ["The two runs read different texts, so there is nothing to compare."]
        return Section("comparison", f"{first.label} and {second.label}", text)
    lines = [_line_nats(run) for run in (first, second)]
    lengths = np.diff(first.stream.line_offsets).astype(np.int64)
    groupings = [grouping for grouping in first.groupings if grouping.of_lines]
    spread = np.repeat((lines[1] - lines[0]) / lengths, lengths)
    section = _section(first, second, spread, groupings, f"token of {first.label}", settings)
    section.text.append(
        "The runs have different tokenizers and are compared line by line: the difference of a line is spread over its "
        f"tokens of {first.label}."
    )
    section.tables.append(_line_differences(first, second, lines))
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
    whole = paired_difference(sums, np.zeros_like(sums), parts.lengths, seed=settings.seed)
    better, worse = (first, second) if whole.mean > 0 else (second, first)
    lead = f"{better.label} is better than {worse.label} by {abs(whole.mean):.3f} nats per {unit}"
    text = [
        f"{lead} (95% interval of the difference {whole.interval.low:+.4f} to {whole.interval.high:+.4f}; "
        f"p = {whole.p_value:.2g}). Below, positive numbers mean that {first.label} is better."
    ]
    notes = [
        f"Intervals by paired bootstrap over {len(parts)} {parts.kind}; the p-value is that of a randomization test."
    ]
    figure = PageFigure(
        "differences",
        "Largest differences",
        f"Groups of at least {LEAST_TOKENS} tokens, furthest from the overall difference (dashed). Numbers in "
        "brackets: tokens.",
        partial(
            draw_intervals,
            tables={"difference": _largest(table)},
            xlabel=f"nats per {unit} that {second.label} needs more",
            reference=whole.mean,
        ),
    )
    caption = f"difference: nats per {unit} of {second.label} minus those of {first.label}."
    tables = [PageTable("differences", "By slice", table, caption, rows=0)]
    findings = [f"{lead}{_where(table, sign=1 if better is first else -1)}."]
    title = f"Where {first.label} and {second.label} differ"
    return Section("comparison", title, text, [figure], tables, findings=findings, notes=notes)


def _where(table: pd.DataFrame, sign: int) -> str:
    """The group of words on which the better run gains most per token, as the end of a sentence."""
    own = table[table["slice"].isin(["frequency in train", "word class"]) & (table["tokens"] >= LEAST_TOKENS)]
    if own.empty:
        return ""
    top = own.iloc[int((sign * own["difference"]).to_numpy().argmax())]
    return f", most on {top['slice']} “{top['value']}” ({abs(top['difference']):.2f} nats)"


def _largest(table: pd.DataFrame) -> pd.DataFrame:
    """The groups with the largest differences on both sides, with the columns of `draw_intervals`."""
    own = table[table["tokens"] >= LEAST_TOKENS]
    own = (own if len(own) else table).sort_values("difference", kind="stable")
    chosen = own if len(own) <= 2 * MOST_GROUPS else pd.concat([own.head(MOST_GROUPS), own.tail(MOST_GROUPS)])
    named = chosen.assign(value=chosen["slice"] + ": " + chosen["value"], loss=chosen["difference"])
    return named.drop_duplicates("value").iloc[::-1]


def _word_differences(first: AnalyzedRun, second: AnalyzedRun, differences: Floats) -> PageTable:
    """The words with the largest total differences."""
    size = first.tokenizer.vocab_size
    totals, counts = np.bincount(first.ids, differences, size), np.bincount(first.ids, minlength=size)
    order = np.argsort(-totals, kind="stable")
    chosen = [*order[:10].tolist(), *order[-10:].tolist()] if size > 20 else order.tolist()
    rows = [
        (first.pieces[token].strip(), int(counts[token]), float(totals[token]), float(totals[token] / counts[token]))
        for token in chosen
        if counts[token]
    ]
    names = ["word", "occurrences", "total nats", "nats each"]
    caption = f"Positive: {first.label} needs fewer nats than {second.label}. The ten largest on both sides."
    return PageTable("words_won", "Words", pd.DataFrame(rows, columns=names), caption, rows=20)


def _colored(first: AnalyzedRun, second: AnalyzedRun, settings: AnalysisSettings) -> list[ColoredText]:
    found = []
    both = zip(passages(first, settings), passages(second, settings), strict=True)
    for number, (own, other) in enumerate(both, 1):
        # Of the user's own text, each run may have read a different part of the end.
        size = min(len(own.ids), len(other.ids), PASSAGE)
        differences = other.nll[-size:] - own.nll[-size:]
        pieces = [first.pieces[token] for token in own.ids[-size:]]
        hints = [f"{value:+.2f} nats" for value in differences]
        row = ColoredRow("", pieces, differences.tolist(), hints, STRONGEST_NATS, signed=True)
        caption = (
            f"Orange: {first.label} expected the word more; blue: {second.label} did. The strongest color stands for "
            f"{STRONGEST_NATS:g} nats or more; total {differences.sum():+.1f}."
        )
        found.append(ColoredText(f"difference_{number}", own.source, caption, [row]))
    return found


def _line_nats(run: AnalyzedRun) -> Floats:
    return Parts("lines", np.asarray(run.stream.line_offsets)).sums(run.evaluation.nll)


def _line_differences(first: AnalyzedRun, second: AnalyzedRun, nats: Sequence[Floats]) -> PageTable:
    """The lines with the largest differences."""
    offsets = np.asarray(first.stream.line_offsets)
    differences = nats[1] - nats[0]
    order = np.argsort(-differences, kind="stable")
    rows = []
    for line in dict.fromkeys([*order[:6].tolist(), *order[-6:].tolist()]):
        text = first.tokenizer.decode(first.ids[offsets[line] : offsets[line + 1] - 1].tolist())
        rows.append((line + 1, text, *(float(own[line]) for own in nats), float(differences[line])))
    names = ["line", "text", f"nats {first.label}", f"nats {second.label}", "difference"]
    frame = pd.DataFrame(rows, columns=names)
    return PageTable("lines_won", "Lines", frame, f"Positive: {first.label} needs fewer nats.")
