"""Counting in bounded memory: stretches of the stream are counted in memory, then merged on disk order by order.

Shape legend: N tokens of the stream, S stretches, M[k] distinct n-grams of order k, R rows of a part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torch_linguist.model.ngram.columns import Array, Column, DiskStore, FileColumn, Sink, slices
from torch_linguist.model.ngram.counts import (
    CountLevel,
    IndexArray,
    IntArray,
    NGramCounts,
    WordArray,
    check_stream,
    counted_levels,
    with_start,
    word_bits,
)
from torch_linguist.model.ngram.sorting import cut_runs, sorted_with_slots
from torch_linguist.model.ngram.workspace import Progress


def count_on_disk(
    ids: WordArray, vocab_size: int, order: int, eos_id: int, store: DiskStore, stretch: int
) -> NGramCounts:
    """Count the n-grams of a stream on disk, with the same result as `count_ngrams`.

    Keys refer to the level below. Each stretch of the stream is counted into its own levels. The levels are then
    merged from order 2 up, and the indices within each stretch are replaced by those within the whole stream, so that
    every sort compares single integers.

    Args:
        ids: token ids [N], possibly memory-mapped.
        vocab_size: V.
        order: highest order counted.
        eos_id: id of the word before the first token.
        store: store for the columns; finished steps are not repeated.
        stretch: number of tokens that each thread counts at a time.

    Returns:
        The counts, in columns of the store.

    Raises:
        DataError: the stream is empty or too long, or an id lies outside the vocabulary.
    """
    check_stream(ids, vocab_size, eos_id)
    bits = word_bits(vocab_size)
    stretches = list(slices(len(ids) + 1, stretch))
    progress = Progress("counting", len(stretches))
    new = [place for place in range(len(stretches)) if store.facts(f"stretch {place}") is None]

    def count(place: int) -> tuple[int, list[int]]:
        begin, end = stretches[place].start, stretches[place].stop
        # The stream is <eos> followed by the ids. The words after a stretch complete its last n-grams.
        if begin == 0:
            words = with_start(ids[: end + order - 2], vocab_size, eos_id)
        else:
            words = np.asarray(ids[begin - 1 : end + order - 2])
        return place, _count_stretch(_Stretch(store.folder, place), words, end - begin, order, bits)

    for place, starts in store.map(count, new):
        store.finish(f"stretch {place}", {"starts": starts})
        progress.advance(1)
    unigrams = np.zeros(vocab_size, np.int64)
    for part in slices(len(ids), store.rows):
        unigrams += np.bincount(ids[part], minlength=vocab_size)
    runs = [_Stretch(store.folder, place) for place in range(len(stretches))]
    starts = (store.facts("stretch 0") or {})["starts"]
    levels = tuple(_merged(k, runs, bits, store, start, last=k == order) for k, start in enumerate(starts, start=2))
    return NGramCounts(vocab_size, bits, unigrams, levels)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Files of one stretch, by order: keys, suffixes, counts, and the index of its n-grams in the whole stream."""

    folder: Path
    place: int

    def path(self, name: str, order: int) -> Path:
        return self.folder / f"stretch{self.place}-{name}{order}"

    def column(self, name: str, order: int) -> FileColumn:
        return FileColumn(self.path(name, order), np.int64 if "keys" in name else np.int32)

    def write(self, name: str, order: int, values: Array) -> FileColumn:
        sink = Sink(np.int64 if "keys" in name else np.int32, self.path(name, order))
        sink.append(values)
        return self.column(name, order)


def _count_stretch(files: _Stretch, words: WordArray, length: int, order: int, bits: int) -> list[int]:
    """Count the n-grams that begin at the first `length` words; return the index of the first n-gram of each level."""
    starts = []
    for k, (level, index) in enumerate(counted_levels(words, order, bits), start=2):
        counts = np.asarray(level.counts)
        # Shorter n-grams within the words after the stretch are counted by the next stretch.
        np.subtract.at(counts, index[length + k - 1 :], 1)
        files.write("keys", k, np.asarray(level.keys))
        files.write("suffix", k, np.asarray(level.suffix))
        files.write("counts", k, counts)
        starts.append(level.start)
    return starts


def _merged(k: int, runs: Sequence[_Stretch], bits: int, store: DiskStore, start: int, *, last: bool) -> CountLevel:
    """Merge level k of all stretches, or read the result of an earlier process."""
    step = f"counts {k}"
    if (facts := store.facts(step)) is None:
        merged_start = _merge_level(k, runs, bits, store, start, last=last)
        store.finish(step, facts := {"start": merged_start})
    for run in runs:
        for name in ("keys", "suffix", "counts", "all-keys", "all-suffix"):
            run.path(name, k).unlink(missing_ok=True)
        run.path("map", k - 1).unlink(missing_ok=True)
    keys, suffix, counts = (
        store.column(f"{name}{k}", dtype)
        for name, dtype in (("keys", np.int64), ("suffix", np.int32), ("counts", np.int64))
    )
    return CountLevel(keys, suffix, counts, int(facts["start"]))


def _merge_level(k: int, runs: Sequence[_Stretch], bits: int, store: DiskStore, start: int, *, last: bool) -> int:
    """Merge level k of all stretches into columns of the store; return the index of the stream's first n-gram."""
    sources = list(store.map(lambda run: _renumbered(run, k, bits, store.rows), runs))
    cuts = list(cut_runs([keys for keys, _, _ in sources], store.rows))
    keys, suffix, counts = (
        store.sink(f"{name}{k}", dtype)
        for name, dtype in (("keys", np.int64), ("suffix", np.int32), ("counts", np.int64))
    )
    maps = [] if last else [Sink(np.int32, run.path("map", k)) for run in runs]
    progress, size = Progress(f"merging order {k}", len(cuts)), 0
    for part in store.map(lambda cut: _merge_part(sources, cut), cuts):
        keys.append(part.keys)
        suffix.append(part.suffix)
        counts.append(part.counts)
        for sink, places in zip(maps, part.places, strict=False):
            sink.append(places + np.int32(size))
        size += len(part.keys)
        progress.advance(1)
    if start < 0 or last:
        # Only contexts need their start, and the highest order has none.
        return -1
    return int(runs[0].column("map", k)[start : start + 1][0])


def _renumbered(run: _Stretch, k: int, bits: int, rows: int) -> tuple[FileColumn, FileColumn, FileColumn]:
    """Return keys, suffixes and counts of level k of a stretch, relative to the merged level below."""
    keys, suffix, counts = (run.column(name, k) for name in ("keys", "suffix", "counts"))
    if k == 2:  # Relative to the vocabulary.
        return keys, suffix, counts
    places = run.column("map", k - 1)[:]
    new_keys, new_suffix = Sink(np.int64, run.path("all-keys", k)), Sink(np.int32, run.path("all-suffix", k))
    for part in slices(len(keys), rows):
        key = keys[part]
        new_keys.append((places[key >> bits].astype(np.int64) << bits) | (key & ((1 << bits) - 1)))
        new_suffix.append(places[suffix[part]])
    return run.column("all-keys", k), run.column("all-suffix", k), counts


@dataclass(frozen=True, slots=True)
class _MergedPart:
    """Merged n-grams of a range of keys.

    Attributes:
        keys: distinct keys, ascending [R].
        suffix: suffix of each n-gram [R].
        counts: total count of each n-gram [R].
        places: index of the n-grams of each stretch among the distinct ones.
    """

    keys: IntArray
    suffix: IndexArray
    counts: IntArray
    places: list[IndexArray]


def _merge_part(sources: Sequence[tuple[Column, Column, Column]], cut: Sequence[slice]) -> _MergedPart:
    keys, slots = sorted_with_slots(np.concatenate([keys[own] for (keys, _, _), own in zip(sources, cut, strict=True)]))
    fresh = np.empty(len(keys), np.bool_)
    fresh[0] = True
    np.not_equal(keys[1:], keys[:-1], out=fresh[1:])
    heads = np.flatnonzero(fresh)
    suffix = np.concatenate([suffix[own] for (_, suffix, _), own in zip(sources, cut, strict=True)])[slots[heads]]
    counts = np.concatenate([counts[own] for (_, _, counts), own in zip(sources, cut, strict=True)])[slots]
    places: IndexArray = np.empty(len(keys), np.int32)
    places[slots] = np.cumsum(fresh, dtype=np.int32) - np.int32(1)
    ends = np.cumsum([own.stop - own.start for own in cut])
    return _MergedPart(keys[heads], suffix, np.add.reduceat(counts, heads, dtype=np.int64), np.split(places, ends[:-1]))
