"""Counting the n-grams of a token stream as sorted integer arrays, one level per order.

Shape legend: N tokens of the stream, V vocabulary, M[k] distinct n-grams of order k.

An n-gram of order k is one int64 key, ``(prefix << word_bits) | word``. `prefix` is the index of its first k - 1 words
in the level below (level 1 is the vocabulary), `word` its last word. The keys of a level ascend, so the continuations
of a context are neighbors and one binary search finds an n-gram.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from torch_linguist.errors import DataError
from torch_linguist.model.ngram.columns import Column

IntArray = npt.NDArray[np.int64]
IndexArray = npt.NDArray[np.int32]
WordArray = npt.NDArray[np.integer[Any]]

MAX_TOKENS = 2**31 - 2
SLICE_BITS = 21
"""Binary logarithm of the number of positions sorted at a time; a slice fits into the processor's caches."""

# Number of ids checked at a time, so that checking a memory-mapped stream takes little memory.
_CHECKED = 1 << 22


@dataclass(frozen=True, slots=True)
class CountLevel:
    """The distinct n-grams of one order k >= 2.

    Attributes:
        keys: ``(prefix << word_bits) | word``, ascending, int64 [M[k]].
        suffix: index of the last k - 1 words in the level below, int32 [M[k]].
        counts: number of occurrences, int64 [M[k]].
        start: index of the first n-gram of the stream, -1 if the stream is shorter than k words.
    """

    keys: Column
    suffix: Column
    counts: Column
    start: int


@dataclass(frozen=True, slots=True)
class NGramCounts:
    """All n-grams of a stream up to one order.

    Attributes:
        vocab_size: V.
        word_bits: bits of a word in a key.
        unigrams: number of occurrences of each word, int64 [V]; the <eos> before the stream is not counted.
        levels: orders 2 up to the highest.
    """

    vocab_size: int
    word_bits: int
    unigrams: IntArray
    levels: tuple[CountLevel, ...]


def word_bits(vocab_size: int) -> int:
    """Return the number of bits of an id (at least 1)."""
    return max(1, (vocab_size - 1).bit_length())


def check_stream(ids: WordArray, vocab_size: int, eos_id: int) -> None:
    """Check that a stream can be counted.

    Raises:
        DataError: the stream is empty or too long, or an id lies outside the vocabulary.
    """
    if ids.ndim != 1 or len(ids) == 0:
        raise DataError(f"ids of shape {ids.shape} hold no token to count: pass one stream of at least one token")
    if len(ids) > MAX_TOKENS:
        raise DataError(f"{len(ids):,} tokens are more than {MAX_TOKENS:,}, the most that can be counted at once")
    if not 0 <= eos_id < vocab_size:
        raise DataError(f"eos_id={eos_id} lies outside the vocabulary of {vocab_size} types")
    for begin in range(0, len(ids), _CHECKED):
        part = ids[begin : begin + _CHECKED]
        if int(part.max()) >= vocab_size or int(part.min()) < 0:
            raise DataError(
                f"ids from {int(part.min())} to {int(part.max())} lie outside the vocabulary of {vocab_size} types: "
                "the stream was encoded by another tokenizer"
            )


def with_start(ids: WordArray, vocab_size: int, eos_id: int) -> WordArray:
    """Return the stream after the <eos> that its first token is predicted from, [N + 1], in the narrowest integers."""
    words: WordArray = np.empty(len(ids) + 1, dtype=np.uint16 if vocab_size <= 1 << 16 else np.int32)
    words[0] = eos_id
    words[1:] = ids
    return words


def count_ngrams(ids: WordArray, vocab_size: int, order: int, eos_id: int) -> NGramCounts:
    """Count all n-grams of a stream in memory.

    Args:
        ids: token ids [N].
        vocab_size: V.
        order: highest order counted.
        eos_id: id of the word before the first token.

    Returns:
        The counts. Levels above order N + 1 are empty.

    Raises:
        DataError: the stream is empty or too long, or an id lies outside the vocabulary.
    """
    check_stream(ids, vocab_size, eos_id)
    words = with_start(ids, vocab_size, eos_id)
    bits = word_bits(vocab_size)
    unigrams = np.bincount(words, minlength=vocab_size).astype(np.int64, copy=False)
    unigrams[eos_id] -= 1
    levels = tuple(level for level, _ in counted_levels(words, order, bits))
    return NGramCounts(vocab_size, bits, unigrams, levels)


def counted_levels(words: WordArray, order: int, bits: int) -> Iterator[tuple[CountLevel, IndexArray]]:
    """Count the n-grams of a sequence, order by order.

    Positions that are already sorted by (k - 1)-gram are sorted by the next word within each (k - 1)-gram, so that no
    comparison is repeated and no n-gram is spelled out.

    Args:
        words: token ids; every n-gram within them is counted.
        order: highest order counted.
        bits: bits of a word in a key.

    Yields:
        Level k from 2 up, and the index of the k-gram that ends at each word (empty for the highest order).
    """
    positions = _sorted_positions(words)
    index: IndexArray = words.astype(np.int32)
    for k in range(2, order + 1):
        level, positions, index = _extend(words, positions, index, k, bits, last=k == order)
        yield level, index


def _sorted_positions(words: WordArray) -> IndexArray:
    """Return the positions of a stream, ordered by word, then by position."""
    shift = len(words).bit_length()
    packed = words.astype(np.int64)
    packed <<= shift
    packed |= np.arange(len(words))
    packed.sort()
    packed &= (1 << shift) - 1
    return packed.astype(np.int32)


def _extend(
    words: WordArray, positions: IndexArray, index: IndexArray, k: int, bits: int, *, last: bool
) -> tuple[CountLevel, IndexArray, IndexArray]:
    """Build level k from level k - 1.

    Args:
        words: token ids.
        positions: last position of every (k - 1)-gram, ordered by the index of the (k - 1)-gram.
        index: index of the (k - 1)-gram that ends at each position.
        k: order of the new level.
        bits: number of bits of a word.
        last: whether k is the highest order; its positions are not returned.

    Returns:
        The level, and `positions` and `index` for order k.
    """
    ends = positions + np.int32(1)
    ends = ends[ends < len(words)]
    new_positions: IndexArray = ends[:0] if last else np.empty_like(ends)
    new_index: IndexArray = index[:0] if last else np.full_like(index, -1)
    keys: list[IntArray] = []
    suffixes: list[IndexArray] = []
    counts: list[IntArray] = []
    start, size, begin = -1, 0, 0
    # The context (relative to the first one of the slice), the word and the slot share 63 bits.
    slice_size = 1 << min(SLICE_BITS, 61 - 2 * bits)
    while begin < len(ends):
        end = _slice_end(index, ends, begin, slice_size)
        part = ends[begin:end]
        prefix = index[part - 1].astype(np.int64)
        first = int(prefix[0])
        shift = (end - begin).bit_length()
        prefix -= first
        prefix <<= bits
        prefix |= words[part]
        prefix <<= shift
        prefix |= np.arange(end - begin)
        prefix.sort()
        part = part[prefix & ((1 << shift) - 1)]
        prefix >>= shift
        fresh = np.empty(len(prefix), dtype=np.bool_)
        fresh[0] = True
        np.not_equal(prefix[1:], prefix[:-1], out=fresh[1:])
        heads = np.flatnonzero(fresh)
        keys.append(prefix[heads] + (first << bits))
        suffixes.append(index[part[heads]])
        counts.append(np.diff(heads, append=len(prefix)))
        opening = np.flatnonzero(part == k - 1)
        if len(opening):
            start = size + int(np.searchsorted(heads, opening[0], side="right")) - 1
        if not last:
            new_positions[begin:end] = part
            new_index[part] = np.cumsum(fresh, dtype=np.int32) + np.int32(size - 1)
        size += len(heads)
        begin = end
    level = CountLevel(_join(keys, np.int64), _join(suffixes, np.int32), _join(counts, np.int64), start)
    return level, new_positions, new_index


def _slice_end(index: IndexArray, ends: IndexArray, begin: int, size: int) -> int:
    """Return the end of a slice of about `size` sorted positions; a context is never split."""
    if begin + size >= len(ends):
        return len(ends)
    # Contexts ascend along `ends`. A hand-written binary search avoids copying them.
    context = index[ends[begin + size] - 1]
    low, high = begin, begin + size
    if index[ends[begin] - 1] == context:
        low, high = begin + size, len(ends)
        context += 1
    while low < high:
        middle = (low + high) // 2
        if index[ends[middle] - 1] < context:
            low = middle + 1
        else:
            high = middle
    return low


def _join(parts: list[npt.NDArray[Any]], dtype: type[np.integer[Any]]) -> npt.NDArray[Any]:
    """Concatenate a list of arrays, which may be empty."""
    if len(parts) == 1:
        return parts[0].astype(dtype, copy=False)
    return np.concatenate(parts, dtype=dtype) if parts else np.empty(0, dtype=dtype)
