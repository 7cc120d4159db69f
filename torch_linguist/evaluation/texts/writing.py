"""Writing of rows one by one: TSV, CSV, JSON lines or Parquet."""

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.runs.csv_table import defused
from torch_linguist.runs.files import finite

FORMATS = ("tsv", "jsonl", "csv", "parquet")

FLUSHED_ROWS = 512
"""Rows that are collected before they are written to a file of text."""

ROW_GROUP = 8192
"""Rows that are collected before they are written to a Parquet file."""


class RowWriter(Protocol):
    """Writer of rows."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one row; the first row names the columns."""


class TextRowWriter:
    """Writes rows as lines of text; `rows` counts them.

    Args:
        file: file to write to.
        form: `tsv`, `csv` or `jsonl`.
        path: path of the file, if `cut` shall be possible.
    """

    def __init__(self, file: IO[str], form: str, path: Path | None = None) -> None:
        self._file, self._form, self._path = file, form, path
        self.rows = self.kept_rows = self._kept_bytes = 0
        self._csv = csv.writer(file, lineterminator="\n")

    def write(self, row: Mapping[str, Any]) -> None:
        if self._form == "jsonl":
            self._file.write(json.dumps(finite(dict(row)), ensure_ascii=False, default=str) + "\n")
        else:
            if self.rows == 0:
                self._line(list(row))
            self._line([_cell(value) for value in row.values()])
        self.rows += 1
        if self._path is not None and self.rows % FLUSHED_ROWS == 0:
            self._file.flush()
            self.kept_rows, self._kept_bytes = self.rows, self._path.stat().st_size

    def cut(self) -> None:
        """Shorten the closed file, after a failure, to the rows that were written whole: `kept_rows`."""
        if self._path is not None and self._path.is_file():
            os.truncate(self._path, self._kept_bytes)

    def _line(self, cells: Sequence[str]) -> None:
        if self._form == "csv":
            self._csv.writerow(map(defused, cells))
            return
        line = "\t".join(cells)
        if line.count("\t") >= len(cells) or "\n" in line:
            line = "\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in cells)
        self._file.write(line + "\n")


class ParquetRowWriter:
    """Writes rows to a Parquet file, several thousand at a time; `rows` counts them."""

    def __init__(self, path: Path) -> None:
        self._path, self.rows = path, 0
        self._pending: list[dict[str, Any]] = []
        self._writer: Any = None

    def write(self, row: Mapping[str, Any]) -> None:
        self._pending.append(dict(row))
        self.rows += 1
        if len(self._pending) >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the pending rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._pending:
            return
        schema = None if self._writer is None else self._writer.schema
        table = pa.Table.from_pylist(self._pending, schema=schema)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)
        self._pending.clear()

    def close(self) -> None:
        """Write the pending rows and close the file."""
        self.flush()
        if self._writer is not None:
            self._writer.close()


@contextmanager
def row_writer(form: str, to: Path | None, standard_output: IO[str]) -> Iterator[RowWriter]:
    """Open a writer of rows.

    Args:
        form: one of `FORMATS`.
        to: path of the file; None for standard output.
        standard_output: stream to write to without a file.

    Raises:
        ConfigError: there is no such format, or Parquet is requested without a file.
        LinguistError: the file cannot be written; the message says how many rows it holds.
    """
    if form not in FORMATS:
        raise ConfigError(f"--format={form}: must be one of {', '.join(FORMATS)}")
    if form == "parquet":
        if to is None:
            raise ConfigError("--format=parquet: needs a file; give one by --to FILE")
        parquet = ParquetRowWriter(to)
        try:
            yield parquet
            parquet.close()
        except OSError as error:
            if error.filename not in (None, str(to)):
                raise
            raise _full(to, parquet.rows, error) from error
    elif to is None:
        yield TextRowWriter(standard_output, form)
        standard_output.flush()
    else:
        lines: TextRowWriter | None = None
        try:
            with to.open("w", encoding="utf-8", newline="") as file:
                lines = TextRowWriter(file, form, to)
                yield lines
        except OSError as error:
            if lines is None or error.filename not in (None, str(to)):
                raise
            lines.cut()
            raise _full(to, lines.kept_rows, error) from error


def _full(to: Path, rows: int, error: OSError) -> LinguistError:
    reason = error.strerror or " ".join(str(error).split())
    return LinguistError(f"{to}: cannot be written ({reason}) after {rows:,} rows; make room and run it again")


def _cell(value: Any) -> str:
    if type(value) is float:
        return f"{value:.8g}"
    if isinstance(value, list | dict | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)
