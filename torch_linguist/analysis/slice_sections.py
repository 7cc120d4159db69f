"""The sections on the scores: all of them, and by slice."""

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from torch_linguist.analysis.analysis_figures import draw_intervals, draw_values
from torch_linguist.analysis.analyzed_run import MOST_CROSSED, AnalyzedRun
from torch_linguist.evaluation.slices import RESAMPLES, Grouping, crossed, slice_table, with_perplexity
from torch_linguist.explore.texts import file_name
from torch_linguist.report.page import cell_text
from torch_linguist.report.page_parts import PageFigure, PageTable, Section

CAPTIONS = {
    "frequency in train": "How often the token that is to be predicted occurs in the training split.",
    "word class": "Of the word that is to be predicted. Function words are a closed list of English; capitalized are "
    "all others with a capital, those that begin a sentence included; number: with a digit.",
    "special tokens": "<unk> stands for a word outside the vocabulary, <eos> closes each line.",
    "position in line": "Counted in tokens from the beginning of the line, which is 1.",
    "position in document": "Counted in tokens from the beginning of the document, which is 1.",
    "part of the document": "The tenth of the document in which the middle of the token's line lies.",
    "sentence length": "Words of the sentence that the token is in; a full stop, ! or ? or the end of the line closes "
    "a sentence, so abbreviations cut some short.",
    "line length": "Tokens of the line that the token is in, <eos> included.",
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
    """The score of each run, as `tl-eval` has it."""
    rows = []
    for run in runs:
        found = run.evaluation.row()
        own = {"run": run.label, "model": run.family, "tokenizer": run.tokenizer.kind}
        rows.append(own | {name: found[name] for name in SCORES} | {"read": run.reading})
    frame = pd.DataFrame(rows)
    caption = "Every token scored once, <eos> included. Low and high: 95% by bootstrap over what the table names."
    # A run a column: two of them fit the screen of a phone, all their numbers side by side do not.
    turned = pd.DataFrame(
        [
            (name.replace("_", " "), *(cell_text(value, share=name == "oov_rate") for value in frame[name]))
            for name in frame.columns[1:]
        ],
        columns=["", *frame["run"]],
    )
    tables = [PageTable("overview", "Scores", turned, caption, rows=20), PageTable("scores", "Scores", frame, rows=0)]
    return Section("overview", "Scores", tables=tables)


def slices(runs: Sequence[AnalyzedRun], seed: int) -> Section:
    """Loss by what a token is and where it stands."""
    tables = {
        run.label: slice_table(run.evaluation.nll, run.groupings, run.evaluation.parts, seed=seed) for run in runs
    }
    # Two tokenizers cut the same text into other tokens; what there is of each is in the table.
    names = list(dict.fromkeys(name for table in tables.values() for name in table["slice"]))
    reference = runs[0].evaluation.score.loss if len(runs) == 1 else None
    figures = [
        PageFigure(
            f"loss_by_{file_name(name)}",
            f"By {name}",
            CAPTIONS.get(name, f"The metadata column {name} of the document."),
            partial(draw_intervals, tables=_of_slice(tables, name), xlabel="nats per token", reference=reference),
        )
        for name in names
    ]
    several, pairs, text = len(runs) > 1, {}, _notes(runs)
    for run in runs:
        if crossings := _pairs(run):
            evaluation = run.evaluation
            both = [crossed(one, other) for one, other in crossings]
            found = slice_table(evaluation.nll, both, evaluation.parts, seed=seed)
            pairs[run.label] = found
            telling = [(one, other) for one, other in crossings if not _nested(one, other)]
            figures += [_crossed_drawing(run.label, found, one, other, several) for one, other in telling]
            if run is runs[0] and len(telling) < len(crossings):
                nested = [f"{one.name} × {other.name}" for one, other in crossings if _nested(one, other)]
                text.append(
                    f"Pairs without a figure, since one of the two says all in this split: {', '.join(nested)}."
                )
    written = [PageTable("slices", "Loss by slice", _joined(tables), rows=0)]
    if pairs:
        written.append(PageTable("slices_pairs", "Loss by pairs of columns", _joined(pairs), rows=0))
    written.append(_costs(tables[runs[0].label], runs[0].label))
    return Section("slices", "Loss by slice", text, figures, written)


def _notes(runs: Sequence[AnalyzedRun]) -> list[str]:
    parts = runs[0].evaluation.parts
    whose = f" of {runs[0].label}" if len(runs) > 1 else ""
    text = [
        f"The groups of each figure hold every token of {runs[0].split} once: their losses, weighted by their "
        f"tokens, add up to the score. Beside the names: tokens{whose}. Intervals are 95%, by bootstrap over "
        f"{len(parts)} {parts.kind} ({RESAMPLES:,} resamples, percentiles); a group that stands in fewer than five of "
        "them has none."
    ]
    if not len(runs[0].metadata.columns):
        return [*text, "The documents carry no metadata to slice by."]
    return text + runs[0].columns[1]


def _of_slice(tables: dict[str, pd.DataFrame], name: str) -> dict[str, pd.DataFrame]:
    return {label: table[table["slice"] == name] for label, table in tables.items() if (table["slice"] == name).any()}


def _joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([with_perplexity(table).assign(run=label) for label, table in tables.items()], ignore_index=True)


def _costs(table: pd.DataFrame, label: str) -> PageTable:
    """Where most of the loss is lost: groups whose share of the loss is far above their share of the tokens."""
    own = with_perplexity(table)
    order = (own["share_of_loss"] - own["share"]).sort_values(ascending=False).index
    own = own.loc[order, ["slice", "value", "tokens", "share", "share_of_loss", "loss", "low", "high", "perplexity"]]
    caption = f"Of {label}: groups whose share of the loss is furthest above their share of the tokens."
    return PageTable(
        "costly_slices", "Where the loss is lost", own, caption, rows=12, shares=("share", "share_of_loss")
    )


def _pairs(run: AnalyzedRun) -> list[tuple[Grouping, Grouping]]:
    own = [run.column_grouping(column, MOST_CROSSED) for column in run.columns[0]]
    return list(itertools.combinations(own, 2))


def _nested(one: Grouping, other: Grouping) -> bool:
    """Whether each group of one lies within a single group of the other, so that crossing them tells nothing new."""
    both = len(np.unique(crossed(one, other).codes))
    return both == max(len(np.unique(one.codes)), len(np.unique(other.codes)))


def _crossed_drawing(label: str, table: pd.DataFrame, one: Grouping, other: Grouping, several: bool) -> PageFigure:
    """The heatmap of a pair of columns, the one with more groups downwards."""
    both = crossed(one, other)
    own = table[table["slice"] == both.name].set_index("value")["loss"]
    losses = np.array([own.get(name, np.nan) for name in both.labels]).reshape(len(one.labels), len(other.labels))
    index, columns = pd.Index(one.labels, name=one.name), pd.Index(other.labels, name=other.name)
    wide = pd.DataFrame(losses, index, columns).dropna(how="all").dropna(axis=1, how="all")
    if wide.shape[1] > wide.shape[0]:
        wide = wide.T
    of = f", {label}" if several else ""
    return PageFigure(
        f"loss_by_{file_name(one.name)}_and_{file_name(other.name)}" + (f"_{file_name(label)}" if several else ""),
        f"By {one.name} × {other.name}{of}",
        "Nats per token; the tokens and intervals of each pair are in the table.",
        partial(draw_values, table=wide, label="nats per token"),
    )
