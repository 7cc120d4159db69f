"""Texts from files and standard input, one row at a time, with their other columns."""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

from torch_linguist.errors import ConfigError, DataError

ERRORS = ("strict", "replace", "skip")
"""Handling of rows that cannot be read: raise an error, replace the wrong bytes, or leave the row out and count it."""

STANDARD_INPUT = "-"

CONTINUE = "--errors skip continues without it"

BLOCK_BYTES = 1 << 18
"""Bytes of lines that are decoded together."""


class Record(NamedTuple):
    """One text.

    Attributes:
        text: the text, without newlines.
        columns: other columns of its row.
    """

    text: str
    columns: Mapping[str, Any] = MappingProxyType({})


@dataclass
class RecordReader:
    """Reads texts from files, in order, holding a few thousand lines at a time.

    Attributes:
        files: paths, `-` for standard input. The suffix decides how a file is read; `.gz` files are unpacked.
        column: column of a table with the text.
        errors: `strict`, `replace` or `skip`.
        skip_empty: whether to leave out lines without text.
        skipped: rows left out because they could not be read.
        empty: lines left out because they hold no text.
    """

    files: Sequence[str]
    column: str = "text"
    errors: str = "strict"
    skip_empty: bool = False
    skipped: int = 0
    empty: int = 0

    def __post_init__(self) -> None:
        if self.errors not in ERRORS:
            raise ConfigError(f"--errors={self.errors}: must be one of {', '.join(ERRORS)}")

    def __iter__(self) -> Iterator[Record]:
        records = chain.from_iterable(map(self._read, self.files))
        return self._with_text(records) if self.skip_empty else records

    def _with_text(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            if record.text.strip():
                yield record
            else:
                self.empty += 1

    def _read(self, name: str) -> Iterator[Record]:
        suffix = "" if name == STANDARD_INPUT else Path(name.removesuffix(".gz")).suffix.lower()
        if suffix == ".parquet":
            return self._parquet(name)
        if suffix == ".jsonl":
            return self._json(name)
        if suffix in (".csv", ".tsv"):
            return self._csv(name, "\t" if suffix == ".tsv" else ",")
        return map(Record, map(itemgetter(1), self.lines(name)))

    def lines(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield the lines of a file, whatever its suffix, with their numbers."""
        return chain.from_iterable(self._blocks(name))

    def _blocks(self, name: str) -> Iterator[Iterator[tuple[int, str]]]:
        with ExitStack() as stack:
            try:
                raw: IO[bytes] = sys.stdin.buffer if name == STANDARD_INPUT else stack.enter_context(_opened(name))
                number = 0
                while block := raw.readlines(BLOCK_BYTES):
                    yield self._decoded_block(name, number, block)
                    number += len(block)
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from error

    def _decoded_block(self, name: str, number: int, block: list[bytes]) -> Iterator[tuple[int, str]]:
        """Return the lines of a block with their numbers; `number` lines were read before."""
        data = b"".join(block)
        if number and not (b"\0" in data or b"\r" in data):
            with suppress(UnicodeDecodeError):
                return enumerate(data.decode().removesuffix("\n").split("\n"), start=number + 1)
        return self._line_by_line(name, number, block)

    def _line_by_line(self, name: str, number: int, block: list[bytes]) -> Iterator[tuple[int, str]]:
        for place, line in enumerate(block, start=number + 1):
            text = self._decoded(name, place, line)
            if text is not None:
                yield place, text

    def _decoded(self, name: str, number: int, line: bytes) -> str | None:
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in line:
            self.refuse(f"{name}: line {number} holds zero bytes, as UTF-16 and binary files do; convert it to UTF-8")
            return None
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            if self.errors == "replace":
                return line.decode("utf-8", "replace")
            self.refuse(f"{name}: line {number} is not UTF-8 (byte {error.start}); --errors replace reads it anyway")
            return None

    def refuse(self, message: str) -> None:
        """Raise `DataError`, or count the row if rows are skipped."""
        if self.errors != "skip":
            raise DataError(message)
        self.skipped += 1

    def _json(self, name: str) -> Iterator[Record]:
        found, lacking = False, ""
        for number, line in self.lines(name):
            place = f"{name}: line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                self.refuse(f"{place} is not JSON ({error}); {CONTINUE}")
                continue
            if not isinstance(row, dict):
                self.refuse(f"{place} is not a JSON object; {CONTINUE}")
            elif self.column in row:
                found = True
                yield from self._row(row, place)
            else:
                lacking = lacking or self._lacking(row, place)
                self.refuse(f"{lacking}; {CONTINUE}" if found else lacking)
        if lacking and not found:  # Probably another column is meant.
            raise DataError(lacking)

    def _csv(self, name: str, delimiter: str) -> Iterator[Record]:
        csv.field_size_limit(2**31 - 1)
        lines = (f"{line}\n" for _, line in self.lines(name))
        rows = (
            csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            if delimiter == "\t"
            else csv.reader(lines, strict=True)
        )
        try:
            names = next(rows, None)
            if names is None:
                raise DataError(f"{name}: is empty; its first line must name the columns")
            for row in rows:
                place = f"{name}: line {rows.line_num}"
                if len(row) == len(names):
                    yield from self._row(dict(zip(names, row, strict=True)), place)
                elif row:
                    self.refuse(f"{place} has {len(row)} fields, the first line names {len(names)}; {CONTINUE}")
        except csv.Error as error:
            raise DataError(f"{name}: line {rows.line_num} is no CSV ({error})") from error

    def _parquet(self, name: str) -> Iterator[Record]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            with pq.ParquetFile(name) as file:
                for batch in file.iter_batches(batch_size=256):
                    for row in batch.to_pylist():
                        number += 1
                        yield from self._row(row, f"{name}: row {number}")
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{name}: cannot be read as Parquet ({' '.join(str(error).split())})") from error

    def _row(self, row: dict[str, Any], place: str) -> Iterator[Record]:
        if self.column not in row:
            raise DataError(self._lacking(row, place))
        text = row[self.column]
        if text is not None and not isinstance(text, str):
            self.refuse(f"--column={self.column}: {place} holds {type(text).__name__}, not text; {CONTINUE}")
            return
        others = {str(key): value for key, value in row.items() if key != self.column}
        yield Record(" ".join((text or "").splitlines()), others)

    def _lacking(self, row: Mapping[str, Any], place: str) -> str:
        columns = ", ".join(map(str, row))
        return f"--column={self.column}: {place} has no such column; it has {columns or 'none'}"


def _opened(name: str) -> IO[bytes]:
    path = Path(name).expanduser()
    return io.BufferedReader(gzip.open(path, "rb")) if name.endswith(".gz") else path.open("rb")


def plain_lines(name: str, errors: str = "strict") -> Iterator[str]:
    """Yield the lines of a file as text, whatever its suffix; `errors` as in `RecordReader`."""
    return (line for _, line in RecordReader([name], errors=errors).lines(name))
