"""Log-probabilities of lines: for rescoring, for filtering corpora, for comparing sentences.

Shape legend: N tokens of a line.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.data import Tokenizer
from torch_linguist.data.corpora.corpus import cut_line
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.scoring import Measure, exp
from torch_linguist.evaluation.texts.batched_reading import Row, RowReader
from torch_linguist.model import LanguageModel, State

CHUNK_LINES = 2048
"""Lines held at a time: enough to find others of the same length for a batch."""

COUNTED_CHUNK_LINES = 8192
"""Lines held at a time for counted models, whose batches are larger."""

CHUNK_CHARACTERS = 1 << 22
"""Characters held at a time, whatever the number of lines."""


@dataclass(frozen=True, slots=True)
class LineScore:
    """Score of a line.

    Attributes:
        log_probability: natural logarithm of the line's probability, `<eos>` included where lines are closed.
        tokens: tokens scored, `<eos>` included.
        words: words separated by white space.
        unknown: tokens that are `<unk>`.
        bytes: UTF-8 bytes of the line, one more for a closed line's newline.
    """

    log_probability: float
    tokens: int
    words: int
    unknown: int
    bytes: int

    @property
    def perplexity(self) -> float:
        """exp(-log-probability / tokens); not a number for a line without tokens."""
        return exp(-self.log_probability / self.tokens) if self.tokens else math.nan

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte; not a number for a line without bytes."""
        return -self.log_probability / math.log(2) / self.bytes if self.bytes else math.nan


@dataclass(frozen=True, eq=False)
class LineTokens:
    """A line with the nll of each of its tokens.

    Attributes:
        text: the line.
        ids: token ids, int64 [N].
        nll: nats, float64 [N].
        total: sum of these nats.
        unknown: tokens that are `<unk>`.
        closed: whether `<eos>` closes the line.
    """

    text: str
    ids: Row
    nll: NDArray[np.float64]
    total: float
    unknown: int
    closed: bool

    def score(self, nll: NDArray[np.float64] | None = None) -> LineScore:
        """Return the score of the line, from the nll [N] of a mixture if one is given."""
        total = self.total if nll is None else float(nll.sum())
        size = len(self.text.encode("utf-8", "surrogatepass")) + self.closed
        return LineScore(0.0 - total, len(self.ids), len(self.text.split()), self.unknown, size)


def score_lines(
    model: LanguageModel, tokenizer: Tokenizer, lines: Iterable[str], *, closed: bool = True, running: bool = False
) -> Iterator[LineScore]:
    """Score lines one after another, holding at most a few thousand of them.

    A line by itself starts from `<eos>`, the end of a line before it, and ends with `<eos>`: the counterpart of
    KenLM's `<s>` and `</s>`. The scores are those of one line at a time up to the rounding of float32.

    Args:
        model: any model.
        tokenizer: tokenizer that the model was trained with.
        lines: texts without newlines.
        closed: whether `<eos>` closes each line; False scores fragments.
        running: whether the lines are one running text, each predicted from the lines before it.

    Yields:
        The score of each line, in order.

    Raises:
        LinguistError: a line holds a newline, or a running text is not closed.
    """
    return (line.score() for line in read_line_tokens(model, tokenizer, lines, closed=closed, running=running))


def read_line_tokens(
    model: LanguageModel, tokenizer: Tokenizer, lines: Iterable[str], *, closed: bool = True, running: bool = False
) -> Iterator[LineTokens]:
    """Score lines as `score_lines` does; yield the nll of every token."""

    def nll(tokens: Tensor, targets: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        measured, new_state = model.nll(tokens, targets, state)
        return (measured.double(),), new_state

    for texts, rows, measured in measure_chunks(model, tokenizer, lines, nll, closed=closed, running=running):
        ends = np.cumsum([len(row) for row in rows])
        values = measured[0].numpy() if measured else np.empty(0)
        ids = np.concatenate(rows)
        totals, unknown = _sums(values, ends), _sums(ids == tokenizer.unk_id, ends)
        begin = 0
        for text, row, end, total, number in zip(
            texts, rows, ends.tolist(), totals.tolist(), unknown.tolist(), strict=True
        ):
            yield LineTokens(text, row, values[begin:end], total, int(number), closed)
            begin = end


def _sums(values: NDArray[Any], ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sum of the values of each row; the rows, which may be empty, lie one after the other."""
    rows = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    return np.asarray(np.bincount(rows, values, minlength=len(ends)), np.float64)


def measure_chunks(
    model: LanguageModel,
    tokenizer: Tokenizer,
    lines: Iterable[str],
    measure: Measure,
    *,
    closed: bool,
    running: bool,
    batch_tokens: int | None = None,
) -> Iterator[tuple[list[str], list[Row], tuple[Tensor, ...]]]:
    """Measure every token of lines, read as `score_lines` reads them, some thousand lines at a time.

    Args:
        model: any model.
        tokenizer: tokenizer that the model was trained with.
        lines: texts without newlines.
        measure: see `RowReader.read`.
        closed: see `score_lines`.
        running: see `score_lines`.
        batch_tokens: see `RowReader`.

    Yields:
        Lines, the token ids [N] of each, and the tensors of all their tokens, one line after the other; no tensors if
        there are no tokens.
    """
    if running and not closed:
        raise LinguistError("a running text: its lines must be closed by <eos>; leave --no-eos out")
    reader = RowReader(model, tokenizer.eos_id, running=running, batch_tokens=batch_tokens)
    for chunk in chunked(lines, COUNTED_CHUNK_LINES if model.is_counted else CHUNK_LINES):
        rows = encode_rows(tokenizer, chunk, closed)
        yield chunk, rows, reader.read(rows, measure)


def chunked(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield the lines in lists of at most `size` lines and a bounded number of characters."""
    chunk: list[str] = []
    characters = 0
    for line in lines:
        if "\n" in line:
            raise LinguistError(f"line {line[:40]!r}: holds a newline; give one line at a time")
        chunk.append(line)
        characters += len(line)
        if len(chunk) >= size or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def encode_rows(tokenizer: Tokenizer, lines: Sequence[str], closed: bool) -> list[Row]:
    """Return the token ids of each line, int64 [N]; `<eos>` is the last if lines are closed."""
    if not lines:
        return []
    pieces = [cut_line(line) for line in lines]
    flat = list(itertools.chain.from_iterable(pieces))
    ends = [last for parts in pieces for last in (*(False for _ in parts[1:]), closed)]
    encoded = tokenizer.encode_pieces(flat, ends)
    ids = encoded.ids.astype(np.int64)
    counts = np.cumsum([len(parts) for parts in pieces])
    bounds = np.concatenate([[0], np.cumsum(encoded.lengths)])[np.concatenate([[0], counts])]
    return [ids[begin:end] for begin, end in itertools.pairwise(bounds.tolist())]
