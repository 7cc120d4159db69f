"""Scores of texts as rows of a table, for one model or several side by side."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from torch_linguist.checkpoint import load_run
from torch_linguist.data import Tokenizer
from torch_linguist.errors import ConfigError
from torch_linguist.evaluation.mixture_scoring import mixed_nll
from torch_linguist.evaluation.texts.line_scores import (
    LineBlock,
    bits_per_byte,
    default_chunk_lines,
    perplexities,
    score_blocks,
)
from torch_linguist.evaluation.texts.records import Record
from torch_linguist.evaluation.texts.token_scores import TokenScore, WordScore, score_tokens, score_words
from torch_linguist.model import LanguageModel
from torch_linguist.runs.folders import run_labels

LOG_BASES = {"e": 1.0, "10": math.log(10), "2": math.log(2)}
"""Bases of the logarithms in a table, with the nats per unit."""

MIXTURE = "mixture"

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Scorer:
    """A model that scores texts.

    Attributes:
        label: name of its columns if there are several models.
        model: any model.
        tokenizer: tokenizer that it was trained with.
        precision: precision of the scores of lines; see `score_lines`.
    """

    label: str
    model: LanguageModel
    tokenizer: Tokenizer
    precision: str = "fp32"


def load_scorers(folders: Sequence[Path], precision: str = "fp32", device: str = "cpu") -> list[Scorer]:
    """Load the best models of runs onto a device (see `load_run`), labeled by the names of their folders."""
    runs = [load_run(folder, device=device) for folder in folders]
    labels = run_labels(folders)
    return [Scorer(label, run.model, run.tokenizer, precision) for label, run in zip(labels, runs, strict=True)]


@dataclass(frozen=True)
class Reading:
    """How texts are read.

    Attributes:
        closed: whether `<eos>` closes each line.
        running: whether lines are one running text.
        document_column: column whose values tell running texts apart; None for none.
        log_base: base of the log-probabilities in a table: `e`, `10` or `2`.
    """

    closed: bool = True
    running: bool = False
    document_column: str | None = None
    log_base: str = "e"

    def __post_init__(self) -> None:
        if self.log_base not in LOG_BASES:
            raise ConfigError(f"--log={self.log_base}: must be one of {', '.join(LOG_BASES)}")
        if not self.closed and (self.running or self.document_column):
            raise ConfigError("--no-eos: the lines of a running text are closed by <eos>; leave one of the two out")

    def conventions(self) -> str:
        """Return what begins and ends a line, in words."""
        begin = "each line starts from <eos>"
        if self.document_column:
            begin = f"each document (column {self.document_column}) is one running text"
        elif self.running:
            begin = "all lines are one running text"
        return f"{begin}, {'and <eos> closes each line' if self.closed else 'and nothing closes a line'}"

    def groups(self, records: Iterable[Record]) -> Iterator[tuple[bool, Iterator[Record]]]:
        """Yield groups of records that are read together, and whether each is a running text.

        Raises:
            ConfigError: a record lacks the document column.
        """
        if self.document_column is None:
            yield self.running, iter(records)
            return
        for _, group in itertools.groupby(records, key=self._document):
            yield True, group

    def _document(self, record: Record) -> Any:
        name = self.document_column
        if name is None or name not in record.columns:
            columns = ", ".join(record.columns) or "none"
            raise ConfigError(f"--document-column={name}: no such column; there are {columns}")
        return record.columns[name]


@dataclass(frozen=True, eq=False)
class RowBlock:
    """Consecutive rows of a table of scores, one per text.

    Attributes:
        records: the texts.
        columns: values of each column, without the other columns of the texts.
        perplexities: what a filter uses: perplexity of each text under the mixture, or under the first scorer.
    """

    records: Sequence[Record]
    columns: dict[str, list[Any]]
    perplexities: list[float]

    @property
    def has_other_columns(self) -> bool:
        """Whether a text has other columns, which its row keeps."""
        return any(record.columns for record in self.records)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield each row, with the other columns of its text."""
        for record, values in zip(self.records, zip(*self.columns.values(), strict=True), strict=True):
            yield with_columns(dict(zip(self.columns, values, strict=True)), record)


def line_rows(
    scorers: Sequence[Scorer], records: Iterable[Record], reading: Reading, weights: Sequence[float] | None = None
) -> Iterator[RowBlock]:
    """Score texts as rows, one per text, in blocks of some thousand.

    Args:
        scorers: at least one model.
        records: the texts.
        reading: how to read them.
        weights: weights of the scorers' mixture, which add up to one; None for no mixture.

    Raises:
        ConfigError: the scorers of a mixture have different tokenizers.
    """
    check_mixture(scorers, weights)
    size = min(default_chunk_lines(scorer.model) for scorer in scorers)

    def read(scorer: Scorer, texts: Iterator[str], running: bool) -> Iterator[LineBlock]:
        return score_blocks(
            scorer.model,
            scorer.tokenizer,
            texts,
            closed=reading.closed,
            running=running,
            precision=scorer.precision,
            chunk_lines=size,
        )

    number = 1
    for kept, columns in _side_by_side(scorers, records, reading, read):
        for blocks in zip(*columns, strict=True):
            own = list(itertools.islice(kept, len(blocks[0].lines.texts)))
            yield _row_block(scorers, blocks, own, number, LOG_BASES[reading.log_base], weights)
            number += len(own)


def with_columns(row: dict[str, Any], record: Record) -> dict[str, Any]:
    """Return a row with the other columns of its text; `NAME_input` for those whose name the row has itself."""
    return row | {f"{name}_input" if name in row else name: value for name, value in record.columns.items()}


def check_mixture(scorers: Sequence[Scorer], weights: Sequence[float] | None) -> None:
    """Check that weights fit the scorers and that these share their tokenizer; raise ConfigError otherwise."""
    if weights is None:
        return
    if len(weights) != len(scorers) or min(weights) <= 0 or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        shown = " ".join(f"{weight:g}" for weight in weights)
        raise ConfigError(f"--weights {shown}: give {len(scorers)} numbers greater than 0 that add up to 1")
    first = scorers[0].tokenizer.to_json()
    for scorer in scorers[1:]:
        if scorer.tokenizer.to_json() != first:
            raise ConfigError(f"--mix: {scorer.label} has another tokenizer than {scorers[0].label}")


def _row_block(
    scorers: Sequence[Scorer],
    blocks: Sequence[LineBlock],
    records: list[Record],
    number: int,
    unit: float,
    weights: Sequence[float] | None,
) -> RowBlock:
    scores = {scorer.label: (block, block.log_probabilities()) for scorer, block in zip(scorers, blocks, strict=True)}
    if weights is not None:
        nll = mixed_nll([block.nll for block in blocks], weights)
        scores[MIXTURE] = blocks[0], blocks[0].log_probabilities(nll)
    columns: dict[str, list[Any]] = {"line": list(range(number, number + len(records)))}
    for label, (block, log_probability) in scores.items():
        cells = _score_cells(block, log_probability, unit)
        columns |= {f"{name}_{label}": values for name, values in cells.items()} if len(scores) > 1 else cells
    chosen = f"perplexity_{MIXTURE if weights is not None else scorers[0].label}" if len(scores) > 1 else "perplexity"
    return RowBlock(records, columns, columns[chosen])


def _score_cells(block: LineBlock, log_probability: NDArray[np.float64], unit: float) -> dict[str, list[Any]]:
    columns = {
        "log_probability": log_probability / unit,
        "tokens": block.lines.lengths,
        "words": block.lines.words,
        "unknown": block.unknown,
        "perplexity": perplexities(log_probability, block.lines.lengths),
        "bits_per_byte": bits_per_byte(log_probability, block.lines.bytes),
    }
    return {name: values.tolist() for name, values in columns.items()}


def token_rows(
    scorers: Sequence[Scorer], records: Iterable[Record], reading: Reading, alternatives: int = 0, words: bool = False
) -> Iterator[dict[str, Any]]:
    """Score texts as rows, one per token or word; with several scorers, one for each, named in a column `model`.

    Args:
        scorers: at least one model.
        records: the texts.
        reading: how to read them.
        alternatives: number of most probable tokens listed with each token.
        words: whether subwords are added up to words as written.
    """
    unit = LOG_BASES[reading.log_base]

    def read(scorer: Scorer, texts: Iterator[str], running: bool) -> Iterator[list[TokenScore] | list[WordScore]]:
        if words:
            return score_words(scorer.model, scorer.tokenizer, texts, closed=reading.closed, running=running)
        return score_tokens(
            scorer.model, scorer.tokenizer, texts, closed=reading.closed, running=running, alternatives=alternatives
        )

    number = 0
    for kept, columns in _side_by_side(scorers, records, reading, read):
        for record, *found in zip(kept, *columns, strict=True):
            number += 1
            for scorer, scores in zip(scorers, found, strict=True):
                named = {"model": scorer.label} if len(scorers) > 1 else {}
                for one in scores:
                    yield with_columns({"line": number, **named, **_token_cells(one, unit, alternatives)}, record)


def _token_cells(one: TokenScore | WordScore, unit: float, alternatives: int) -> dict[str, Any]:
    cells = {field.name: getattr(one, field.name) for field in dataclasses.fields(one) if field.name != "line"}
    cells |= {"position": one.position + 1, "surprisal": one.surprisal / unit, "entropy": one.entropy / unit}
    if found := cells.pop("alternatives", ()):
        cells["alternatives"] = [list(other) for other in found]
    return cells


def _side_by_side(
    scorers: Sequence[Scorer],
    records: Iterable[Record],
    reading: Reading,
    read: Callable[[Scorer, Iterator[str], bool], Iterator[T]],
) -> Iterator[tuple[Iterator[Record], list[Iterator[T]]]]:
    """Yield each group of records, and the results of each scorer on it, which must be consumed in step."""
    for running, group in reading.groups(records):
        kept, *texts = itertools.tee(group, 1 + len(scorers))
        columns = [
            read(scorer, map(attrgetter("text"), own), running) for scorer, own in zip(scorers, texts, strict=True)
        ]
        yield kept, columns
