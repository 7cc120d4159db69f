"""Columns: one-dimensional arrays in memory or in files, read and written part by part by the same algorithms.

Shape legend: M[k] distinct n-grams of order k, R rows of a part.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from torch_linguist.runs.files import write_json
from torch_linguist.runs.platform import OPEN_FILES_STAY

Array = npt.NDArray[Any]
Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = 2
"""Number of threads that sort and compute; NumPy releases the global interpreter lock."""


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results of a function in order, computed ahead by `WORKERS` threads."""
    remaining = iter(items)
    with ThreadPoolExecutor(WORKERS) as pool:
        pending = [pool.submit(function, item) for item in islice(remaining, WORKERS)]
        while pending:
            result = pending.pop(0).result()
            pending += [pool.submit(function, item) for item in islice(remaining, 1)]
            yield result
            del result


class FileColumn:
    """An array in a file, read in ranges.

    Ranges are copied, not mapped, so that the memory of the process stays bounded.

    Args:
        path: path of the file, which contains the values only; a missing file is an empty column.
        dtype: type of the values.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self._length = path.stat().st_size // self.dtype.itemsize if path.is_file() else 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, rows: slice) -> Array:
        """Return a copy of a range of values. The step of the slice must be 1."""
        begin, end, _ = rows.indices(self._length)
        count = max(0, end - begin)
        return np.fromfile(self.path, self.dtype, count=count, offset=begin * self.dtype.itemsize)

    def mapped(self) -> Array:
        """Return the whole array, memory-mapped copy-on-write.

        Where a mapped file cannot be deleted (Windows), it is read.
        """
        if not self._length or OPEN_FILES_STAY:
            return self[:]
        return np.memmap(self.path, self.dtype, mode="c", shape=(self._length,))

    def delete(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


Column = Array | FileColumn


class Sink:
    """A column that is written part by part.

    Args:
        dtype: type of the values.
        path: path of the file; None to collect the values in memory.
    """

    def __init__(self, dtype: npt.DTypeLike, path: Path | None = None) -> None:
        self.dtype, self.path = np.dtype(dtype), path
        self._parts: list[Array] = []
        if path is not None:
            path.write_bytes(b"")

    def append(self, values: Array) -> None:
        """Add values at the end."""
        values = values.astype(self.dtype, copy=False)
        if self.path is None:
            self._parts.append(values)
            return
        # Opened for each append: a merge writes to more files than a process may keep open.
        with self.path.open("ab") as file:
            np.ascontiguousarray(values).tofile(file)

    def finish(self) -> Column:
        """Return the complete column."""
        if self.path is not None:
            return FileColumn(self.path, self.dtype)
        if len(self._parts) == 1:
            return self._parts[0]
        return np.concatenate(self._parts) if self._parts else np.empty(0, self.dtype)


def extended(column: Column, last: Any) -> Array:
    """Return a column with one value appended, as an array; a file is extended and memory-mapped."""
    if isinstance(column, FileColumn):
        with column.path.open("ab") as file:
            np.array([last], column.dtype).tofile(file)
        return FileColumn(column.path, column.dtype).mapped()
    return np.append(column, np.array(last, column.dtype))


class Store:
    """Creates columns; this one in memory, each in one part.

    Attributes:
        rows: number of rows per part.
        block: number of values of a column that are held in memory for random access.
    """

    rows: int = 1 << 62
    block: int = 1 << 62

    def sink(self, name: str, dtype: npt.DTypeLike) -> Sink:
        """Return a new column to write to."""
        return Sink(dtype)

    def facts(self, step: str) -> dict[str, Any] | None:
        """Return the facts that `finish` recorded for a step, or None if the step has not been finished."""
        return None

    def finish(self, step: str, facts: dict[str, Any] | None = None) -> None:
        """Record that a step is complete, with plain values for later steps."""

    def column(self, name: str, dtype: npt.DTypeLike) -> Column:
        """Return a column of a finished step.

        Raises:
            KeyError: this store is in memory, where no column of an earlier process exists.
        """
        raise KeyError(name)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results of a function in order."""
        return map(function, items)


class DiskStore(Store):
    """Columns in the files of a folder, with a manifest of the finished steps.

    Args:
        folder: existing folder, used by one process at a time. A later process continues after the last finished step.
        rows: see `Store`.
        block: see `Store`.
    """

    MANIFEST = "steps.json"

    def __init__(self, folder: Path, rows: int, block: int) -> None:
        self.folder, self.rows, self.block = folder, rows, block
        path = folder / self.MANIFEST
        recorded = json.loads(path.read_bytes()) if path.is_file() else {"steps": {}, "sizes": {}}
        self._steps: dict[str, Any] = recorded["steps"]
        self._sizes: dict[str, int] = recorded["sizes"]
        for name, size in self._sizes.items():
            # A later step may have extended a column.
            if (folder / name).is_file():
                os.truncate(folder / name, size)

    def sink(self, name: str, dtype: npt.DTypeLike) -> Sink:
        self._sizes[name] = 0
        return Sink(dtype, self.folder / name)

    def facts(self, step: str) -> dict[str, Any] | None:
        return self._steps.get(step)

    def finish(self, step: str, facts: dict[str, Any] | None = None) -> None:
        self._steps[step] = facts or {}
        files = {name: self.folder / name for name in self._sizes}
        self._sizes = {name: file.stat().st_size for name, file in files.items() if file.is_file()}
        write_json(self.folder / self.MANIFEST, {"steps": self._steps, "sizes": self._sizes})

    def column(self, name: str, dtype: npt.DTypeLike) -> Column:
        return FileColumn(self.folder / name, dtype)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        return ordered_map(function, items)


class Lookup:
    """Random access to a column: `lookup(index)` returns the values at an array of indices.

    Args:
        column: column of values.
        block: number of values held in memory by all threads; a longer column is read once per call.
    """

    def __init__(self, column: Column, block: int) -> None:
        self.column, self._step = column, max(1, block // WORKERS)
        self._whole = column[:] if len(column) <= block else None

    def __call__(self, index: Array) -> Array:
        if self._whole is not None:
            return self._whole[index]
        found: Array = np.empty(len(index), self.column.dtype)
        for begin in range(0, len(self.column), self._step):
            inside = np.flatnonzero((index >= begin) & (index < begin + self._step))
            if len(inside):
                found[inside] = self.column[begin : begin + self._step][index[inside] - begin]
        return found


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive n-grams of one order: all continuations of a range of contexts.

    Attributes:
        rows: range of the n-grams.
        contexts: range of their contexts.
        prefix: context of each n-gram, relative to the first context of the part, int64 [R].
        word: last word of each n-gram, int64 [R].
    """

    rows: slice
    contexts: slice
    prefix: npt.NDArray[np.int64]
    word: npt.NDArray[np.int64]

    @property
    def width(self) -> int:
        """Number of contexts."""
        return int(self.contexts.stop - self.contexts.start)


def parts(keys: Column, bits: int, contexts: int, rows: int) -> Iterator[Part]:
    """Split a level into parts of at most `rows` contexts and about `rows` n-grams.

    Args:
        keys: keys of the level, ascending [M[k]].
        bits: number of bits of a word in a key.
        contexts: M[k - 1].
        rows: number of n-grams read at a time; a context with more continuations is not split.
    """
    begin, first = 0, 0
    while first < contexts:
        # A context has at most 2**bits continuations, so at least one context is complete.
        part = keys[begin : begin + max(rows, (1 << bits) + 1)]
        last = min(contexts, first + rows)
        if begin + len(part) < len(keys):
            last = min(last, max(first + 1, int(part[-1]) >> bits))
        size = int(np.searchsorted(part, last << bits))
        part = part[:size]
        yield Part(slice(begin, begin + size), slice(first, last), (part >> bits) - first, part & ((1 << bits) - 1))
        begin, first = begin + size, last


def count_values(index: Column, size: int, store: Store, name: str, extra: int = -1) -> Column:
    """Count the occurrences of each of the values 0 to size - 1 in a column, int64 [size].

    Args:
        index: column of values.
        size: number of possible values.
        store: store for the counts.
        name: name of the new column.
        extra: value that is counted once more; -1 for none.
    """
    sink = store.sink(name, np.int64)
    step = max(1, store.block // 2)  # np.bincount makes as many counts again.
    for begin in range(0, size, step):
        counts = np.zeros(min(step, size - begin), np.int64)
        for part in slices(len(index), store.rows):
            values = index[part]
            if size > step:
                values = values[(values >= begin) & (values < begin + step)] - begin
            counts += np.bincount(values, minlength=len(counts))
        if begin <= extra < begin + len(counts):
            counts[extra - begin] += 1
        sink.append(counts)
    return sink.finish()


def slices(length: int, rows: int) -> Iterator[slice]:
    """Split a range into slices of at most `rows`."""
    return (slice(begin, min(begin + rows, length)) for begin in range(0, length, rows))
