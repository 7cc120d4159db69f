"""CSV tables that grow by a row at a time and are whole after each."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path


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


def _cell(value: object) -> object:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else value
