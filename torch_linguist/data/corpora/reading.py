"""Lines and documents out of text files, streamed, with errors that name the place."""

import codecs
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch_linguist.data.corpora.corpus import SPLITS, digest
from torch_linguist.errors import DataError

CONTENT_HASH_LIMIT = 64 * 2**20
"""Files of up to so many bytes together are fingerprinted by content, larger ones by path, size and time of change."""

DOCUMENT_CHARACTERS = 2**20
"""A longer file becomes several documents, so that none has to be held in memory as a whole."""

_SPLIT_NAMES = {"train": ("train",), "valid": ("valid", "validation", "val", "dev"), "test": ("test",)}
_SPLIT_SUFFIXES = (
    ".txt",
    ".tokens",
    ".txt.gz",
    ".jsonl",
    ".jsonl.gz",
    ".json.gz",
    ".csv",
    ".csv.gz",
    ".tsv",
    ".parquet",
    ".arrow",
)


def find_split_files(folder: Path) -> dict[str, Path] | None:
    """The files of a folder with ready splits: `train.txt`, `wiki.train.tokens`, `validation.parquet` and so on.

    Args:
        folder: where to look.

    Returns:
        The file of each split; None where a split has no file.
    """
    files = {}
    for split in SPLITS:
        names = [f"{name}{suffix}" for name in _SPLIT_NAMES[split] for suffix in _SPLIT_SUFFIXES]
        names += [f"wiki.{split}.tokens", f"wiki.{split}.raw"]
        found = [folder / name for name in names if (folder / name).is_file()]
        if not found:
            return None
        files[split] = found[0]
    return files


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    r"""Lines of a file, without their ``\n``; other line ends of Unicode stay inside a line.

    Args:
        path: the file; it is unpacked where its name ends in `.gz`.
        encoding: its encoding; a byte order mark of UTF-8 is skipped.

    Raises:
        DataError: the file cannot be read, or is not text in this encoding.
    """
    codec = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    try:
        with _open_bytes(path) as raw, io.TextIOWrapper(raw, encoding=codec, newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n")
    except UnicodeError as error:
        line_number = _undecodable_line(path, codec)
        raise DataError(
            f"{path}: line {line_number} is not text in {encoding}; "
            "name the file's encoding, such as data.encoding=latin-1"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the gzip file is broken ({error}); get the file anew") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check data.path") from error


def group_lines(lines: Iterator[str]) -> Iterator[str]:
    """Joins lines to texts of bounded length, each line closed by a newline."""
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
    """Fingerprint of files: of their content, or of path, size and time of change where they are large.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        by_content = sum(path.stat().st_size for path in paths) <= CONTENT_HASH_LIMIT
        return digest([_content_hash(path) if by_content else _change_hash(path) for path in paths])
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror or error}); check data.path") from error


def check_encoding(encoding: str) -> str:
    """Returns the name, or raises a DataError where Python knows no such encoding."""
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise DataError(f"data.encoding={encoding}: no such encoding; try utf-8, latin-1 or cp1252") from None
    return encoding


def _open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")


def _content_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _change_hash(path: Path) -> str:
    status = path.stat()
    return digest(str(path.resolve()), status.st_size, status.st_mtime_ns)


def _undecodable_line(path: Path, codec: str) -> int:
    """Number of the first line with a byte that cannot be decoded."""
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
