"""Tables and files of `tl-eval`: scores with intervals, paired differences, the matrix of runs and corpora."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from torch_linguist.data.suitability import small_split_notes
from torch_linguist.evaluation.run_evaluation import ScoredModel
from torch_linguist.evaluation.scoring import Score
from torch_linguist.evaluation.uncertainty import RESAMPLES, Difference, paired_difference
from torch_linguist.report.figure_style import new_figure
from torch_linguist.report.page import write_csv
from torch_linguist.report.plots import draw_heatmap
from torch_linguist.report.terminal import large_number, plain_table, score_table

FEW = 4
"""Up to this many models, all pairs are compared."""

LEAST_P = 1 / (RESAMPLES + 1)
"""Smallest p-value that the randomization test can return."""

HIGH_OOV = 0.1
"""OOV rate above which a note warns that scores say little."""


@dataclass(frozen=True)
class PairedComparison:
    """A model compared with a better one on the same split.

    Attributes:
        model: name of the model.
        better: name of the model with fewer bits per byte.
        corpus: name of the corpus.
        split: name of the split.
        unit: `nats per token` or `bits per byte`.
        difference: what the model needs more than the better one.
    """

    model: str
    better: str
    corpus: str
    split: str
    unit: str
    difference: Difference


def evaluation_tables(entries: Sequence[ScoredModel]) -> list[Table]:
    """Return the scores on one corpus; then the interval of each perplexity, and the perplexity without `<unk>`."""
    scores: dict[str, dict[str, Score]] = {}
    for entry in entries:
        scores.setdefault(entry.model, {})[entry.split] = entry.score
    unknown = any(entry.evaluation.unknown_targets for entry in entries)
    further = ["without <unk>"] if unknown else []
    table = plain_table(["model", "split"], ["perplexity", "95% interval", *further])
    for entry in entries:
        interval = entry.evaluation.perplexity_interval
        cells = [entry.score.perplexity, *([entry.evaluation.known_perplexity] if unknown else [])]
        own, *without = map(large_number, cells)
        table.add_row(
            entry.model, entry.split, own, f"{large_number(interval.low)} – {large_number(interval.high)}", *without
        )
    return [score_table(scores), table]


def policy_lines(entries: Sequence[ScoredModel]) -> list[str]:
    """Return what was counted on each split, how unknown words were treated, and how each model read."""
    lines: list[str] = []
    for entry in entries:
        evaluation, score = entry.evaluation, entry.score
        stream = evaluation.stream
        counted = (
            f"{entry.corpus} {entry.split}: {score.tokens:,} tokens, each scored once, {stream.num_lines:,} <eos> "
            f"included; {score.words:,} words, {score.bytes:,} bytes; intervals by bootstrap over "
            f"{len(evaluation.parts)} {evaluation.parts.kind}"
        )
        unknown = (
            f"  <unk> is predicted like any token: {evaluation.unknown_targets:,} times "
            f"({evaluation.unknown_targets / score.tokens:.2%}), of which {stream.oov:,} stand for words outside the "
            f"vocabulary of {entry.model}"
        )
        for line in (counted, unknown):
            # Models with the same tokenizer have the same counts, which are shown once.
            if line.partition(" of which")[0] not in {said.partition(" of which")[0] for said in lines}:
                lines.append(line)
    lines += [f"{model}: {how}" for model, how in {entry.model: entry.reading for entry in entries}.items()]
    sizes = {f"{entry.corpus} {entry.split}": entry.score.tokens for entry in entries}
    return lines + [f"note: {note}" for note in small_split_notes(sizes)] + _oov_notes(entries)


def _oov_notes(entries: Sequence[ScoredModel]) -> list[str]:
    notes = []
    rates = {round(entry.score.oov_rate, 6) for entry in entries}
    if len(rates) > 1 and len({entry.tokenizer for entry in entries}) > 1:
        notes.append(
            "note: the vocabularies leave out different words; bits per byte and word perplexity flatter the model "
            "with the higher OOV rate, because a frequent <unk> is easier than the words it stands for"
        )
    worst = max(entries, key=lambda entry: entry.score.oov_rate)
    if worst.score.oov_rate > HIGH_OOV:
        notes.append(
            f"note: {worst.score.oov_rate:.0%} of the tokens of {worst.corpus} are outside the vocabulary of "
            f"{worst.model}, so its scores there say little; a subword tokenizer (tokenizer=bpe) covers every word"
        )
    return notes


def compare_entries(entries: Sequence[ScoredModel]) -> list[PairedComparison]:
    """Compare models on the same split of the same corpus: all pairs of a few models, else each with the best.

    With the same tokenizer, models are compared per token; with different ones, by the total nats of each document (or
    block of lines), per byte of the text. Texts that have neither cannot be paired and are left out.
    """
    groups: dict[tuple[str, str], list[ScoredModel]] = {}
    for entry in entries:
        groups.setdefault((entry.corpus, entry.split), []).append(entry)
    found: list[PairedComparison] = []
    for (corpus, split), group in groups.items():
        ranked = sorted(group, key=lambda entry: entry.score.bits_per_byte)
        pairs = itertools.combinations(ranked, 2) if len(ranked) <= FEW else itertools.product(ranked[:1], ranked[1:])
        for better, entry in pairs:
            compared = _compare(entry, better)
            if compared is not None:
                found.append(PairedComparison(entry.model, better.model, corpus, split, *compared))
    return found


def _compare(entry: ScoredModel, better: ScoredModel) -> tuple[str, Difference] | None:
    one, other = entry.evaluation, better.evaluation
    if entry.tokenizer == better.tokenizer:
        return "nats per token", paired_difference(one.part_nats, other.part_nats, one.parts.lengths)
    sizes = [(found.score.bytes, found.score.words, len(found.parts)) for found in (one, other)]
    if one.parts.kind == "blocks of tokens" or sizes[0] != sizes[1]:
        return None
    # The bytes of a single part are not recorded; its share of the tokens stands for its share of the bytes.
    bits = one.parts.lengths * one.score.bytes / one.score.tokens * math.log(2)
    return "bits per byte", paired_difference(one.part_nats, other.part_nats, bits)


def comparison_table(comparisons: Sequence[PairedComparison]) -> Table:
    """Return paired differences with intervals and p-values as a table."""
    table = plain_table(["paired difference", "split"], ["difference", "95% interval", "p", "unit"])
    several = len({one.corpus for one in comparisons}) > 1
    for one in comparisons:
        interval = one.difference.interval
        table.add_row(
            f"{one.model} − {one.better}",
            f"{one.corpus} {one.split}" if several else one.split,
            f"{one.difference.mean:+.4f}",
            f"{interval.low:+.4f} to {interval.high:+.4f}",
            f"<{LEAST_P:.0e}" if one.difference.p_value <= LEAST_P else f"{one.difference.p_value:.2g}",
            one.unit,
        )
    return table


def _matrix(entries: Sequence[ScoredModel], split: str) -> tuple[list[str], list[str], dict[tuple[str, str], Score]]:
    """Models, corpora, and the score of each pair on a split."""
    models = list(dict.fromkeys(entry.model for entry in entries))
    corpora = list(dict.fromkeys(entry.corpus for entry in entries))
    return models, corpora, {(entry.model, entry.corpus): entry.score for entry in entries if entry.split == split}


def matrix_table(entries: Sequence[ScoredModel], split: str) -> Table:
    """Return runs by corpora as a table, with bits per byte, word perplexity and OOV rate in each cell."""
    models, corpora, scores = _matrix(entries, split)
    table = plain_table([split], [f"{corpus}\nbits/byte  word perplexity  OOV" for corpus in corpora])
    for model in models:
        own = [scores[model, corpus] for corpus in corpora]
        table.add_row(
            model,
            *(f"{one.bits_per_byte:.4f}  {large_number(one.word_perplexity):>15}  {one.oov_rate:>6.2%}" for one in own),
        )
    return table


def show_scores(entries: Sequence[ScoredModel], console: Console) -> None:
    """Print how each model read, the scores on each corpus, and the paired differences."""
    for line in policy_lines(entries):
        console.print(line, markup=False)
    corpora = list(dict.fromkeys(entry.corpus for entry in entries))
    for corpus in corpora:
        if len(corpora) > 1:
            console.print(f"\n{corpus}", markup=False, style="bold")
        for table in evaluation_tables([entry for entry in entries if entry.corpus == corpus]):
            console.print(table)
    if comparisons := compare_entries(entries):
        console.print(comparison_table(comparisons))


def show_matrix(entries: Sequence[ScoredModel], console: Console, folder: Path) -> list[Path]:
    """Print runs by corpora as one table per split, and plot each to `matrix-SPLIT.png` in a folder.

    Returns:
        The files written.
    """
    files = []
    for split in dict.fromkeys(entry.split for entry in entries):
        console.print(matrix_table(entries, split))
        files.append(folder / f"matrix-{split}.png")
        plot_matrix(entries, split, files[-1])
    return files


def write_scores(entries: Sequence[ScoredModel], folder: Path) -> list[Path]:
    """Write `scores.csv`, one row per score, and `differences.csv` if models can be compared.

    Args:
        entries: scores of models on splits.
        folder: folder of the files; created if missing.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "scores.csv"]
    scores = [
        {"model": entry.model, "data": entry.corpus, "split": entry.split}
        | entry.evaluation.row()
        | {"reading": entry.reading}
        for entry in entries
    ]
    write_csv(pd.DataFrame(scores), files[0])
    if comparisons := compare_entries(entries):
        files.append(folder / "differences.csv")
        differences = [
            {
                "model": one.model,
                "better": one.better,
                "data": one.corpus,
                "split": one.split,
                "difference": one.difference.mean,
                "low": one.difference.interval.low,
                "high": one.difference.interval.high,
                "p_value": one.difference.p_value,
                "unit": one.unit,
            }
            for one in comparisons
        ]
        write_csv(pd.DataFrame(differences), files[1])
    return files


def plot_matrix(entries: Sequence[ScoredModel], split: str, path: Path) -> None:
    """Plot runs by corpora as a heatmap of bits per byte, with word perplexity and OOV rate in each cell."""
    models, corpora, scores = _matrix(entries, split)
    cells = [[scores[model, corpus] for corpus in corpora] for model in models]
    values = np.array([[score.bits_per_byte for score in row] for row in cells])
    texts = np.array(
        [
            [f"{one.bits_per_byte:.3f}\n{large_number(one.word_perplexity)}, {one.oov_rate:.1%}" for one in row]
            for row in cells
        ]
    )
    with new_figure(path, 1.9 + 0.8 * len(models), 2.6 + 1.9 * len(corpora)) as figure:
        axes = figure.subplots()
        draw_heatmap(axes, values, texts, "bits per byte")
        axes.set_xticks(range(len(corpora)), corpora, rotation=20 if max(map(len, corpora)) > 16 else 0)
        axes.set_yticks(range(len(models)), models)
        axes.set_title(f"Bits per byte on {split} (word perplexity, OOV rate)")
        axes.set(xlabel="corpus", ylabel="run")
