"""Quantized tables: a trie of arrays with one byte per log-probability and one per backoff weight.

A level stores the words of its n-grams in the order of their contexts (two bytes each, three for vocabularies above
65,536), and the offset of the first continuation of each context. The offsets ascend, so only the lowest byte of each
is stored, together with the contexts at which the remaining bits increase (Elias 1974, "Efficient storage and retrieval
by content and address of static files"). All arrays can be memory-mapped and shared between processes.

Shape legend: M[k] n-grams of order k, R queries.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torch_linguist.model.ngram.columns import Array, Column, FileColumn, Sink, Store, ordered_map, slices
from torch_linguist.model.ngram.counts import IntArray
from torch_linguist.model.ngram.estimation import BackoffModel
from torch_linguist.model.ngram.smoothing import FloatArray
from torch_linguist.model.ngram.tables import Level, check_log_probs, check_sums, checked_parts, require
from torch_linguist.model.ngram.workspace import Progress

CODES = 256
_FINE = 1 << 16
_ROUNDS = 20
# The probabilities after a context may exceed 1 in sum by the error of quantization.
_TOLERANCE = 0.2


class QuantizedLevel(Level):
    """A level with 8-bit codes; see the module docstring.

    Attributes:
        low_words: lower 16 bits of the last word of each n-gram, int16 [M[k] + 1].
        high_words: bits 16 to 23 of the last word, uint8 [M[k] + 1]; empty for vocabularies of at most 65,536.
        prob_codes: code of each log-probability, uint8 [M[k] + 1].
        backoff_codes: code of the log backoff weight of each context, uint8 [M[k - 1] + 1]; the last is that of
            context -1.
        low_offsets: lower 8 bits of the offset of the first continuation of each context, uint8 [M[k - 1] + 2]; the
            last two belong to M[k].
        rises: first context whose offset is at least 256, 512, ..., int64.
        probs: log-probability of each code, float32 [256].
        backoffs: log backoff weight of each code, float32 [256]; that of code 0 is 0.
    """

    low_words: Tensor
    high_words: Tensor
    prob_codes: Tensor
    backoff_codes: Tensor
    low_offsets: Tensor
    rises: Tensor
    probs: Tensor
    backoffs: Tensor

    def __init__(self, word_bits: int, contexts: int) -> None:
        super().__init__(word_bits)
        self.is_wide = word_bits > 16
        self.register_buffer("low_words", torch.zeros(1, dtype=torch.int16))
        self.register_buffer("high_words", torch.zeros(int(self.is_wide), dtype=torch.uint8))
        self.register_buffer("prob_codes", torch.zeros(1, dtype=torch.uint8))
        self.register_buffer("backoff_codes", torch.zeros(contexts + 1, dtype=torch.uint8))
        self.register_buffer("low_offsets", torch.zeros(contexts + 2, dtype=torch.uint8))
        self.register_buffer("rises", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("probs", torch.zeros(CODES))
        self.register_buffer("backoffs", torch.zeros(CODES))

    def assign(self, buffers: dict[str, Column]) -> None:
        """Take over the columns of `quantize`."""
        for name, column in buffers.items():
            array = column.mapped() if isinstance(column, FileColumn) else column
            setattr(self, name, torch.from_numpy(array))

    def size(self) -> int:
        return self.low_words.numel() - 1

    def offsets(self, context: Tensor) -> Tensor:
        """Return the offset of the first continuation of contexts [R]."""
        high = torch.searchsorted(self.rises, context, right=True)
        return (high << 8) | torch.index_select(self.low_offsets, 0, context)

    def search(self, context: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
        known = torch.clamp(context, min=0)
        place = self.offsets(known)
        length = self.offsets(known + 1) - place
        exists = (length > 0) & (context >= 0)
        rows = torch.nonzero(length > 1).view(-1)
        low, size, wanted = place[rows], length[rows], word[rows]
        while rows.numel() > 0:
            half = size >> 1
            middle = low + half
            low = torch.where(self.words(middle) <= wanted, middle, low)
            size = size - half
            more = torch.nonzero(size > 1).view(-1)
            if 2 * more.numel() < rows.numel():
                place[rows] = low
                rows, low, size, wanted = rows[more], low[more], size[more], wanted[more]
        return place, exists & (self.words(place) == word)

    def ranges(self, context: Tensor) -> Tensor:
        known = torch.clamp(context, min=0)
        begin = self.offsets(known)
        return torch.stack([begin, torch.where(context < 0, begin, self.offsets(known + 1))])

    def words(self, place: Tensor) -> Tensor:
        word = torch.index_select(self.low_words, 0, place).to(torch.int64) & 0xFFFF
        if self.is_wide:
            word = word | (torch.index_select(self.high_words, 0, place).to(torch.int64) << 16)
        return word

    def log_probs(self, place: Tensor) -> Tensor:
        return self.probs[self.prob_codes[place].to(torch.int64)]

    def log_backoffs(self, context: Tensor) -> Tensor:
        return self.backoffs[self.backoff_codes[context].to(torch.int64)]

    def spelled(self, rows: slice) -> tuple[IntArray, IntArray]:
        begin, end, _ = rows.indices(self.size())
        if begin >= end:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        first, last = self.contexts(torch.tensor([begin, end - 1])).tolist()
        offsets = np.clip(self.consecutive_offsets(first, last + 2), begin, end)
        context = np.repeat(np.arange(first, last + 1), np.diff(offsets))
        return context, self._consecutive_words(begin, end).astype(np.int64)

    def contexts(self, place: Tensor) -> Tensor:
        # Binary search for the last context that begins at or before each place.
        count = self.low_offsets.numel() - 2
        low, high = torch.zeros_like(place), torch.full_like(place, count)
        for _ in range(count.bit_length()):
            middle = (low + high) >> 1
            begins = self.offsets(middle) <= place
            low, high = torch.where(begins, middle, low), torch.where(begins, high, middle)
        return low

    def check(self, contexts: int, vocab_size: int, *, normalized: bool) -> None:
        size, wide = self.size(), (self.size() + 1) * int(self.is_wide)
        shapes = (self.low_words.shape, self.prob_codes.shape, self.high_words.shape, self.probs.shape)
        require(size >= 0 and shapes == ((size + 1,), (size + 1,), (wide,), (CODES,)), "their shapes do not match")
        below = (self.backoff_codes.shape, self.low_offsets.shape, self.backoffs.shape)
        require(below == ((contexts + 1,), (contexts + 2,), (CODES,)), "their shapes do not match")
        rises = self.rises.numpy()
        require(rises.ndim == 1 and len(rises) == size >> 8, "their shapes do not match")
        require(not len(rises) or bool((np.diff(rises) >= 0).all()), "their offsets are not sorted")
        require(not len(rises) or 0 <= int(rises[0]) <= int(rises[-1]) <= contexts, "their offsets are not sorted")
        check_log_probs(self.probs.numpy())
        require(bool(torch.isfinite(self.backoffs).all()), "a backoff weight is not finite")
        require(float(self.backoffs[int(self.backoff_codes[-1])]) == 0, "their last entries are wrong")
        probs, stop, end = np.exp(self.probs.double().numpy()), 0, 0

        def check(part: slice) -> tuple[int, int]:
            return self._check_part(part, probs, vocab_size, normalized=normalized)

        cut = checked_parts(contexts)
        for part, (begin, new_end) in zip(cut, ordered_map(check, cut), strict=True):
            if part.start == stop:
                require(begin == end, "their offsets are not sorted")
            stop, end = part.stop, new_end
        require(end == size, "their offsets are not sorted")

    def _check_part(self, part: slice, probs: FloatArray, vocab_size: int, *, normalized: bool) -> tuple[int, int]:
        """Check the continuations of a range of contexts; return their first and last offset."""
        offsets = self.consecutive_offsets(part.start, part.stop + 1)
        lengths = np.diff(offsets)
        begin, end = int(offsets[0]), int(offsets[-1])
        require(bool((lengths >= 0).all()) and end <= self.size(), "their offsets are not sorted")
        words = self._consecutive_words(begin, end)
        if not len(words):
            return begin, end
        require(int(words.max()) < vocab_size, "a word lies outside the vocabulary")
        ascends = words[1:] > words[:-1]
        first = offsets[1:-1] - begin
        ascends[first[(first > 0) & (first < len(words))] - 1] = True
        require(bool(ascends.all()), "the words after a context are not sorted")
        if normalized:
            total = np.zeros(len(words) + 1)
            np.cumsum(probs[self.prob_codes[begin:end].numpy()], out=total[1:])
            check_sums(np.diff(total[offsets - begin]), _TOLERANCE)
        return begin, end

    def consecutive_offsets(self, begin: int, end: int) -> IntArray:
        """Return the `offsets` of a range of contexts, faster than those of arbitrary contexts."""
        rises = self.rises.numpy()
        first, last = np.searchsorted(rises, [begin, end - 1], side="right")
        high = np.bincount(rises[first:last] - begin, minlength=end - begin)
        high[0] = first
        np.cumsum(high, out=high)
        high <<= 8
        high |= self.low_offsets[begin:end].numpy()
        return high

    def _consecutive_words(self, begin: int, end: int) -> npt.NDArray[Any]:
        low = self.low_words[begin:end].numpy().view(np.uint16)
        return low | (self.high_words[begin:end].numpy().astype(np.uint32) << 16) if self.is_wide else low


@dataclass(frozen=True, slots=True)
class Codebook:
    """256 values that represent the values of a column.

    Attributes:
        centers: value of each code, ascending, float32 [256].
        low: smallest value of the column.
        step: width of each of the 65,536 fine bins.
        codes: code of each fine bin, uint8 [65536].
        has_zero: whether code 0 is reserved for the value 0.
    """

    centers: npt.NDArray[np.float32]
    low: float
    step: float
    codes: npt.NDArray[np.uint8]
    has_zero: bool

    def encode(self, values: FloatArray) -> npt.NDArray[np.uint8]:
        """Return the code of each value."""
        codes = self.codes[_fine_bins(values, self.low, self.step)]
        return np.where(values == 0, np.uint8(0), codes) if self.has_zero else codes


def codebook(column: Column, store: Store, *, has_zero: bool) -> Codebook:
    """Choose 256 values with a small mean squared error (Lloyd 1982, "Least squares quantization in PCM").

    Unlike in the paper, each value is weighted by the fourth root of its exponential: errors in large probabilities
    occur more often in a text, and change the sum over the vocabulary more.

    Args:
        column: values to represent.
        store: store that sets the number of values read at a time.
        has_zero: whether 0 is frequent and represented exactly, by code 0.
    """
    low, high = np.inf, -np.inf
    for part in slices(len(column), store.rows):
        values = column[part]
        values = values[values != 0] if has_zero else values
        if len(values):
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if low > high:
        low = high = 0.0
    step = max((high - low) / (_FINE - 1), 1e-12)
    seen, sums = np.zeros(_FINE), np.zeros(_FINE)
    for part in slices(len(column), store.rows):
        values = column[part]
        values = values[values != 0] if has_zero else values
        bins = _fine_bins(values, low, step)
        seen += np.bincount(bins, minlength=_FINE)
        sums += np.bincount(bins, values, minlength=_FINE)
    places = low + step * np.arange(_FINE, dtype=np.float64)
    weights = np.exp(places / 4)
    codes, centers = _lloyd(seen * weights, sums * weights, places, CODES - int(has_zero))
    if has_zero:
        codes, centers = codes + 1, np.concatenate([[0.0], centers])
    return Codebook(centers.astype(np.float32), low, step, codes.astype(np.uint8), has_zero)


def _fine_bins(values: FloatArray, low: float, step: float) -> IntArray:
    return np.clip(np.rint((values - low) / step), 0, _FINE - 1).astype(np.int64)


def _lloyd(seen: FloatArray, sums: FloatArray, places: FloatArray, size: int) -> tuple[IntArray, FloatArray]:
    """Return the code of each fine bin and the center of each code; see `codebook`."""
    # Widths proportional to the density to the power of -1/3 are nearly optimal (Panter & Dite 1951).
    coarse = np.repeat(np.cbrt(seen.reshape(-1, 64).sum(1)), 64) + 1e-9
    share = np.cumsum(coarse) / coarse.sum()
    codes = np.minimum((share * size).astype(np.int64), size - 1)
    centers: FloatArray = places[:: _FINE // size][:size]
    for _ in range(_ROUNDS):
        count = np.bincount(codes, seen, minlength=size)
        total = np.bincount(codes, sums, minlength=size)
        used = count > 0
        if not used.any():
            break
        # Unused codes are interpolated between their neighbors.
        centers = np.interp(np.arange(size), np.flatnonzero(used), total[used] / count[used])
        codes = np.searchsorted((centers[1:] + centers[:-1]) / 2, places)
    return codes, centers


def quantize(model: BackoffModel, k: int, store: Store) -> dict[str, Column]:
    """Return the buffers of the `QuantizedLevel` of order k.

    Args:
        model: estimated model.
        k: order.
        store: store for the columns.
    """
    level, bits = model.levels[k - 2], model.word_bits
    probs = codebook(level.log_prob, store, has_zero=False)
    backoffs = codebook(level.log_backoff, store, has_zero=True)
    names: dict[str, npt.DTypeLike] = {"low_words": np.int16, "high_words": np.uint8, "prob_codes": np.uint8}
    names |= {"backoff_codes": np.uint8, "low_offsets": np.uint8, "rises": np.int64}
    sinks = {name: store.sink(f"{name}{k}", dtype) for name, dtype in names.items()}
    progress, rise = Progress(f"quantizing order {k}", len(level.keys)), 0

    def add_offsets(begins: IntArray, first: int) -> None:
        nonlocal rise
        sinks["low_offsets"].append(begins & 0xFF)
        last = int(begins[-1]) >> 8
        sinks["rises"].append(first + np.searchsorted(begins, np.arange(rise + 1, last + 1) << 8))
        rise = last

    for part in model.parts(k, store.rows):
        sinks["prob_codes"].append(probs.encode(level.log_prob[part.rows]))
        sinks["backoff_codes"].append(backoffs.encode(level.log_backoff[part.contexts]))
        _append_words(sinks["low_words"], sinks["high_words"], part.word, wide=bits > 16)
        lengths = np.bincount(part.prefix, minlength=part.width)
        add_offsets(part.rows.start + np.cumsum(lengths) - lengths, part.contexts.start)
        progress.advance(len(part.word))
    # The entries that belong to no n-gram, and the end of the last context.
    end = np.zeros(1, np.int64)
    for name in ("prob_codes", "backoff_codes"):
        sinks[name].append(end)
    _append_words(sinks["low_words"], sinks["high_words"], end, wide=bits > 16)
    add_offsets(np.full(2, len(level.keys)), len(level.log_backoff))
    buffers = {name: sink.finish() for name, sink in sinks.items()}
    return {**buffers, "probs": probs.centers, "backoffs": backoffs.centers}


def _append_words(low: Sink, high: Sink, words: Array, *, wide: bool) -> None:
    low.append((words & 0xFFFF).astype(np.uint16).view(np.int16))
    if wide:
        high.append(words >> 16)
