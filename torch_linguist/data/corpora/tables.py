"""Rows of .jsonl, .csv, .tsv, .parquet and .arrow files as documents, streamed, with errors that name the place."""

import csv
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch_linguist.data.corpora.corpus import Document, MetadataValue
from torch_linguist.data.corpora.reading import read_lines
from torch_linguist.errors import DataError

TABLE_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
_ROWS = 256


def table_suffix(path: Path) -> str | None:
    """The kind of a table by its name, `.gz` left out; None for any other file."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    return suffix if suffix in TABLE_SUFFIXES else None


def read_documents(path: Path, text_column: str, encoding: str = "utf-8") -> Iterator[Document]:
    """The rows of a table: one column is the text, every other one metadata.

    Args:
        path: .jsonl (or .json with an object a line), .csv, .tsv, each also with .gz; .parquet or .arrow.
        text_column: name of the column with the text; a row without a value there is an empty document.
        encoding: of .jsonl and .csv.

    Raises:
        DataError: the file cannot be read, is damaged, or has no such column.
    """
    suffix = table_suffix(path)
    if suffix in (".parquet", ".arrow"):
        rows = _binary_rows(path, suffix)
    elif suffix in (".csv", ".tsv"):
        rows = _csv_rows(path, encoding, "\t" if suffix == ".tsv" else ",")
    else:
        rows = _json_rows(path, encoding)
    for number, row in enumerate(rows, start=1):
        yield row_document(row, text_column, f"{path}: row {number}")


def row_document(row: Mapping[str, Any], text_column: str, place: str) -> Document:
    """A document out of a row.

    Raises:
        DataError: there is no such column, or it holds no text.
    """
    if text_column not in row:
        raise DataError(
            f"data.text_column={text_column}: {place} has no such column; there are {', '.join(map(str, row))}"
        )
    text = row[text_column]
    if text is not None and not isinstance(text, str):
        raise DataError(
            f"data.text_column={text_column}: {place} holds {type(text).__name__} there and no text; "
            f"choose another of {', '.join(map(str, row))}"
        )
    metadata = {str(name): _plain(value) for name, value in row.items() if name != text_column}
    return Document(text or "", metadata)


def _plain(value: Any) -> MetadataValue:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _json_rows(path: Path, encoding: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(read_lines(path, encoding), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: line {number} is no JSON ({error}); it must hold one object a line") from error
        if not isinstance(row, dict):
            raise DataError(f'{path}: line {number} is no JSON object; it must look like {{"text": "..."}}')
        yield row


def _csv_rows(path: Path, encoding: str, delimiter: str) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader((f"{line}\n" for line in read_lines(path, encoding)), delimiter=delimiter)
    names = next(rows, None)
    if names is None:
        raise DataError(f"{path}: the file is empty; it must begin with the names of its columns")
    try:
        for row in rows:
            if not row:
                continue
            if len(row) != len(names):
                raise DataError(
                    f"{path}: line {rows.line_num} has {len(row)} fields, the first line names {len(names)}; "
                    "put texts with commas or newlines in quotes"
                )
            yield _CsvRow(zip(names, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: line {rows.line_num} is no CSV ({error})") from error


class _CsvRow(dict[str, Any]):
    """A row whose metadata are numbers where they look like numbers; the text stays what it is."""

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
    except (pa.ArrowException, OSError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as {suffix[1:]} ({reason}); get the file anew") from error


def _arrow_batches(pa: Any, source: Any) -> Iterator[Any]:
    """Batches of an Arrow file, or of an Arrow stream, which is what `datasets` writes."""
    try:
        file = pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        yield from pa.ipc.open_stream(source)
        return
    for index in range(file.num_record_batches):
        yield file.get_batch(index)
