"""Loss by slice: groups of tokens by kind and position.

Every grouping puts each token into exactly one group, so that the groups add up to the whole score.

Shape legend: N tokens of a stream, G groups, U parts that are resampled, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from torch_linguist.data import Tokenizer, TokenStream
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.scoring import exp
from torch_linguist.evaluation.uncertainty import Parts
from torch_linguist.evaluation.words import CLASSES, Words

RESAMPLES = 1000
LEAST_PARTS = 5
"""Minimum number of parts that contain a group, for an interval of its loss."""

TENTHS = 10
SENTENCE_ENDS = frozenset((".", "!", "?", "...", "…", '."', '?"', '!"'))


@dataclass(frozen=True, eq=False)
class Grouping:
    """A partition of the tokens of a stream.

    Attributes:
        name: name of the property that tokens are grouped by.
        labels: names of the groups, in display order.
        codes: group of each token, int64 [N].
        of_lines: whether all tokens of a line are in the same group.

    Example:
        >>> Grouping("parity", ("even", "odd"), np.arange(4) % 2).codes.tolist()
        [0, 1, 0, 1]
    """

    name: str
    labels: tuple[str, ...]
    codes: NDArray[np.int64]
    of_lines: bool = False


def slice_table(
    values: NDArray[np.float64], groupings: Sequence[Grouping], parts: Parts, *, seed: int = 0
) -> pd.DataFrame:
    """Compute the mean of a value in each group, with its 95% bootstrap interval over the parts (percentiles).

    Args:
        values: nll in nats, or a difference of two, of each token [N].
        groupings: partitions of the same tokens.
        parts: parts to resample.
        seed: random seed.

    Returns:
        One row per non-empty group: `slice`, `value`, `tokens`, `share` of the tokens, `loss`, `low`, `high`,
        `share_of_loss`, and the number of `parts` that contain the group. With too few parts, the interval is NaN.

    Raises:
        LinguistError: a grouping belongs to another stream.

    Example:
        >>> nll = np.concatenate(list(stream_nll(model, corpus.test)))
        >>> table = slice_table(nll, [tenths(corpus.test)], parts_of(corpus.test))
        >>> table[["value", "tokens"]].values.tolist()
        [['20–30%', 7], ['70–80%', 7]]
    """
    weights = _resamples(len(parts), seed)
    part_of = np.repeat(np.arange(len(parts)), np.diff(parts.offsets))
    tables = []
    for grouping in groupings:
        if len(grouping.codes) != len(values):
            raise LinguistError(
                f"{grouping.name}: groups {len(grouping.codes)} tokens, but {len(values)} values are given"
            )
        size = len(grouping.labels)
        cells = part_of * size + grouping.codes
        counts = np.bincount(cells, minlength=len(parts) * size).reshape(len(parts), size).astype(np.float64)
        sums = np.bincount(cells, values, minlength=len(parts) * size).reshape(len(parts), size).astype(np.float64)
        tables.append(_rows(grouping, counts, sums, weights))
    return pd.concat(tables, ignore_index=True)


def _resamples(parts: int, seed: int) -> NDArray[np.float64]:
    """Return how often each resampled text contains each part [R, U]."""
    return np.random.default_rng(seed).multinomial(parts, np.full(parts, 1 / parts), RESAMPLES).astype(np.float64)


def _rows(
    grouping: Grouping, counts: NDArray[np.float64], sums: NDArray[np.float64], weights: NDArray[np.float64]
) -> pd.DataFrame:
    tokens, totals, occurs = counts.sum(0), sums.sum(0), (counts > 0).sum(0)
    low = np.full(len(tokens), np.nan)
    high = low.copy()
    enough = np.flatnonzero(occurs >= LEAST_PARTS)
    if len(enough):
        drawn = weights @ counts[:, enough]
        ratios = np.divide(weights @ sums[:, enough], drawn, out=np.full_like(drawn, np.nan), where=drawn > 0)
        low[enough], high[enough] = np.nanpercentile(ratios, [2.5, 97.5], axis=0)
    frame = pd.DataFrame(
        {
            "slice": grouping.name,
            "value": grouping.labels,
            "tokens": tokens.astype(np.int64),
            "share": tokens / max(tokens.sum(), 1),
            "loss": totals / np.maximum(tokens, 1),
            "low": low,
            "high": high,
            "share_of_loss": totals / totals.sum() if totals.sum() else 0.0,
            "parts": occurs,
        }
    )
    return frame[frame["tokens"] > 0]


def with_perplexity(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a loss with the perplexity of each group.

    Example:
        >>> import pandas as pd
        >>> with_perplexity(pd.DataFrame({"loss": [0.0], "share_of_loss": [1.0]}))["perplexity"].tolist()
        [1.0]
    """
    own = table.copy()
    own.insert(list(own.columns).index("share_of_loss"), "perplexity", [exp(loss) for loss in own["loss"]])
    return own


def token_groupings(
    stream: TokenStream, tokenizer: Tokenizer, counts: NDArray[np.int64], words: Words
) -> list[Grouping]:
    """Return all groupings that need no metadata.

    Args:
        stream: one split.
        tokenizer: tokenizer of the stream.
        counts: occurrences of each token in train, int64 [V].
        words: words of the stream.

    Example:
        >>> from torch_linguist.evaluation.words import find_words
        >>> words = find_words(np.asarray(corpus.test.ids), corpus.tokenizer)
        >>> found = token_groupings(corpus.test, corpus.tokenizer, corpus.token_counts(), words)
        >>> [grouping.name for grouping in found[:3]]
        ['frequency in train', 'word class', 'special tokens']
    """
    ids = np.asarray(stream.ids).astype(np.int64)
    lines, documents = np.asarray(stream.line_offsets), np.asarray(stream.document_offsets)
    line_lengths = np.diff(lines)
    classes = Grouping("word class", CLASSES, words.token_classes())
    in_line = np.arange(len(ids)) - np.repeat(lines[:-1], line_lengths)
    in_document = np.arange(len(ids)) - np.repeat(documents[:-1], np.diff(documents))
    return [
        frequency_bands(ids, counts),
        classes,
        _special(ids, tokenizer),
        banded("position in line", in_line + 1, _doubling(256)),
        banded("position in document", in_document + 1, (1, 17, 65, 257, 1025, 4097, 16385)),
        tenths(stream),
        banded("sentence length", sentence_lengths(words), (1, 5, 9, 17, 33, 65, 129)),
        banded("line length", np.repeat(line_lengths, line_lengths), (1, 2, 9, 33, 65, 129, 257, 513), of_lines=True),
    ]


def frequency_bands(ids: NDArray[np.int64], counts: NDArray[np.int64]) -> Grouping:
    """Group tokens by their occurrences in train: 0, 1–9, 10–99, and so on.

    Example:
        >>> frequency_bands(np.array([0, 1]), np.array([5, 0])).codes.tolist()
        [1, 0]
    """
    return banded("frequency in train", counts[ids], (0, 1, 10, 100, 1000, 10_000, 100_000, 1_000_000))


def banded(name: str, values: ArrayLike, begins: Sequence[int], of_lines: bool = False) -> Grouping:
    """Group tokens by an integer, in bands.

    Args:
        name: name of the integer.
        values: integer of each token, at least the start of the first band [N].
        begins: start of each band, ascending; the last band is open.
        of_lines: whether the integer is the same for all tokens of a line.

    Example:
        >>> banded("length", [1, 3, 9], (1, 2, 5)).labels
        ('1', '2–4', 'from 5')
    """
    labels = []
    for begin, following in zip(begins, [*begins[1:], None], strict=True):
        if following is None:
            labels.append(f"from {begin:,}")
        else:
            labels.append(f"{begin:,}" if following == begin + 1 else f"{begin:,}–{following - 1:,}")
    codes = np.searchsorted(np.asarray(begins), np.asarray(values), side="right") - 1
    assert len(codes) == 0 or codes.min() >= 0
    return Grouping(name, tuple(labels), codes.astype(np.int64), of_lines)


def _doubling(most: int) -> tuple[int, ...]:
    return tuple(1 << power for power in range(most.bit_length()))


def _special(ids: NDArray[np.int64], tokenizer: Tokenizer) -> Grouping:
    codes = np.where(ids == tokenizer.eos_id, 2, np.where(ids == tokenizer.unk_id, 1, 0))
    return Grouping("special tokens", ("words", "<unk>", "<eos>"), codes.astype(np.int64))


def tenths(stream: TokenStream) -> Grouping:
    """Group tokens by the tenth of the document that contains the middle of their line.

    Example:
        >>> tenths(corpus.test).labels[:2]
        ('0–10%', '10–20%')
    """
    lines, documents = np.asarray(stream.line_offsets), np.asarray(stream.document_offsets)
    middle = (lines[:-1] + lines[1:]) // 2
    document = np.searchsorted(documents, middle, side="right") - 1
    begin, length = documents[document], np.diff(documents)[document]
    of_line = np.minimum((middle - begin) * TENTHS // np.maximum(length, 1), TENTHS - 1)
    labels = tuple(f"{number * 10}–{number * 10 + 10}%" for number in range(TENTHS))
    return Grouping("part of the document", labels, np.repeat(of_line, np.diff(lines)).astype(np.int64), of_lines=True)


def sentence_lengths(words: Words) -> NDArray[np.int64]:
    """Return the number of words in the sentence of each token [N]. Full stops and line ends close sentences.

    Example:
        >>> from torch_linguist.evaluation.words import find_words
        >>> sentence_lengths(find_words(np.asarray(corpus.test.ids), corpus.tokenizer)).tolist()
        [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]
    """
    pairs = zip(words.texts, words.classes, strict=True)
    ends = np.array([kind == "<eos>" or text in SENTENCE_ENDS for text, kind in pairs])
    sentence = np.concatenate([[0], np.cumsum(ends)[:-1]]) if len(ends) else np.empty(0, np.int64)
    lengths: NDArray[np.int64] = np.bincount(sentence.astype(np.int64))[sentence.astype(np.int64)][words.of_token]
    return lengths


def by_document(name: str, labels: Sequence[str], codes: ArrayLike, stream: TokenStream) -> Grouping:
    """Group tokens by a property of their document.

    Args:
        name: name of the metadata column.
        labels: names of the groups.
        codes: group of each document.
        stream: one split.

    Example:
        >>> by_document("form", ["spoken"], [0], corpus.test).codes.shape
        (14,)
    """
    codes_of_tokens = np.repeat(np.asarray(codes).astype(np.int64), np.diff(stream.document_offsets))
    return Grouping(name, tuple(labels), codes_of_tokens, of_lines=True)


def crossed(first: Grouping, second: Grouping) -> Grouping:
    """Group tokens by two groupings at once.

    Example:
        >>> parity, rank = (Grouping(name, ("low", "high"), np.array([0, 1])) for name in ("parity", "rank"))
        >>> crossed(parity, rank).codes.tolist()
        [0, 3]
    """
    labels = tuple(f"{one} × {other}" for one in first.labels for other in second.labels)
    codes = first.codes * len(second.labels) + second.codes
    return Grouping(f"{first.name} × {second.name}", labels, codes, first.of_lines and second.of_lines)
