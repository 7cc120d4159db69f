"""Rows of .jsonl, .csv, .tsv, .parquet and .arrow files as documents, streamed, with errors that name the place."""

import csv
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch_linguist.data.corpora.corpus import Document, MetadataValue
from torch_linguist.data.corpora.reading import read_lines
from torch_linguist.data.corpora.source_files import table_suffix
from torch_linguist.errors import DataError

_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d{1,30})?([eE][-+]?\d{1,3})?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WHOLE_NUMBERS = range(-(2**63), 2**63)
_ROWS = 256


def read_documents(path: Path, text_column: str, encoding: str = "utf-8") -> Iterator[Document]:
    """Yield the rows of a table as documents: one column is the text, all other columns are metadata.

    Args:
        path: .jsonl (or .json with an object a line), .csv, .tsv, each also with .gz; .parquet or .arrow.
        text_column: name of the column with the text. A row without a value there is an empty document.
        encoding: encoding of .jsonl, .csv and .tsv.

    Raises:
        DataError: the file cannot be read, is damaged, or has no such column.
    """
    suffix = table_suffix(path)
    if suffix in (".parquet", ".arrow"):
        rows = _binary_rows(path, suffix)
    elif suffix == ".csv":
        rows = _csv_rows(path, encoding)
    elif suffix == ".tsv":
        rows = _named_rows(path, ((line.split("\t"), number) for number, line in _lines(path, encoding)))
    else:
        rows = _json_rows(path, encoding)
    return row_documents(rows, text_column, str(path))


def row_documents(
    rows: Iterable[Mapping[str, Any]], text_column: str, place: str, first: int = 1
) -> Iterator[Document]:
    r"""Yield a document for each row. Line ends become ``\n``; a row without text is an empty document.

    Args:
        rows: values by column.
        text_column: name of the column with the text.
        place: source of the rows, for error messages.
        first: number of the first row.

    Raises:
        DataError: no row has such a column, or a value of it is no text.
    """
    found, names = False, dict[str, None]()
    number = first - 1
    for number, row in enumerate(rows, start=first):
        found = found or text_column in row
        if not found:
            names |= dict.fromkeys(map(str, row))
        yield _document(row, text_column, f"{place}, row {number}")
    if number >= first and not found:
        raise DataError(
            f"data.text_column={text_column}: {place}, row {first} has no such column; there are {', '.join(names)}"
        )


def _document(row: Mapping[str, Any], text_column: str, place: str) -> Document:
    text = row.get(text_column)
    if text is not None and not isinstance(text, str):
        raise DataError(
            f"data.text_column={text_column}: {place} holds {type(text).__name__} there and no text; "
            f"choose another of {', '.join(map(str, row))}"
        )
    if text and not text.isascii() and _SURROGATE.search(text):
        raise DataError(
            f"{place}: holds half a surrogate pair (\\ud800 to \\udfff), which is not a character; correct the text"
        )
    if text and "\r" in text:
        text = text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")
    metadata = {_clean(str(name)): _plain(value) for name, value in row.items() if name != text_column}
    return Document(text or "", metadata)


def _plain(value: Any) -> MetadataValue:
    if isinstance(value, str):
        return _clean(value)
    if value is None or isinstance(value, float | bool):
        return value
    if isinstance(value, int):
        return value if value in _WHOLE_NUMBERS else str(value)
    if isinstance(value, list | dict):
        return _clean(json.dumps(value, ensure_ascii=False, default=str))
    return _clean(str(value))


def _clean(text: str) -> str:
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(read_lines(path, encoding), start=1) if line.strip("\r"))


def _json_rows(path: Path, encoding: str) -> Iterator[Mapping[str, Any]]:
    for number, line in _lines(path, encoding):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except RecursionError:
            raise DataError(f"{path}: line {number} is nested too deeply; it must hold one plain object") from None
        except ValueError as error:
            raise DataError(f"{path}: line {number} is not JSON ({error}); each line must hold one object") from error
        if not isinstance(row, dict):
            raise DataError(f'{path}: line {number} is not a JSON object; it must look like {{"text": "..."}}')
        yield row


def _csv_rows(path: Path, encoding: str) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader((f"{line}\n" for line in read_lines(path, encoding)), strict=True)

    def rows() -> Iterator[tuple[list[str], int]]:
        begin = 1
        while True:
            begin = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error):
                    raise DataError(
                        f"{path}: the row that begins on line {begin} opens a quotation mark and never closes it"
                    ) from error
                raise DataError(
                    f"{path}: line {reader.line_num} is not CSV ({error}); double quotation marks inside quoted text"
                ) from error
            yield row, reader.line_num

    return _named_rows(path, rows())


def _named_rows(path: Path, rows: Iterator[tuple[Sequence[str], int]]) -> Iterator[Mapping[str, Any]]:
    """Yield rows by the names in the first row; metadata that look like numbers become numbers."""
    names, _ = next(rows, (None, 0))
    if names is None:
        raise DataError(f"{path}: the file is empty; it must begin with the names of its columns")
    if len(set(names)) < len(names):
        doubled = next(name for name in names if list(names).count(name) > 1)
        raise DataError(f"{path}: names the column {doubled!r} twice; give each column a different name")
    for row, line in rows:
        if not row:
            continue
        if len(row) != len(names):
            raise DataError(
                f"{path}: line {line} has {len(row)} fields, the first line names {len(names)}; "
                "put texts with commas or newlines in quotes"
            )
        yield _TextRow(zip(names, row, strict=True))


class _TextRow(dict[str, Any]):
    """Return a row in which metadata that look like numbers are numbers; the text is unchanged."""

    def items(self) -> Any:
        return [(name, _number(value)) for name, value in super().items()]


def _number(value: str) -> MetadataValue:
    if not value:
        return None
    if _NUMBER.fullmatch(value):
        return int(value) if value.lstrip("-").isdigit() else float(value)
    return value


def _binary_rows(path: Path, suffix: str) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_ROWS):
                    yield from batch.to_pylist()
            return
        with pa.memory_map(str(path)) as source:
            for batch in _arrow_batches(pa, source):
                for start in range(0, batch.num_rows, _ROWS):
                    yield from batch.slice(start, _ROWS).to_pylist()
    except (pa.ArrowException, OSError, ValueError, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as {suffix[1:]} ({reason}); download it again") from error


def _arrow_batches(pa: Any, source: Any) -> Iterator[Any]:
    """Yield batches of an Arrow file, or of an Arrow stream as `datasets` writes it."""
    try:
        file = pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        yield from pa.ipc.open_stream(source)
        return
    for index in range(file.num_record_batches):
        yield file.get_batch(index)
