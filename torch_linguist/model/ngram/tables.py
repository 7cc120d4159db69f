"""Tables of a fitted model, one level per order. Exact tables are defined here, quantized ones in `quantized`.

Shape legend: M[k] n-grams of order k, R queries or rows, W words in a row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from torch_linguist.errors import DataError
from torch_linguist.model.ngram.columns import extended, ordered_map, slices
from torch_linguist.model.ngram.counts import IntArray
from torch_linguist.model.ngram.estimation import BackoffLevel
from torch_linguist.model.ngram.smoothing import FloatArray
from torch_linguist.model.ngram.sorting import SORTED_FROM

CHECKED_ROWS = 1 << 16
"""Number of n-grams checked at a time, whose arrays then stay in a CPU's cache."""

CHECKED_PARTS = 64
"""Largest number of parts of a level that are checked, so that large files load as fast as small ones."""

_ROUNDING = 1e-5


class Level(nn.Module):
    """One order k >= 2: n-grams, their log-probabilities, and the backoff weights of their contexts.

    Args:
        word_bits: number of bits of a word in a key.
    """

    def __init__(self, word_bits: int) -> None:
        super().__init__()
        self.word_bits = word_bits

    def size(self) -> int:
        """Return M[k]."""
        raise NotImplementedError

    def search(self, context: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
        """Find n-grams.

        Args:
            context: index of each context in the level below [R]; -1 for none.
            word: the next word [R]; -1 for none.

        Returns:
            Index of each n-gram [R], and whether it exists [R]. If it does not, the index is valid but meaningless.
        """
        raise NotImplementedError

    def search_array(self, context: IntArray, word: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Find n-grams of contexts that exist, as `search` does."""
        place, found = self.search(torch.from_numpy(context), torch.from_numpy(word))
        return place.numpy(), found.numpy()

    def ranges(self, context: Tensor) -> Tensor:
        """Return the first and the past-the-end index of the continuations of each context [2, R]; empty for -1."""
        raise NotImplementedError

    def words(self, place: Tensor) -> Tensor:
        """Return the last word of n-grams."""
        raise NotImplementedError

    def contexts(self, place: Tensor) -> Tensor:
        """Return the context of n-grams, as an index in the level below."""
        raise NotImplementedError

    def log_probs(self, place: Tensor) -> Tensor:
        """Return the log-probability of n-grams."""
        raise NotImplementedError

    def log_backoffs(self, context: Tensor) -> Tensor:
        """Return the log backoff weight of contexts; 0 for a context of -1."""
        raise NotImplementedError

    def log_prob_array(self, place: IntArray) -> FloatArray:
        """Return the log-probability of n-grams, as `log_probs` does."""
        return self.log_probs(torch.from_numpy(place)).numpy()

    def log_backoff_array(self, context: IntArray) -> FloatArray:
        """Return the log backoff weight of contexts that exist, as `log_backoffs` does."""
        return self.log_backoffs(torch.from_numpy(context)).numpy()

    def spelled(self, rows: slice) -> tuple[IntArray, IntArray]:
        """Return the contexts and last words of a range of n-grams."""
        raise NotImplementedError

    def check(self, contexts: int, vocab_size: int, *, normalized: bool) -> None:
        """Check tables that were read from a file; of large ones, a sample.

        Args:
            contexts: M[k - 1].
            vocab_size: V.
            normalized: whether the probabilities after a context must sum to at most 1.

        Raises:
            DataError: the tables are not those of an n-gram model.
        """
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # The sizes depend on the corpus, so the constructor does not know them. Tables are assigned, not copied,
        # because they may be memory-mapped.
        for name, buffer in list(self.named_buffers(recurse=False)):
            stored = state_dict.get(prefix + name)
            if isinstance(stored, Tensor) and stored.dtype == buffer.dtype:
                setattr(self, name, stored)
        super()._load_from_state_dict(state_dict, prefix, *args)


class ExactLevel(Level):
    """A level of ascending int64 keys and float64 values.

    Each buffer ends with an entry that belongs to no n-gram, so that every search result is a valid index. The last
    backoff weight is 0 and belongs to context -1.
    """

    keys: Tensor
    log_prob: Tensor
    log_backoff: Tensor

    def __init__(self, word_bits: int, contexts: int) -> None:
        super().__init__(word_bits)
        self.register_buffer("keys", torch.full((1,), torch.iinfo(torch.int64).max))
        self.register_buffer("log_prob", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("log_backoff", torch.zeros(contexts + 1, dtype=torch.float64))

    def assign(self, level: BackoffLevel) -> None:
        """Use estimated arrays as tables."""
        self.keys = torch.from_numpy(extended(level.keys, np.iinfo(np.int64).max))
        self.log_prob = torch.from_numpy(extended(level.log_prob, 0.0))
        self.log_backoff = torch.from_numpy(extended(level.log_backoff, 0.0))

    def size(self) -> int:
        return self.keys.numel() - 1

    def search(self, context: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
        # A -1 on either side is a negative query, which equals no key.
        query = (context << self.word_bits) | word
        place = torch.searchsorted(self.keys, query)
        return place, self.keys[place] == query

    def search_array(self, context: IntArray, word: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        keys: IntArray = self.keys.numpy()
        query = (context << self.word_bits) | word
        place = np.searchsorted(keys, query)
        return place, keys.take(place) == query

    def ranges(self, context: Tensor) -> Tensor:
        return torch.searchsorted(self.keys, torch.stack([context, context + 1]) << self.word_bits)

    def words(self, place: Tensor) -> Tensor:
        return self.keys[place] & ((1 << self.word_bits) - 1)

    def contexts(self, place: Tensor) -> Tensor:
        return self.keys[place] >> self.word_bits

    def log_probs(self, place: Tensor) -> Tensor:
        return self.log_prob[place]

    def log_backoffs(self, context: Tensor) -> Tensor:
        return self.log_backoff[context]

    def log_prob_array(self, place: IntArray) -> FloatArray:
        values: FloatArray = self.log_prob.numpy().take(place)
        return values

    def log_backoff_array(self, context: IntArray) -> FloatArray:
        values: FloatArray = self.log_backoff.numpy().take(context)
        return values

    def spelled(self, rows: slice) -> tuple[IntArray, IntArray]:
        keys = self.keys[:-1][rows].cpu().numpy()
        return keys >> self.word_bits, keys & ((1 << self.word_bits) - 1)

    def check(self, contexts: int, vocab_size: int, *, normalized: bool) -> None:
        size = self.size()
        require(
            size >= 0
            and self.keys.shape == self.log_prob.shape == (size + 1,)
            and self.log_backoff.shape == (contexts + 1,),
            "their shapes do not match",
        )
        keys, log_prob = self.keys.numpy(), self.log_prob.numpy()
        end = np.iinfo(np.int64).max
        require(int(keys[-1]) == end and float(self.log_backoff[-1]) == 0, "their last entries are wrong")
        low, high = torch.aminmax(self.log_backoff)
        require(bool((low > -torch.inf) & (high < torch.inf)), "a backoff weight is not finite")

        def check(rows: slice) -> None:
            part, own = keys[rows], log_prob[rows]
            ascends = part < keys[rows.start + 1 : rows.stop + 1]
            require(bool(ascends.all()) and int(part[0]) >= 0, "their keys are not sorted")
            require(int(part[-1]) >> self.word_bits < contexts, "a key has no context")
            require(int((part & ((1 << self.word_bits) - 1)).max()) < vocab_size, "a word lies outside the vocabulary")
            check_log_probs(own)
            if normalized:
                prefix = part >> self.word_bits
                check_sums(np.bincount(prefix - prefix[0], np.exp(own)))

        for _ in ordered_map(check, checked_parts(size)):
            pass


def checked_parts(length: int) -> list[slice]:
    """Split rows into slices to check; of many slices, return the first, the last and random ones."""
    cut = list(slices(length, CHECKED_ROWS))
    if len(cut) <= CHECKED_PARTS:
        return cut
    drawn = np.random.default_rng(1).choice(len(cut) - 2, CHECKED_PARTS - 2, replace=False) + 1
    return [cut[place] for place in (0, *sorted(drawn.tolist()), len(cut) - 1)]


def require(condition: bool, problem: str) -> None:
    """Raise a DataError unless a condition of a table holds."""
    if not condition:
        raise DataError(f"not the tables of an n-gram model: {problem}")


def check_log_probs(values: npt.NDArray[Any]) -> None:
    """Check that log-probabilities are finite and at most 0, up to rounding.

    Raises:
        DataError: a value is not.
    """
    # Comparisons with NaN, which minimum and maximum pass on, are false.
    sound = not len(values) or (values.min() > -np.inf and values.max() <= _ROUNDING)
    require(bool(sound), "a probability is not from 0 to 1")


def check_sums(sums: npt.NDArray[Any], tolerance: float = _ROUNDING) -> None:
    """Check that the probabilities after each context sum to at most 1.

    Raises:
        DataError: a sum is larger.
    """
    require(not (sums > 1 + tolerance).any(), "the probabilities after a context add up to more than 1")


def word_scores(
    words: IntArray, unigrams: FloatArray, levels: Sequence[Level], word_bits: int, unseen_backoff: float
) -> FloatArray:
    """Return the log-probability of each word after those before it in its row, meaningless for a missing one.

    NumPy's indexing on a CPU takes a fraction of the time that torch's takes.

    Args:
        words: ids [R, W]; -1 for a missing word, which no context reaches across.
        unigrams: log-probabilities of the words without a context.
        levels: tables of orders 2 and up.
        word_bits: number of bits of an id.
        unseen_backoff: log backoff weight of contexts that are not in the tables.

    Returns:
        Log-probabilities [R, W], of the type of the unigrams.
    """
    rows, width = words.shape
    # A missing word ends each row: no n-gram continues into the next one.
    flat = np.full((rows, width + 1), -1)
    flat[:, :width] = words
    flat = flat.reshape(-1)
    scores = unigrams.take(flat, mode="wrap")
    # Where the n-grams of one order that were found begin, and their index.
    begin = _sorted_places(flat, word_bits, len(levels) + 1)
    index = flat.take(begin)
    for k, level in enumerate(levels):
        end = begin + (k + 1)
        place, found = level.search_array(index, flat.take(end))
        if unseen_backoff:
            missing = _words_before(flat) > k
            missing[end] = False
            scores[missing] += unseen_backoff
        lost, kept = np.flatnonzero(~found), np.flatnonzero(found)
        scores[end.take(lost)] += level.log_backoff_array(index.take(lost))
        begin, index = begin.take(kept), place.take(kept)
        scores[begin + (k + 1)] = level.log_prob_array(index)
    return scores.reshape(rows, width + 1)[:, :-1]


def _sorted_places(flat: IntArray, word_bits: int, order: int) -> IntArray:
    """Return the places of words, those of many words in the order of their n-grams.

    Queries in the order of the keys hit the caches of the processor.
    """
    if len(flat) < SORTED_FROM:
        return np.flatnonzero(flat >= 0)
    known = np.maximum(flat, 0)
    key = known.copy()
    for shift in range(1, min(order, 63 // word_bits)):
        key <<= word_bits
        key[:-shift] |= known[shift:]
    places = np.argsort(key)
    return places[flat.take(places) >= 0]


def _words_before(flat: IntArray) -> IntArray:
    """Return the number of words between each place and the missing word before it."""
    places = np.arange(len(flat))
    gaps = np.maximum.accumulate(np.where(flat < 0, places, -1))
    before = np.concatenate([[-1], gaps[:-1]])
    found: IntArray = places - before - 1
    return found
