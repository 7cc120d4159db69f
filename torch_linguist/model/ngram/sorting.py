"""Sorting and searching columns of keys that may be larger than memory."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from torch_linguist.model.ngram.columns import WORKERS, Array, Column, FileColumn, Store, slices
from torch_linguist.model.ngram.counts import IntArray

SORTED_FROM = 1 << 13
"""Minimum number of queries for which sorting them saves time."""


def sorted_with_slots(keys: IntArray) -> tuple[IntArray, IntArray]:
    """Return keys in ascending order and the index that each had before; equal keys keep their order."""
    shift, base = len(keys).bit_length(), keys.min() if len(keys) else 0
    if not len(keys) or int(keys.max() - base).bit_length() + shift > 63:
        slots = np.argsort(keys, kind="stable")
        return keys[slots], slots
    # Sorting plain integers is several times as fast as argsort.
    packed = keys - base
    packed <<= shift
    packed |= np.arange(len(keys))
    packed.sort()
    slots = packed & ((1 << shift) - 1)
    packed >>= shift
    packed += base
    return packed, slots


def cut_runs(runs: Sequence[Column], rows: int) -> Iterator[list[slice]]:
    """Split ascending columns at common values.

    Args:
        runs: ascending int64 columns.
        rows: number of rows of a part, summed over the columns; may be exceeded by a quarter.

    Yields:
        One slice of each column per part.
    """
    mapped = [run.mapped() if isinstance(run, FileColumn) else run for run in runs]
    step = max(1, rows // (4 * max(1, len(runs))))
    sample = np.sort(np.concatenate([np.empty(0, np.int64), *(run[step - 1 :: step] for run in mapped)]))
    cuts = np.unique(sample[:: max(1, rows // step)])
    ends = [[0, *np.searchsorted(run, cuts).tolist(), len(run)] for run in mapped]
    for place in range(len(cuts) + 1):
        part = [slice(end[place], end[place + 1]) for end in ends]
        if any(own.stop > own.start for own in part):
            yield part


def sort_columns(keys: Column, others: Sequence[Column], store: Store, name: str) -> list[Column]:
    """Sort columns by the first one.

    Args:
        keys: int64 values.
        others: columns of the same length, brought into the same order.
        store: store for the sorted columns.
        name: prefix of their names.

    Returns:
        The sorted keys, then the other columns.
    """
    runs: list[list[Column]] = []
    for rows in slices(len(keys), store.rows):
        ordered, slots = sorted_with_slots(keys[rows])
        run = []
        for place, values in enumerate((ordered, *(column[rows][slots] for column in others))):
            sink = store.sink(f"{name}-run{len(runs)}-{place}", values.dtype)
            sink.append(values)
            run.append(sink.finish())
        runs.append(run)
    if len(runs) == 1:
        return runs[0]
    sinks = [store.sink(f"{name}-{place}", column.dtype) for place, column in enumerate((keys, *others))]
    for cut in cut_runs([run[0] for run in runs], store.rows):
        ordered, slots = sorted_with_slots(_gathered(runs, cut, 0))
        sinks[0].append(ordered)
        for place, sink in enumerate(sinks[1:], start=1):
            sink.append(_gathered(runs, cut, place)[slots])
    for run in runs:
        for column in run:
            if isinstance(column, FileColumn):
                column.delete()
    return [sink.finish() for sink in sinks]


def _gathered(runs: Sequence[Sequence[Column]], cut: Sequence[slice], place: int) -> Array:
    return np.concatenate([run[place][own] for run, own in zip(runs, cut, strict=True)])


class KeySearch:
    """Binary search in ascending keys: `search(query)` returns the index of each query, or -1.

    Args:
        keys: ascending int64 column.
        block: number of keys held in memory by all threads; a longer column is read once per call.
    """

    def __init__(self, keys: Column, block: int) -> None:
        self.keys, self._step = keys, max(1, (len(keys) if len(keys) <= block else block // WORKERS))
        self._whole = keys[:] if len(keys) <= block else None

    def __call__(self, query: IntArray) -> IntArray:
        found = np.full(len(query), -1, np.int64)
        for begin in range(0, len(self.keys), self._step):
            keys = self._whole if self._whole is not None else self.keys[begin : begin + self._step]
            inside = np.flatnonzero((query >= keys[0]) & (query <= keys[-1]))
            # Several times as fast as np.searchsorted.
            place = torch.searchsorted(torch.from_numpy(keys), torch.from_numpy(query[inside])).numpy()
            found[inside] = np.where(keys[place] == query[inside], place + begin, -1)
        return found
