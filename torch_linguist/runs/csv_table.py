"""CSV tables that grow by a row at a time and are whole after each."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch_linguist.runs.files import whole_file


class Table:
    """Appends rows to a CSV file; each row is on disk when `add` returns.

    Args:
        path: of the file; an old one is replaced unless `append`.
        columns: names of the columns.
        append: whether rows are added to those that a file already holds.
    """

    def __init__(self, path: Path, columns: Sequence[str], append: bool = False) -> None:
        self._path = path
        self._columns = list(columns)
        self.rows: list[dict[str, object]] = []
        if not (append and path.is_file()):
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow(self._columns)

    def add(self, row: Mapping[str, object]) -> None:
        """Writes a row; a column it lacks stays empty.

        Raises:
            KeyError: the row has a column that the table has not.
        """
        unknown = set(row) - set(self._columns)
        if unknown:
            raise KeyError(f"no such columns: {sorted(unknown)}")
        self.rows.append(dict(row))
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([_cell(row.get(column)) for column in self._columns])

    def sync(self) -> None:
        """Waits until the rows are on the disk: a checkpoint must not outlast them."""
        with self._path.open("ab") as file:
            os.fsync(file.fileno())


def drop_rows_after(path: Path, step: int, most: int | None = None) -> None:
    """Removes the rows of updates that a resumed training will do again, and a row that was cut off.

    Args:
        path: of a CSV file whose first column is the update; nothing happens where it is not there.
        step: the last update that is kept.
        most: how many rows are kept at most; None for all up to that update.
    """
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines(keepends=True)
    rows = list(csv.reader(line for line in lines if line.endswith("\n")))
    if not rows:
        path.unlink()
        return
    kept = [row for row in rows[1:] if len(row) == len(rows[0]) and row[0].isdigit() and int(row[0]) <= step]
    ending = "\r\n" if lines[0].endswith("\r\n") else "\n"
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=ending).writerows(rows[:1] + kept[:most])


def _cell(value: object) -> object:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else value
