"""Columns in files are read in parts that fit into the memory of the threads together."""

from pathlib import Path

import numpy as np
import pytest

from torch_linguist.model.ngram.columns import WORKERS, DiskStore, FileColumn, Lookup, count_values
from torch_linguist.model.ngram.sorting import KeySearch


class WatchedColumn(FileColumn):
    """A column that records the longest range that was read."""

    longest = 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        found = super().__getitem__(rows)
        self.longest = max(self.longest, len(found))
        return found


@pytest.fixture
def column(tmp_path: Path) -> WatchedColumn:
    np.arange(0, 2000, 2, dtype=np.int64).tofile(tmp_path / "even")
    return WatchedColumn(tmp_path / "even", np.int64)


@pytest.mark.parametrize(("block", "longest"), [(1000, 1000), (100, 100 // WORKERS), (1, 1)])
def test_lookups_share_their_memory(column: WatchedColumn, block: int, longest: int) -> None:
    index = np.random.default_rng(1).integers(0, 1000, 50)
    assert Lookup(column, block)(index).tolist() == (2 * index).tolist()
    assert column.longest == longest


@pytest.mark.parametrize(("block", "longest"), [(1000, 1000), (100, 100 // WORKERS)])
def test_searches_share_their_memory(column: WatchedColumn, block: int, longest: int) -> None:
    queries = np.array([0, 1, 98, 100, 1998, 1999, 5000, -2])
    assert KeySearch(column, block)(queries).tolist() == [0, -1, 49, 50, 999, -1, -1, -1]
    assert column.longest == longest


@pytest.mark.parametrize("block", [1, 7, 64, 5000])
def test_counts_do_not_depend_on_the_block(tmp_path: Path, block: int) -> None:
    values = np.random.default_rng(2).integers(0, 60, 500)
    values.astype(np.int32).tofile(tmp_path / "values")
    column = FileColumn(tmp_path / "values", np.int32)
    (tmp_path / "store").mkdir()
    store = DiskStore(tmp_path / "store", rows=33, block=block)
    counted = count_values(column, 64, store, "counts", extra=3)
    assert counted[:].tolist() == (np.bincount(values, minlength=64) + (np.arange(64) == 3)).tolist()
