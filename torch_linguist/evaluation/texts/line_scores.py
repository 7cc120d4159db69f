"""Log-probabilities of lines: for rescoring, for filtering corpora, for comparing sentences.

Shape legend: L lines, A tokens of all lines.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from torch_linguist.data import Tokenizer
from torch_linguist.data.corpora.corpus import LONGEST_PIECE, cut_line
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.parallel_reading import Measure
from torch_linguist.evaluation.texts.batched_reading import Ids, RowReader
from torch_linguist.model import LanguageModel

CHUNK_LINES = 2048
"""Lines held at a time: enough to find others of the same length for a batch."""

COUNTED_CHUNK_LINES = 16384
"""Lines held at a time for counted models, whose batches are larger."""

CHUNK_CHARACTERS = 1 << 22
"""Characters held at a time, whatever the number of lines."""

PART_LINES = 256
"""Largest number of lines that are taken at once before their characters are counted."""


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
        return float(perplexities(self.log_probability, self.tokens))

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte; not a number for a line without bytes."""
        return float(bits_per_byte(self.log_probability, self.bytes))


def perplexities(log_probability: ArrayLike, tokens: ArrayLike) -> NDArray[np.float64]:
    """Return exp(-log-probability / tokens) of texts; not a number for a text without tokens."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found: NDArray[np.float64] = np.exp(-np.divide(log_probability, tokens))
        return np.where(np.equal(tokens, 0), np.nan, found)


def bits_per_byte(log_probability: ArrayLike, size: ArrayLike) -> NDArray[np.float64]:
    """Return the bits per UTF-8 byte of texts; not a number for a text without bytes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.equal(size, 0), np.nan, -np.divide(log_probability, math.log(2)) / size)


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """Lines and their tokens.

    Attributes:
        texts: the lines.
        ids: ids of their tokens, one line after the other [A].
        lengths: number of tokens of each line [L].
        words: number of words of each line, separated by white space [L].
        closed: whether `<eos>` closes each line.
    """

    texts: list[str]
    ids: Ids
    lengths: NDArray[np.int64]
    words: NDArray[np.int64]
    closed: bool

    @cached_property
    def bytes(self) -> NDArray[np.int64]:
        """Number of UTF-8 bytes of each line, one more for a closed line's newline [L]."""
        sizes = np.fromiter(map(len, self.texts), np.int64, len(self.texts))
        for place in np.flatnonzero(~np.fromiter(map(str.isascii, self.texts), bool, len(self.texts))).tolist():
            sizes[place] = len(self.texts[place].encode("utf-8", "surrogatepass"))
        return sizes + self.closed

    def counts(self, marked: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the number of marked tokens [A] of each line [L]."""
        lines = np.searchsorted(np.cumsum(self.lengths), np.flatnonzero(marked), side="right")
        return np.bincount(lines, minlength=len(self.lengths))

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of a value of each token [A] over each line [L]."""
        lines = np.repeat(np.arange(len(self.lengths)), self.lengths)
        return np.asarray(np.bincount(lines, values, minlength=len(self.lengths)), np.float64)


@dataclass(frozen=True, eq=False)
class LineBlock:
    """Consecutive lines with the nll of their tokens.

    Attributes:
        lines: the lines and their tokens.
        nll: nats of each token, one line after the other, float64 [A].
        unknown: number of tokens of each line that are `<unk>` [L].
    """

    lines: EncodedTexts
    nll: NDArray[np.float64]
    unknown: NDArray[np.int64]

    def log_probabilities(self, nll: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return the log-probability of each line [L], from the nll [A] of a mixture if one is given."""
        return 0.0 - self.lines.sums(self.nll if nll is None else nll)

    def scores(self) -> Iterator[LineScore]:
        """Yield the score of each line."""
        columns = (self.log_probabilities(), self.lines.lengths, self.lines.words, self.unknown, self.lines.bytes)
        return itertools.starmap(LineScore, zip(*(column.tolist() for column in columns), strict=True))


def score_lines(
    model: LanguageModel,
    tokenizer: Tokenizer,
    lines: Iterable[str],
    *,
    closed: bool = True,
    running: bool = False,
    precision: str = "fp32",
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
        precision: `fp32`, or `bf16`, which is several times as fast on processors with matrix units for it and changes
            the third or fourth digit after the point of a token's nats.

    Yields:
        The score of each line, in order.

    Raises:
        LinguistError: a line holds a newline, a running text is not closed, or the precision is unknown.
    """
    blocks = score_blocks(model, tokenizer, lines, closed=closed, running=running, precision=precision)
    return itertools.chain.from_iterable(block.scores() for block in blocks)


def score_blocks(
    model: LanguageModel,
    tokenizer: Tokenizer,
    lines: Iterable[str],
    *,
    closed: bool = True,
    running: bool = False,
    precision: str = "fp32",
    chunk_lines: int | None = None,
) -> Iterator[LineBlock]:
    """Score lines as `score_lines` does; yield them in blocks, with the nll of every token.

    Args:
        model: see `score_lines`.
        tokenizer: see `score_lines`.
        lines: see `score_lines`.
        closed: see `score_lines`.
        running: see `score_lines`.
        precision: see `score_lines`.
        chunk_lines: largest number of lines of a block; None chooses it for the model.
    """
    reader = RowReader(model, tokenizer.eos_id, running=running, precision=precision)
    size = chunk_lines or default_chunk_lines(model)
    for texts in encoded_chunks(tokenizer, lines, size, closed=closed, running=running):
        nll = reader.read_nll(texts.ids, texts.lengths)
        yield LineBlock(texts, nll, texts.counts(texts.ids == tokenizer.unk_id))


def default_chunk_lines(model: LanguageModel) -> int:
    """Return the number of lines to hold at a time for a model."""
    return COUNTED_CHUNK_LINES if model.is_counted else CHUNK_LINES


def measure_chunks(
    model: LanguageModel,
    tokenizer: Tokenizer,
    lines: Iterable[str],
    measure: Measure,
    *,
    closed: bool,
    running: bool,
    batch_tokens: int,
) -> Iterator[tuple[EncodedTexts, tuple[Tensor, ...]]]:
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
        Lines and their tokens, and the tensors [A, ...] of all their tokens; no tensors if there are no tokens.
    """
    reader = RowReader(model, tokenizer.eos_id, running=running, batch_tokens=batch_tokens)
    for texts in encoded_chunks(tokenizer, lines, default_chunk_lines(model), closed=closed, running=running):
        yield texts, reader.read(texts.ids, texts.lengths, measure)


def encoded_chunks(
    tokenizer: Tokenizer, lines: Iterable[str], size: int, *, closed: bool, running: bool
) -> Iterator[EncodedTexts]:
    """Yield lines with their tokens, at most `size` lines at a time.

    Args:
        tokenizer: tokenizer of the model.
        lines: texts without newlines.
        size: largest number of lines of a chunk.
        closed: see `score_lines`.
        running: see `score_lines`.

    Raises:
        LinguistError: a line holds a newline, or a running text is not closed.
    """
    if running and not closed:
        raise LinguistError("a running text: its lines must be closed by <eos>; leave --no-eos out")
    for chunk in chunked(lines, size):
        yield encode_texts(tokenizer, chunk, closed)


def chunked(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield the lines in lists of at most `size` lines and a bounded number of characters."""
    remaining, chunk, characters, step = iter(lines), list[str](), 0, 1
    while part := list(itertools.islice(remaining, min(step, size - len(chunk)))):
        chunk += part
        added = sum(map(len, part))
        characters += added
        # Many short lines are taken together, long ones one by one.
        step = min(2 * step, PART_LINES) if added * PART_LINES < len(part) * CHUNK_CHARACTERS else 1
        if len(chunk) >= size or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def encode_texts(tokenizer: Tokenizer, lines: list[str], closed: bool) -> EncodedTexts:
    """Return lines with the ids of their tokens; `<eos>` is the last of each line if lines are closed.

    Raises:
        LinguistError: a line holds a newline.
    """
    joined = "".join(lines)
    if "\n" in joined:
        line = next(line for line in lines if "\n" in line)
        raise LinguistError(f"line {line[:40]!r}: holds a newline; give one line at a time")
    flat, last = lines, np.arange(1, len(lines) + 1)
    if max(map(len, lines)) > LONGEST_PIECE:
        pieces = [cut_line(line) for line in lines]
        flat = list(itertools.chain.from_iterable(pieces))
        last = np.cumsum([len(parts) for parts in pieces])
    ends = np.zeros(len(flat), bool)
    ends[last - 1] = closed
    encoded = tokenizer.encode_pieces(flat, ends.tolist())
    lengths = np.diff(np.cumsum(encoded.lengths)[last - 1], prepend=0)
    if tokenizer.splits_at_blanks(joined):
        words = lengths - closed
    else:
        words = np.fromiter((len(line.split()) for line in lines), np.int64, len(lines))
    return EncodedTexts(lines, encoded.ids.astype(np.int64), lengths, words, closed)
