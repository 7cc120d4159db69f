"""Sections on the scores: overall, and by slice."""

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from torch_linguist.analysis.analysis_figures import draw_intervals, draw_values
from torch_linguist.analysis.analyzed_run import MOST_CROSSED, AnalyzedRun
from torch_linguist.evaluation.slices import RESAMPLES, Grouping, crossed, slice_table, with_perplexity
from torch_linguist.report.page import cell_text
from torch_linguist.report.page_parts import PageFigure, PageTable, Section

CAPTIONS = {
    "frequency in train": "Occurrences of the target token in the training split.",
    "word class": "Class of the target word. Function words: a closed list for English. Capitalized: all other words "
    "with a capital, also at the start of a sentence. Number: contains a digit.",
    "special tokens": "<unk> stands for words outside the vocabulary; <eos> ends each line.",
    "position in line": "In tokens; the first token of a line has position 1.",
    "position in document": "In tokens; the first token of a document has position 1.",
    "part of the document": "Tenth of the document that contains the middle of the token's line.",
    "sentence length": "Words in the sentence of the token. A full stop, !, ?, or the end of the line ends a sentence, "
    "so abbreviations cut some short.",
    "line length": "Tokens in the line of the token, <eos> included.",
}

SCORES = (
    "tokens",
    "loss",
    "perplexity",
    "perplexity_low",
    "perplexity_high",
    "word_perplexity",
    "bits_per_byte",
    "oov_rate",
    "perplexity_without_unknown",
    "resampled",
)


def overview(runs: Sequence[AnalyzedRun]) -> Section:
    """Make the section with the score of each run, as `tl-eval` computes it."""
    rows, findings = [], []
    for run in runs:
        evaluation = run.evaluation
        found, interval = evaluation.row(), evaluation.perplexity_interval
        own = {"run": run.label, "model": run.family, "tokenizer": run.tokenizer.kind}
        rows.append(own | {name: found[name] for name in SCORES} | {"read": run.reading})
        findings.append(
            f"{run.label} reaches perplexity {cell_text(evaluation.score.perplexity)} on {run.split} "
            f"(95% interval {cell_text(interval.low)} to {cell_text(interval.high)})."
        )
    frame = pd.DataFrame(rows)
    caption = "Every token is scored once, <eos> included. Low and high: 95% bootstrap interval over the given parts."
    # One run per column: two columns fit a phone's screen, two wide rows do not.
    turned = pd.DataFrame(
        [
            (name.replace("_", " "), *(cell_text(value, share=name == "oov_rate") for value in frame[name]))
            for name in frame.columns[1:]
        ],
        columns=["", *frame["run"]],
    )
    tables = [PageTable("overview", "Scores", turned, caption, rows=20), PageTable("scores", "Scores", frame, rows=0)]
    return Section("overview", "Scores", tables=tables, findings=findings)


def slices(runs: Sequence[AnalyzedRun], seed: int) -> Section:
    """Make the section on the loss by kind and position of the target token."""
    tables = {
        run.label: slice_table(run.evaluation.nll, run.groupings, run.evaluation.parts, seed=seed) for run in runs
    }
    # Two tokenizers cut the same text into different tokens, so that some groups exist for one of them only.
    names = list(dict.fromkeys(name for table in tables.values() for name in table["slice"]))
    reference = runs[0].evaluation.score.loss if len(runs) == 1 else None
    figures = [
        PageFigure(
            f"loss_by_{name}",
            f"By {name}",
            CAPTIONS.get(name, f"The metadata column {name} of the document."),
            partial(draw_intervals, tables=_of_slice(tables, name), xlabel="nats per token", reference=reference),
        )
        for name in names
    ]
    pair_figures, pairs, nested = _pair_figures(runs, seed)
    written = [PageTable("slices", "Loss by slice", _joined(tables), rows=0)]
    if pairs:
        written.append(PageTable("slices_pairs", "Loss by pairs of columns", _joined(pairs), rows=0))
    costs = {label: _costs(table) for label, table in tables.items()}
    first = runs[0].label
    caption = f"Groups of {first} whose share of the loss is furthest above their share of the tokens."
    written.append(
        PageTable("costly_slices", "Most costly groups", costs[first], caption, shares=("share", "share_of_loss"))
    )
    findings = [_cost_sentence(label, table) for label, table in costs.items() if len(table)]
    text, notes = _text(runs)
    notes += (
        [f"Pairs without a figure, because one column determines the other: {', '.join(nested)}."] if nested else []
    )
    return Section("slices", "Loss by slice", text, figures + pair_figures, written, findings=findings[:1], notes=notes)


def _text(runs: Sequence[AnalyzedRun]) -> tuple[list[str], list[str]]:
    """Paragraphs of the section: those shown, and those folded away."""
    parts = runs[0].evaluation.parts
    whose = f" of {runs[0].label}" if len(runs) > 1 else ""
    text = [f"Each figure sorts all tokens of {runs[0].split} into groups. Numbers in brackets: tokens{whose}."]
    notes = [
        "The losses of the groups, weighted by their tokens, add up to the score. Intervals are 95%, by bootstrap over "
        f"{len(parts)} {parts.kind} ({RESAMPLES:,} resamples, percentiles). A group found in fewer than five of them "
        "has no interval."
    ]
    if not len(runs[0].metadata.columns):
        return [*text, "The documents carry no metadata to slice by."], notes
    return text, notes + runs[0].columns[1]


def _pair_figures(
    runs: Sequence[AnalyzedRun], seed: int
) -> tuple[list[PageFigure], dict[str, pd.DataFrame], list[str]]:
    """Heatmaps of pairs of metadata columns, the table of each run, and the pairs without a figure.

    The heatmaps of one pair share their color scale across runs.
    """
    tables: dict[str, pd.DataFrame] = {}
    wide: dict[str, list[tuple[str, pd.DataFrame]]] = {}
    nested: dict[str, None] = {}
    for run in runs:
        crossings = _column_pairs(run)
        if not crossings:
            continue
        both = [crossed(one, other) for one, other in crossings]
        table = slice_table(run.evaluation.nll, both, run.evaluation.parts, seed=seed)
        tables[run.label] = table
        for one, other in crossings:
            if _nested(one, other):
                nested[f"{one.name} × {other.name}"] = None
            else:
                wide.setdefault(f"{one.name}_and_{other.name}", []).append((run.label, _wide(table, one, other)))
    figures = []
    for name, found in wide.items():
        values = np.concatenate([table.to_numpy(np.float64).ravel() for _, table in found])
        limits = (float(np.nanmin(values)), float(np.nanmax(values)))
        for label, table in found:
            of, suffix = (f", {label}", f"_{label}") if len(runs) > 1 else ("", "")
            figures.append(
                PageFigure(
                    f"loss_by_{name}{suffix}",
                    f"By {name.replace('_and_', ' × ')}{of}",
                    "Nats per token. The table has the tokens and the interval of each pair.",
                    partial(draw_values, table=table, label="nats per token", limits=limits),
                )
            )
    return figures, tables, list(nested)


def _of_slice(tables: dict[str, pd.DataFrame], name: str) -> dict[str, pd.DataFrame]:
    return {label: table[table["slice"] == name] for label, table in tables.items() if (table["slice"] == name).any()}


def _joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([with_perplexity(table).assign(run=label) for label, table in tables.items()], ignore_index=True)


def _costs(table: pd.DataFrame) -> pd.DataFrame:
    """Groups, sorted by how far their share of the loss exceeds their share of the tokens."""
    own = with_perplexity(table)
    order = (own["share_of_loss"] - own["share"]).sort_values(ascending=False).index
    return own.loc[order, ["slice", "value", "tokens", "share", "share_of_loss", "loss", "low", "high", "perplexity"]]


def _cost_sentence(label: str, costs: pd.DataFrame) -> str:
    top = costs.iloc[0]
    return (
        f"{label} loses most by {top['slice']}: “{top['value']}” is {top['share']:.0%} of the tokens and "
        f"{top['share_of_loss']:.0%} of the loss."
    )


def _column_pairs(run: AnalyzedRun) -> list[tuple[Grouping, Grouping]]:
    own = [run.column_grouping(column, MOST_CROSSED) for column in run.columns[0]]
    return list(itertools.combinations(own, 2))


def _nested(one: Grouping, other: Grouping) -> bool:
    """Return whether each group of one lies within a single group of the other: crossing them would add nothing."""
    both = len(np.unique(crossed(one, other).codes))
    return both == max(len(np.unique(one.codes)), len(np.unique(other.codes)))


def _wide(table: pd.DataFrame, one: Grouping, other: Grouping) -> pd.DataFrame:
    """Losses of a pair of columns as a matrix, the column with more groups downwards."""
    both = crossed(one, other)
    own = table[table["slice"] == both.name].set_index("value")["loss"]
    losses = np.array([own.get(name, np.nan) for name in both.labels]).reshape(len(one.labels), len(other.labels))
    index, columns = pd.Index(one.labels, name=one.name), pd.Index(other.labels, name=other.name)
    wide = pd.DataFrame(losses, index, columns).dropna(how="all").dropna(axis=1, how="all")
    return wide.T if wide.shape[1] > wide.shape[0] else wide
