"""Scores of texts as rows of a table, for one model or several side by side."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch_linguist.checkpoint import load_run
from torch_linguist.data import Tokenizer
from torch_linguist.errors import ConfigError
from torch_linguist.evaluation.mixture_scoring import mixed_nll
from torch_linguist.evaluation.texts.line_scores import LineScore, LineTokens, read_line_tokens
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
    """

    label: str
    model: LanguageModel
    tokenizer: Tokenizer


def load_scorers(folders: Sequence[Path]) -> list[Scorer]:
    """Load the best models of runs, labeled by the names of their folders."""
    runs = [load_run(folder) for folder in folders]
    return [Scorer(label, run.model, run.tokenizer) for label, run in zip(run_labels(folders), runs, strict=True)]


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
        if self.document_column not in record.columns:
            columns = ", ".join(record.columns) or "none"
            raise ConfigError(f"--document-column={self.document_column}: no such column; there are {columns}")
        return record.columns[self.document_column]


def line_rows(
    scorers: Sequence[Scorer], records: Iterable[Record], reading: Reading, weights: Sequence[float] | None = None
) -> Iterator[tuple[Record, dict[str, Any], LineScore]]:
    """Score texts as rows, one per text.

    Args:
        scorers: at least one model.
        records: the texts.
        reading: how to read them.
        weights: weights of the scorers' mixture, which add up to one; None for no mixture.

    Yields:
        The text, its row, and the score that a filter uses: that of the mixture, or of the first scorer.

    Raises:
        ConfigError: the scorers of a mixture have different tokenizers.
    """
    check_mixture(scorers, weights)
    unit = LOG_BASES[reading.log_base]

    def read(scorer: Scorer, texts: Iterator[str], running: bool) -> Iterator[LineTokens]:
        return read_line_tokens(scorer.model, scorer.tokenizer, texts, closed=reading.closed, running=running)

    for number, record, lines in _side_by_side(scorers, records, reading, read):
        scores = _named_scores(scorers, lines, weights)
        row: dict[str, Any] = {"line": number}
        for label, score in scores.items():
            cells = _score_cells(score, unit)
            row |= {f"{name}_{label}": value for name, value in cells.items()} if len(scores) > 1 else cells
        yield record, with_columns(row, record), scores.get(MIXTURE, next(iter(scores.values())))


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


def _named_scores(
    scorers: Sequence[Scorer], lines: Sequence[LineTokens], weights: Sequence[float] | None
) -> dict[str, LineScore]:
    scores = {scorer.label: line.score() for scorer, line in zip(scorers, lines, strict=True)}
    if weights is not None:
        scores[MIXTURE] = lines[0].score(mixed_nll([line.nll for line in lines], weights))
    return scores


def _score_cells(score: LineScore, unit: float) -> dict[str, Any]:
    return {
        "log_probability": score.log_probability / unit,
        "tokens": score.tokens,
        "words": score.words,
        "unknown": score.unknown,
        "perplexity": score.perplexity,
        "bits_per_byte": score.bits_per_byte,
    }


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

    for number, record, found in _side_by_side(scorers, records, reading, read):
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
) -> Iterator[tuple[int, Record, list[T]]]:
    """Read the records with all scorers in step; yield each with its number (1-based) and the result of each scorer."""
    number = 0
    for running, group in reading.groups(records):
        kept, *texts = itertools.tee(group, 1 + len(scorers))
        columns = [
            read(scorer, (record.text for record in own), running) for scorer, own in zip(scorers, texts, strict=True)
        ]
        for record, *found in zip(kept, *columns, strict=True):
            number += 1
            yield number, record, found
