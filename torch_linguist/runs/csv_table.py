"""CSV tables: growing row by row, or written as a whole."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch_linguist.runs.files import whole_file, writing


class Table:
    """A CSV file that grows row by row; each row is in the file when `add` returns.

    Args:
        path: path of the file; an existing one is replaced unless `append`.
        columns: names of the columns.
        append: whether to keep the rows of an existing file.
    """

    def __init__(self, path: Path, columns: Sequence[str], append: bool = False) -> None:
        self._path = path
        self._columns = list(columns)
        self.rows: list[dict[str, object]] = []
        if not (append and path.is_file()):
            with writing(path), path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow(self._columns)

    def add(self, row: Mapping[str, object]) -> None:
        """Append a row; missing columns stay empty.

        Raises:
            KeyError: the row has a column that the table does not have.
        """
        self._check(row)
        self.rows.append(dict(row))
        with writing(self._path), self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([_cell(row.get(column)) for column in self._columns])

    def update_last(self, cells: Mapping[str, object]) -> None:
        """Set cells of the last row of the file, which is written as a whole; the other cells stay.

        If the file was deleted or emptied meanwhile, they become a row.

        Raises:
            KeyError: the table does not have such a column.
        """
        self._check(cells)
        rows = []
        if self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))
        if len(rows) < 2:
            self.add(cells)
            return
        for column, value in cells.items():
            rows[-1][self._columns.index(column)] = str(_cell(value))
        if self.rows:
            self.rows[-1] |= cells
        write_rows(self._path, rows)

    def sync(self) -> None:
        """Wait until the rows are on disk, before a checkpoint that relies on them."""
        with writing(self._path), self._path.open("ab") as file:
            os.fsync(file.fileno())

    def _check(self, row: Mapping[str, object]) -> None:
        unknown = set(row) - set(self._columns)
        if unknown:
            raise KeyError(f"no such columns: {sorted(unknown)}")


def drop_rows_after(path: Path, step: int, most: int | None = None) -> int | None:
    """Remove the rows of updates that a resumed training repeats, and a row that was cut off.

    Args:
        path: path of a CSV file whose first column is the update; it may be missing.
        step: last update to keep.
        most: largest number of rows to keep; None for all up to `step`.

    Returns:
        Update of the last row that is left; None if there is none.
    """
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines(keepends=True)
    rows = list(csv.reader(line for line in lines if line.endswith("\n")))
    if not rows:
        path.unlink()
        return None
    kept = [row for row in rows[1:] if len(row) == len(rows[0]) and row[0].isdigit() and int(row[0]) <= step][:most]
    ending = "\r\n" if lines[0].endswith("\r\n") else "\n"
    write_rows(path, rows[:1] + kept, ending)
    return int(kept[-1][0]) if kept else None


def write_rows(path: Path, rows: Iterable[Iterable[object]], ending: str = "\r\n") -> None:
    """Write a CSV file as a whole or not at all.

    Args:
        path: path of the file.
        rows: rows, the header included.
        ending: line ending.
    """
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=ending).writerows(map(defused, row) for row in rows)


def defused(value: Any) -> Any:
    """Return a cell of a CSV file; a text that a spreadsheet would run as a formula gets an apostrophe before it.

    Such a text begins with one of `= + - @`, a tab or a carriage return, and is not a number.
    """
    return f"'{value}" if isinstance(value, str) and value[:1] in FORMULA_SIGNS and not _is_number(value) else value


FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return len(text) == 1
    return True


def _cell(value: object) -> object:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else defused(value)
