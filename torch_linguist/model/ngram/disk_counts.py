"""Counting in bounded memory: sorted runs of n-grams on disk, merged part by part.

Shape legend: N tokens of the stream, C columns of a packed n-gram, R n-grams of a run or a part, M[k] distinct n-grams
of order k.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from torch_linguist.model.ngram.counts import (
    CountLevel,
    IndexArray,
    IntArray,
    NGramCounts,
    WordArray,
    check_stream,
    with_start,
    word_bits,
)

MEBIBYTE = 1 << 20
MINIMUM_MIB = 16


def counting_bytes(tokens: int, order: int) -> int:
    """About what counting in memory takes: the positions, and up to one n-gram a token at each order."""
    return tokens * (48 + 24 * (order - 1))


@contextmanager
def count_on_disk(
    ids: WordArray, vocab_size: int, order: int, eos_id: int, memory_limit_mib: int
) -> Iterator[NGramCounts]:
    """Counts as `count_ngrams` does, bit for bit, with all but a bounded part of the work on disk.

    The stream is cut into stretches; the n-grams of the highest order that begin in one are sorted, counted and written
    as a run. The runs are then read side by side, a range of n-grams at a time. As the n-grams come in their order, the
    lower orders are their beginnings. Past the limit comes what the operating system maps and may drop again.

    Args:
        ids: token ids [N], memory-mapped if they are many.
        vocab_size: V.
        order: the highest order counted.
        eos_id: the word that the first token is predicted from.
        memory_limit_mib: working memory of the counting, at least 16 MiB; the estimated model comes on top.

    Yields:
        The counts, in arrays that are mapped from temporary files and gone afterwards.

    Raises:
        DataError: the stream is empty or too long, or an id lies outside the vocabulary.
    """
    check_stream(ids, vocab_size, eos_id)
    bits = word_bits(vocab_size)
    unigrams = np.zeros(vocab_size, dtype=np.int64)
    packing = _Packing(order, (vocab_size + 1).bit_length())
    rows = _rows(memory_limit_mib, packing)
    with tempfile.TemporaryDirectory(prefix="torch_linguist-ngrams-") as name:
        folder = Path(name)
        runs: list[_Run] = []
        for begin in range(0, len(ids) + 1, rows):
            # The stream is the <eos> and then the ids; a stretch reads order - 1 words past its end.
            if begin == 0:
                words = with_start(ids[: rows + order - 2], vocab_size, eos_id)
            else:
                words = np.asarray(ids[begin - 1 : begin + rows + order - 2])
            starts = min(rows, len(ids) + 1 - begin)
            unigrams += np.bincount(words[:starts], minlength=vocab_size)
            runs.append(_write_run(folder, len(runs), packing, words, starts))
        unigrams[eos_id] -= 1
        first = with_start(ids[: order - 1], vocab_size, eos_id)
        levels = _merge(folder, runs, packing, rows, bits, first)
        yield NGramCounts(vocab_size, bits, unigrams, tuple(levels))
        del levels, runs


@dataclass(frozen=True, slots=True)
class _Packing:
    """How an n-gram lies in int64 columns, so that they sort as its words do.

    Words are raised by one; 0 is the place past the end of the stream.
    """

    order: int
    bits: int

    @property
    def per_column(self) -> int:
        return 63 // self.bits

    @property
    def columns(self) -> int:
        return -(-self.order // self.per_column)

    def pack(self, words: WordArray, starts: int) -> list[IntArray]:
        """The n-grams that begin at the first `starts` words."""
        columns = [np.zeros(starts, dtype=np.int64) for _ in range(self.columns)]
        for place in range(self.order):
            column = columns[place // self.per_column]
            column <<= self.bits
            part = words[place : place + starts]
            column[: len(part)] |= part.astype(np.int64) + 1
        return columns

    def word(self, columns: list[IntArray], place: int) -> IntArray:
        """The word at a place of each n-gram, -1 past the end of the stream."""
        column = place // self.per_column
        last = min(self.order, (column + 1) * self.per_column) - 1
        return ((columns[column] >> ((last - place) * self.bits)) & ((1 << self.bits) - 1)) - 1


def _rows(memory_limit_mib: int, packing: _Packing) -> int:
    """N-grams that may be sorted at once: each as columns and as words, with its rank, counts and flags (measured)."""
    return memory_limit_mib * MEBIBYTE // (8 * (3 * packing.columns + 2 * packing.order) + 64)


@dataclass(frozen=True, slots=True)
class _Run:
    """Distinct n-grams of a stretch in their order, and how often each occurs there."""

    columns: list[IntArray]
    counts: IntArray


def _write_run(folder: Path, number: int, packing: _Packing, words: WordArray, starts: int) -> _Run:
    """Sorts and counts the n-grams that begin in a stretch, and maps them from files."""
    columns, counts = _distinct(packing.pack(words, starts), np.ones(starts, dtype=np.int64))
    mapped = []
    for place, array in enumerate([*columns, counts]):
        path = folder / f"run{number}.{place}"
        array.tofile(path)
        mapped.append(np.memmap(path, dtype=np.int64, mode="c"))
    return _Run([*mapped[:-1]], mapped[-1])


def _distinct(columns: list[IntArray], counts: IntArray) -> tuple[list[IntArray], IntArray]:
    """Each n-gram once, in order, with the sum of its counts."""
    rank = np.lexsort(columns[::-1])
    columns = [column[rank] for column in columns]
    fresh = np.zeros(len(rank), dtype=np.bool_)
    fresh[0] = True
    for column in columns:
        fresh[1:] |= column[1:] != column[:-1]
    heads = np.flatnonzero(fresh)
    return [column[heads] for column in columns], np.add.reduceat(counts[rank], heads)


def _merge(
    folder: Path, runs: list[_Run], packing: _Packing, rows: int, bits: int, first: WordArray
) -> list[CountLevel]:
    """All levels from the runs, `rows` n-grams at a time."""
    writers = [_LevelWriter(folder, k, bits) for k in range(2, packing.order + 1)]
    before: list[int] | None = None
    for part in _parts(runs, rows):
        gathered = [np.concatenate([run.columns[c][own] for run, own in part]) for c in range(packing.columns)]
        columns, counts = _distinct(gathered, np.concatenate([run.counts[own] for run, own in part]))
        words = [packing.word(columns, place) for place in range(packing.order)]
        # Whether an n-gram's first k words differ from those of the one before it, k = 1 first.
        fresh = words[0] != np.concatenate([[-2 if before is None else before[0]], words[0][:-1]])
        index = words[0]
        for k, writer in enumerate(writers, start=2):
            word = words[k - 1]
            fresh = fresh | (word != np.concatenate([[-2 if before is None else before[k - 1]], word[:-1]]))
            index = writer.add(index, word, counts, fresh)
        before = [int(column[-1]) for column in words]
    levels: list[CountLevel] = []
    for writer in writers:
        levels.append(writer.level(levels[-1] if levels else None, first, rows))
    return levels


def _parts(runs: list[_Run], rows: int) -> Iterator[list[tuple[_Run, slice]]]:
    """Cuts all runs at the same n-grams, into parts of about `rows` in all."""
    total = sum(len(run.counts) for run in runs)
    step = max(1, rows // (4 * len(runs)))
    sample = np.sort(np.concatenate([run.columns[0][::step] for run in runs]))
    # N-grams of the same first column stay together.
    cuts = np.unique(sample[:: max(1, len(sample) * rows // max(total, 1))])[1:]
    ends = [np.concatenate([[0], np.searchsorted(run.columns[0], cuts), [len(run.counts)]]) for run in runs]
    for place in range(len(cuts) + 1):
        part = [(run, slice(int(end[place]), int(end[place + 1]))) for run, end in zip(runs, ends, strict=True)]
        part = [(run, own) for run, own in part if own.stop > own.start]
        if part:
            yield part


class _LevelWriter:
    """Collects the n-grams of one order as they come by, in files."""

    def __init__(self, folder: Path, order: int, bits: int) -> None:
        self.order, self.bits, self.size = order, bits, 0
        self.paths = [folder / f"{name}{order}" for name in ("keys", "counts", "suffix")]
        # The last n-gram's count is not known until the next one comes.
        self.pending = 0

    def add(self, prefix: IntArray, word: IntArray, counts: IntArray, fresh: npt.NDArray[np.bool_]) -> IntArray:
        """Takes in the beginnings of a part of the highest order's n-grams.

        Args:
            prefix: index of the first order - 1 words of each [R].
            word: the next word [R], -1 past the end of the stream.
            counts: occurrences [R].
            fresh: whether the first `order` words differ from those of the n-gram before [R].

        Returns:
            Index of the first `order` words [R], of no meaning past the end of the stream.
        """
        inside = word >= 0
        heads = np.flatnonzero(fresh & inside)
        counted = np.where(inside, counts, 0)
        if not len(heads):
            self.pending += int(counted.sum())
            return np.full(len(word), self.size - 1)
        self.pending += int(counted[: heads[0]].sum())
        sums = np.add.reduceat(counted, heads)
        with self.paths[0].open("ab") as keys, self.paths[1].open("ab") as totals:
            ((prefix[heads] << self.bits) | word[heads]).tofile(keys)
            done = np.concatenate([[self.pending], sums[:-1]]) if self.size else sums[:-1]
            done.astype(np.int64).tofile(totals)
        self.pending = int(sums[-1])
        index = np.cumsum(fresh & inside) + (self.size - 1)
        self.size += len(heads)
        return index

    def level(self, lower: CountLevel | None, first: WordArray, rows: int) -> CountLevel:
        """The level, once all n-grams have come by; `lower` is the one below."""
        if not self.size:
            return CountLevel(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64), -1)
        with self.paths[1].open("ab") as totals:
            np.array([self.pending], dtype=np.int64).tofile(totals)
        keys = np.memmap(self.paths[0], dtype=np.int64, mode="c")
        with self.paths[2].open("wb") as file:
            for begin in range(0, self.size, rows):
                part = keys[begin : begin + rows]
                word = part & ((1 << self.bits) - 1)
                if lower is not None:
                    shorter = lower.suffix[part >> self.bits].astype(np.int64)
                    word = _find(lower.keys, (shorter << self.bits) | word)
                word.astype(np.int32).tofile(file)
        suffix: IndexArray = np.memmap(self.paths[2], dtype=np.int32, mode="c")
        start = -1
        if len(first) >= self.order:
            # The stream's first n-gram: its beginning opens the level below.
            prefix = int(first[0]) if lower is None else lower.start
            start = int(np.searchsorted(keys, (prefix << self.bits) | int(first[self.order - 1])))
        return CountLevel(keys, suffix, np.memmap(self.paths[1], dtype=np.int64, mode="c"), start)


def _find(keys: IntArray, query: IntArray) -> IntArray:
    """Index of n-grams that are all there; several times as fast as NumPy's search."""
    place: IntArray = torch.searchsorted(torch.from_numpy(keys), torch.from_numpy(query)).numpy()
    return place
