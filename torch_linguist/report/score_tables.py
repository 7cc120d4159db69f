"""What `tl-eval` shows and keeps: scores with intervals, paired differences, the matrix of runs and corpora."""

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from torch_linguist.evaluation.scoring import Score
from torch_linguist.evaluation.split_evaluation import SplitEvaluation
from torch_linguist.evaluation.uncertainty import RESAMPLES, Difference, paired_difference
from torch_linguist.report.plots import _figure
from torch_linguist.report.terminal import score_table
from torch_linguist.runs.files import whole_file

FEW = 4
"""So many models are compared all with each other."""

LEAST_P = 1 / (RESAMPLES + 1)
"""No test of so many draws can give a smaller p-value."""


@dataclass(frozen=True, eq=False)
class ScoredModel:
    """A model's evaluation on a split of a corpus.

    Attributes:
        model: what the model is called.
        corpus: what the corpus is called.
        split: its name.
        tokenizer: tells tokenizers apart.
        reading: how the model read.
        evaluation: what came of it.
    """

    model: str
    corpus: str
    split: str
    tokenizer: str
    reading: str
    evaluation: SplitEvaluation


@dataclass(frozen=True)
class PairedComparison:
    """A model held against a better one of the same split.

    Attributes:
        model: its name.
        better: name of the other, which has fewer bits per byte.
        corpus: name of the corpus.
        split: its name.
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
    """Scores of one corpus; then the interval of each perplexity, and the perplexity without `<unk>`."""
    scores: dict[str, dict[str, Score]] = {}
    for entry in entries:
        scores.setdefault(entry.model, {})[entry.split] = entry.evaluation.score
    unknown = any(entry.evaluation.unknown_targets for entry in entries)
    table = _new_table("model", "split", right=["perplexity", "95% interval", *(["without <unk>"] if unknown else [])])
    for entry in entries:
        one = entry.evaluation
        interval = f"{one.perplexity_interval.low:.2f} – {one.perplexity_interval.high:.2f}"
        further = [f"{one.known_perplexity:.2f}"] if unknown else []
        table.add_row(entry.model, entry.split, f"{one.score.perplexity:.2f}", interval, *further)
    return [score_table(scores), table]


def _new_table(*left: str, right: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, name in enumerate(left):
        table.add_column(name, style="" if place else "bold", no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def policy_lines(entries: Sequence[ScoredModel]) -> list[str]:
    """What was counted on each split by each tokenizer, what became of unknown words, and how each model read."""
    lines: list[str] = []
    for entry in entries:
        evaluation, score = entry.evaluation, entry.evaluation.score
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
            # Models with one tokenizer count alike: said once.
            if line.partition(" of which")[0] not in {said.partition(" of which")[0] for said in lines}:
                lines.append(line)
    reading = {entry.model: entry.reading for entry in entries}
    lines += [f"{model}: {how}" for model, how in reading.items()]
    rates = {round(entry.evaluation.score.oov_rate, 6) for entry in entries}
    if len(rates) > 1 and len({entry.tokenizer for entry in entries}) > 1:
        lines.append(
            "note: the vocabularies leave out different words; bits per byte and word perplexity flatter the model "
            "with the higher OOV rate, since a common <unk> is easier than the words it stands for"
        )
    worst = max(entries, key=lambda entry: entry.evaluation.score.oov_rate)
    if worst.evaluation.score.oov_rate > 0.1:
        lines.append(
            f"note: {worst.evaluation.score.oov_rate:.0%} of the tokens of {worst.corpus} are outside the vocabulary "
            f"of {worst.model}: its scores there say little; a subword tokenizer (tokenizer=bpe) knows every word"
        )
    return lines


def compare_entries(entries: Sequence[ScoredModel]) -> list[PairedComparison]:
    """Models of the same split of the same corpus in pairs: all pairs of a few, else each against the best.

    With one tokenizer the models share their tokens; with several, each document's (or block of lines') total nats are
    compared, per byte of the text. Texts that have neither cannot be paired and are left out.
    """
    groups: dict[tuple[str, str], list[ScoredModel]] = {}
    for entry in entries:
        groups.setdefault((entry.corpus, entry.split), []).append(entry)
    found: list[PairedComparison] = []
    for (corpus, split), group in groups.items():
        ranked = sorted(group, key=lambda entry: entry.evaluation.score.bits_per_byte)
        pairs = itertools.combinations(ranked, 2) if len(ranked) <= FEW else itertools.product(ranked[:1], ranked[1:])
        for better, entry in pairs:
            compared = _compare(entry, better)
            if compared is not None:
                found.append(PairedComparison(entry.model, better.model, corpus, split, *compared))
    return found


def _compare(entry: ScoredModel, better: ScoredModel) -> tuple[str, Difference] | None:
    one, other = entry.evaluation, better.evaluation
    if entry.tokenizer == better.tokenizer:
        return "nats per token", paired_difference(one.part_nats, other.part_nats, one.score.tokens)
    same_text = (one.score.bytes, one.score.words, len(one.parts)) == (
        other.score.bytes,
        other.score.words,
        len(other.parts),
    )
    if one.parts.kind == "blocks of tokens" or not same_text:
        return None
    return "bits per byte", paired_difference(one.part_nats, other.part_nats, one.score.bytes * math.log(2))


def comparison_table(comparisons: Sequence[PairedComparison]) -> Table:
    """Paired differences, with their intervals and p-values."""
    table = _new_table("paired difference", "split", right=["difference", "95% interval", "p", "unit"])
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


def matrix_table(entries: Sequence[ScoredModel], split: str) -> Table:
    """Runs by corpora: bits per byte, word perplexity and OOV rate in each cell."""
    corpora = list(dict.fromkeys(entry.corpus for entry in entries))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(f"{split}", style="bold", no_wrap=True)
    for corpus in corpora:
        table.add_column(f"{corpus}\nbits/byte  word perplexity  OOV", justify="right", no_wrap=True)
    cells = {(entry.model, entry.corpus): entry.evaluation.score for entry in entries if entry.split == split}
    for model in dict.fromkeys(entry.model for entry in entries):
        scores = [cells[model, corpus] for corpus in corpora]
        shown = [
            f"{score.bits_per_byte:.4f}  {score.word_perplexity:>15,.1f}  {score.oov_rate:>6.2%}" for score in scores
        ]
        table.add_row(model, *shown)
    return table


def write_scores(entries: Sequence[ScoredModel], comparisons: Sequence[PairedComparison], folder: Path) -> list[Path]:
    """Writes `scores.csv`, a row a score, and `differences.csv` where there are any.

    Args:
        entries: the scores.
        comparisons: the paired differences.
        folder: where to.

    Returns:
        The files.
    """
    rows: list[dict[str, object]] = [
        {
            "model": entry.model,
            "data": entry.corpus,
            "split": entry.split,
            **entry.evaluation.row(),
            "reading": entry.reading,
        }
        for entry in entries
    ]
    files = [_write_csv(folder / "scores.csv", rows)]
    if comparisons:
        rows = [
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
        files.append(_write_csv(folder / "differences.csv", rows))
    return files


def _write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def plot_matrix(entries: Sequence[ScoredModel], split: str, path: Path) -> None:
    """Runs by corpora as a heatmap of bits per byte, word perplexity and OOV rate written in.

    Args:
        entries: the scores.
        split: which split of each corpus.
        path: of the PNG.
    """
    corpora = list(dict.fromkeys(entry.corpus for entry in entries))
    models = list(dict.fromkeys(entry.model for entry in entries))
    cells = {(entry.model, entry.corpus): entry.evaluation.score for entry in entries if entry.split == split}
    values = np.array([[cells[model, corpus].bits_per_byte for corpus in corpora] for model in models])
    with _figure(path, 2.6 + 1.9 * len(corpora), 1.9 + 0.8 * len(models)) as figure:
        axes = figure.subplots()
        image = axes.imshow(values, cmap="viridis_r", aspect="auto")
        axes.grid(visible=False)
        axes.set_xticks(range(len(corpora)), corpora, rotation=20 if max(map(len, corpora)) > 16 else 0)
        axes.set_yticks(range(len(models)), models)
        axes.set(title=f"Bits per byte on {split} (word perplexity, words outside the vocabulary)", xlabel="scored on")
        axes.set_ylabel("run")
        middle = (values.min() + values.max()) / 2
        for (row, column), value in np.ndenumerate(values):
            score = cells[models[row], corpora[column]]
            text = f"{value:.3f}\n{score.word_perplexity:,.0f}, {score.oov_rate:.1%}"
            shade = "white" if value > middle else "black"
            axes.text(column, row, text, ha="center", va="center", color=shade)
        figure.colorbar(image, label="bits per byte")
