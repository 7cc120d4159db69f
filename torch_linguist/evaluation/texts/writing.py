"""Writing of rows one by one: TSV, CSV, JSON lines or Parquet."""

import csv
import io
import itertools
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol, TextIO

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

    def write_columns(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write rows given as columns, each of one type."""


class TextRowWriter:
    """Writes rows as lines of text; `rows` counts them.

    Args:
        file: file to write to.
        form: `tsv`, `csv` or `jsonl`; `txt` for `write_line` only.
    """

    def __init__(self, file: IO[str], form: str) -> None:
        self._file, self._form, self._descriptor = file, form, _descriptor(file)
        self._is_regular = self._descriptor is not None and stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self.rows = self.kept_rows = self._kept_bytes = 0
        self._keep()
        self._names: list[str] = []
        self._csv = csv.writer(file, lineterminator="\n")

    def write(self, row: Mapping[str, Any]) -> None:
        if self._form == "jsonl":
            self._file.write(json.dumps(finite(dict(row)), ensure_ascii=False, default=str) + "\n")
        else:
            if self.rows == 0:
                self._name(row)
            elif list(row) != self._names:
                row = self._aligned(row)
            self._line([_cell(value) for value in row.values()])
        self._count(1)

    def write_line(self, text: str) -> None:
        """Write a text without newlines as a row."""
        self._file.write(text + "\n")
        self._count(1)

    def write_columns(self, columns: Mapping[str, Sequence[Any]]) -> None:
        if self._form == "tsv" and self.rows == 0:
            self._name(columns)
        if self._form != "tsv" or list(columns) != self._names:
            for row in _as_rows(columns):
                self.write(row)
            return
        rows = zip(*map(_printable, columns.values()), strict=True)
        template = "\t".join(_conversion(values) for values in columns.values()) + "\n"
        while part := list(itertools.islice(rows, FLUSHED_ROWS)):
            self._file.write("".join([template % row for row in part]))
            self._count(len(part))

    def _name(self, columns: Iterable[str]) -> None:
        self._names = list(columns)
        self._line(self._names)

    def _aligned(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the cells of a row in the order of the first row, empty ones where it has none."""
        if unknown := [name for name in row if name not in self._names]:
            raise ConfigError(
                f"--format={self._form}: row {self.rows + 1} has the column {unknown[0]}, which the first row lacks; "
                "choose --format jsonl"
            )
        return {name: row.get(name) for name in self._names}

    def _count(self, rows: int) -> None:
        before = self.rows
        self.rows += rows
        if self._is_regular and self.rows // FLUSHED_ROWS > before // FLUSHED_ROWS:
            self._file.flush()
            self._keep()

    def _keep(self) -> None:
        if self._descriptor is not None and self._is_regular:
            self.kept_rows, self._kept_bytes = self.rows, os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def cut(self) -> None:
        """Shorten the file, after a failure, to the rows that were written whole: `kept_rows`."""
        if self._descriptor is not None:
            if self._is_regular:
                os.ftruncate(self._descriptor, self._kept_bytes)
            # What the stream still holds is half a row, which must not follow.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._descriptor)

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
        self._names: dict[str, None] = {}
        self._writer: Any = None

    def write(self, row: Mapping[str, Any]) -> None:
        self._pending.append(dict(row))
        self.rows += 1
        if len(self._pending) >= ROW_GROUP:
            self.flush()

    def write_columns(self, columns: Mapping[str, Sequence[Any]]) -> None:
        for row in _as_rows(columns):
            self.write(row)

    def flush(self) -> None:
        """Write the pending rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._pending:
            return
        before = self.rows - len(self._pending)
        if self._writer is None:
            self._names = dict.fromkeys(name for row in self._pending for name in row)
        for number, row in enumerate(self._pending, before + 1):
            if unknown := [name for name in row if name not in self._names]:
                raise ConfigError(
                    f"--format=parquet: row {number} has the column {unknown[0]}, which the first {ROW_GROUP:,} rows "
                    "lack; choose --format jsonl"
                )
        columns = {name: [row.get(name) for row in self._pending] for name in self._names}
        try:
            table = pa.table(columns, schema=None if self._writer is None else self._writer.schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"--format=parquet: rows {before + 1:,} to {self.rows:,} have other types ({reason}); "
                "choose --format jsonl"
            ) from error
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)
        self._pending.clear()

    def close(self) -> None:
        """Write the pending rows and close the file."""
        self.flush()
        self.end()

    def end(self) -> None:
        """Close the file without the pending rows."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def row_writer(form: str, to: Path | None, standard_output: TextIO) -> Iterator[RowWriter]:
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
                parquet.end()
                raise
            if to.is_file() and not to.is_symlink():  # No device. Without its end, the file cannot be read.
                with suppress(OSError):
                    to.unlink()
            raise _full(to, 0, error) from error
        except BaseException:
            parquet.end()  # Without its end, the file cannot be read.
            raise
    else:
        with line_writer(to, standard_output, form) as lines:
            yield lines


@contextmanager
def line_writer(to: Path | None, standard_output: TextIO, form: str = "txt") -> Iterator[TextRowWriter]:
    """Open a writer of lines; see `row_writer` for the arguments and `TextRowWriter` for the forms."""
    if to is None:
        with _buffered(standard_output) as file, _whole_rows(file, form, "standard output") as lines:
            yield lines
    else:
        with to.open("w", encoding="utf-8", newline="") as file, _whole_rows(file, form, str(to)) as lines:
            yield lines


@contextmanager
def _whole_rows(file: IO[str], form: str, name: str) -> Iterator[TextRowWriter]:
    """Write rows as text; if the disk is full, leave whole rows and say how many."""
    lines = TextRowWriter(file, form)
    try:
        yield lines
        file.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.filename is not None:
            raise
        lines.cut()
        raise _full(name, lines.kept_rows, error) from error


@contextmanager
def _buffered(stream: TextIO) -> Iterator[IO[str]]:
    """Yield a stream, or a buffered one to its file if it is unbuffered (`python -u`) and so writes half rows."""
    if not isinstance(getattr(stream, "buffer", None), io.RawIOBase):
        yield stream
        return
    with open(stream.fileno(), "w", encoding=stream.encoding, errors=stream.errors, closefd=False) as file:
        yield file


def _descriptor(file: IO[str]) -> int | None:
    """Return the descriptor of a stream; None for one in memory."""
    try:
        return file.fileno()
    except (OSError, AttributeError):
        return None


def _full(name: object, rows: int, error: OSError) -> LinguistError:
    reason = error.strerror or " ".join(str(error).split())
    return LinguistError(f"{name}: cannot be written ({reason}) after {rows:,} rows; make room and run it again")


def _as_rows(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


def _printable(values: Sequence[Any]) -> Sequence[Any]:
    """Return the cells of a column, texts without tabs and newlines."""
    if not isinstance(values[0], str) or ("\t" not in (joined := "".join(values)) and "\n" not in joined):
        return values
    return [text.replace("\t", " ").replace("\n", " ") for text in values]


def _conversion(values: Sequence[Any]) -> str:
    return "%.8g" if type(values[0]) is float else "%s"


def _cell(value: Any) -> str:
    if type(value) is float:
        return f"{value:.8g}"
    if isinstance(value, list | dict | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)
