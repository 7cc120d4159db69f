"""Lines and documents of text files, streamed, with errors that name the place."""

import codecs
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch_linguist.data.corpora.corpus import digest
from torch_linguist.data.corpora.file_formats import HEAD, foreign_format, is_cr_only, marked_encoding
from torch_linguist.errors import DataError

CONTENT_HASH_LIMIT = 64 * 2**20
"""Total size in bytes up to which fingerprints use the content of files; above it, path, size and modification time."""

DOCUMENT_CHARACTERS = 2**20
"""Length of the documents that a longer file is cut into, to bound the memory."""


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    r"""Yield the lines of a file without their line ends.

    Lines end in ``\n``, ``\r\n``, or ``\r`` if the file has no other line end. Other line ends of Unicode stay inside a
    line.

    Args:
        path: file; decompressed if its name ends in `.gz`.
        encoding: encoding of the file; a byte-order mark overrides it.

    Raises:
        DataError: the file cannot be read, is no text, or is not in this encoding.
    """
    try:
        with _open_bytes(path) as raw:
            head = raw.read(HEAD)
            raw.seek(0)
            codec = marked_encoding(head) or encoding
            if found := foreign_format(head, codec):
                raise DataError(f"{path}: is {found}")
            end = "\r" if is_cr_only(head) else "\n"
            with io.TextIOWrapper(raw, encoding=codec, newline=end) as file:
                for line in file:
                    yield line.removesuffix(end).removesuffix("\r")
    except UnicodeError as error:
        raise DataError(
            f"{path}: line {_undecodable_line(path, codec)} is not text in {encoding}; "
            "name the file's encoding, such as data.encoding=latin-1"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the gzip file is broken ({error}); download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check data.path") from error


def group_lines(lines: Iterator[str]) -> Iterator[str]:
    """Join lines into texts of bounded length; a newline ends each line."""
    pending: list[str] = []
    characters = 0
    for line in lines:
        pending.append(line)
        characters += len(line) + 1
        if characters >= DOCUMENT_CHARACTERS:
            yield "\n".join([*pending, ""])
            pending, characters = [], 0
    if pending:
        yield "\n".join([*pending, ""])


def files_fingerprint(paths: Sequence[Path]) -> str:
    """Return a fingerprint of files: of their content, or of path, size and modification time if they are large.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        by_content = sum(path.stat().st_size for path in paths) <= CONTENT_HASH_LIMIT
        return digest([_content_hash(path) if by_content else _change_hash(path) for path in paths])
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror or error}); check data.path") from error


def check_encoding(encoding: str) -> str:
    """Return the name of an encoding, or raise a DataError if Python knows no such encoding of text."""
    try:
        "".encode(encoding)
    except LookupError:
        raise DataError(f"data.encoding={encoding}: no such encoding; try utf-8, latin-1 or cp1252") from None
    return encoding


def _open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _content_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _change_hash(path: Path) -> str:
    status = path.stat()
    return digest(str(path.resolve()), status.st_size, status.st_mtime_ns)


def _undecodable_line(path: Path, codec: str) -> int:
    """Return the number of the first line that cannot be decoded."""
    decoder = codecs.getincrementaldecoder(codec)()
    lines = 1
    with _open_bytes(path) as file:
        while True:
            block = file.read(2**16)
            pending, _ = decoder.getstate()
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                sound = (pending + block)[: error.start]
                return lines + sound.decode(codec, errors="ignore").count("\n")
            lines += text.count("\n")
            if not block:
                return lines
