"""A person's own text: a file, a folder or a pattern of files; plain text, or tables with a column of texts."""

import glob
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path

from torch_linguist.data.corpora.corpus import Corpus, Document, check_blank_lines, digest, text_hash
from torch_linguist.data.corpora.reading import (
    check_encoding,
    files_fingerprint,
    find_split_files,
    group_lines,
    read_lines,
)
from torch_linguist.data.corpora.splitting import Splitter
from torch_linguist.data.corpora.tables import TABLE_SUFFIXES, read_documents, table_suffix
from torch_linguist.errors import DataError

_TEXT_SUFFIXES = (".txt", ".txt.gz")


class TextCorpus(Corpus):
    """Files of a person's own: plain text (also .gz), or .jsonl, .csv, .tsv, .parquet and .arrow with a text column.

    A row of a table is a document, its other columns are metadata. A text file is a document with the metadata `file`,
    and `part` where a long file makes several documents.

    A folder with `train`, `valid` and `test` (`train.txt`, `train.jsonl`, ...) holds ready splits. Otherwise rows and
    files are split as `Splitter` says; of one or two text files, the first lines train, then come those for
    validation, and the last ones test.
    """

    def __init__(
        self,
        path: str,
        valid_fraction: float = 0.05,
        test_fraction: float = 0.05,
        seed: int = 0,
        blank_lines: str = "keep",
        encoding: str = "utf-8",
        tokenized: bool | None = None,
        name: str = "text",
        text_column: str = "text",
        stratify: str | None = None,
        train_where: str | None = None,
        drop_duplicates: bool = False,
    ) -> None:
        """Finds the files; reads none of them yet.

        Args:
            path: a file, a folder (its text files, or else its tables, also those in folders below), or a pattern such
                as `books/*.txt`.
            valid_fraction: share of the documents, or of the lines of one or two text files, held out for validation.
            test_fraction: share held out for testing.
            seed: of the split.
            blank_lines: `keep` (each makes an ``<eos>``) or `drop`.
            encoding: of the files.
            tokenized: whether blanks already separate words and punctuation; None to detect it.
            name: of the corpus, in headers and folders.
            text_column: of tables.
            stratify: a metadata column whose values are spread over the splits alike.
            train_where: a condition such as `year<1900`: what meets it is for training and validation, the rest tests.
            drop_duplicates: of documents with the same text keep the first; from ready splits, drop training documents
                that are held out as well.

        Raises:
            DataError: there is no such file, a file is empty, or a value is out of its range.
        """
        self.splitter = Splitter(valid_fraction, test_fraction, seed, stratify, train_where, drop_duplicates)
        self.path = Path(path)
        self.valid_fraction = valid_fraction
        self.test_fraction = test_fraction
        self.blank_lines = check_blank_lines(blank_lines)
        self.encoding = check_encoding(encoding)
        self.tokenized = tokenized
        self.name = name
        self.text_column = text_column
        self.drop_duplicates = drop_duplicates
        self._split_files = find_split_files(self.path) if self.path.is_dir() else None
        self.files = list(self._split_files.values()) if self._split_files else _find_files(self.path)
        if self._split_files and (stratify or train_where):
            raise DataError(
                f"data.path={path}: has ready splits, so that data.stratify and data.train_where have no effect; "
                "leave them out, or rename the files"
            )

    def documents(self, split: str) -> Iterator[Document]:
        self.check_split(split)
        if self._split_files is not None:
            yield from self._ready_documents(self._split_files, split)
        elif self._by_lines:
            yield from self._line_documents(split)
        else:
            for own_split, documents in zip(self._assigned, self._units(), strict=True):
                if own_split == split:
                    yield from documents

    def fingerprint(self) -> str:
        settings = [*self.splitter.settings, self.encoding, self.tokenized, self.text_column]
        names = [self._relative(file) for file in self.files]
        return digest("text", names, files_fingerprint(self.files), settings)

    @property
    def _by_lines(self) -> bool:
        tables = any(table_suffix(file) for file in self.files)
        return len(self.files) < 3 and not tables and not self.splitter.looks_at_documents

    @cached_property
    def _assigned(self) -> list[str]:
        """The split of each unit, so that the same document never comes out in two splits."""
        return self.splitter.assign((_summary(documents) for documents in self._units()), self.name)

    def _units(self) -> Iterator[Iterator[Document]]:
        """What is dealt out to the splits: each row of a table, each text file with all its parts."""
        for file in self.files:
            if table_suffix(file):
                for document in read_documents(file, self.text_column, self.encoding):
                    yield iter((document,))
            else:
                yield self._file_documents(file, read_lines(file, self.encoding))

    def _ready_documents(self, files: dict[str, Path], split: str) -> Iterator[Document]:
        held_out = self._held_out if split == "train" and self.drop_duplicates else frozenset[int]()
        for document in self._documents_of(files[split]):
            if not held_out or text_hash(document.text) not in held_out:
                yield document

    @cached_property
    def _held_out(self) -> frozenset[int]:
        files = self._split_files or {}
        return frozenset(
            text_hash(document.text) for split in ("valid", "test") for document in self._documents_of(files[split])
        )

    def _documents_of(self, file: Path) -> Iterator[Document]:
        if table_suffix(file):
            return read_documents(file, self.text_column, self.encoding)
        return self._file_documents(file, read_lines(file, self.encoding))

    def _file_documents(self, file: Path, lines: Iterator[str]) -> Iterator[Document]:
        for part, text in enumerate(group_lines(line.removesuffix("\r") for line in lines)):
            yield Document(text, {"file": self._relative(file), "part": part})

    def _line_documents(self, split: str) -> Iterator[Document]:
        """The share of a split in the lines of all files, laid end to end."""
        begin, end = self._line_ranges[split]
        first = 0  # Number of the file's first line.
        for file, count in zip(self.files, self._line_counts, strict=True):
            own_begin, own_end = max(begin - first, 0), min(end - first, count)
            if own_begin < own_end:
                yield from self._file_documents(file, islice(read_lines(file, self.encoding), own_begin, own_end))
            first += count

    @cached_property
    def _line_counts(self) -> list[int]:
        return [sum(1 for _ in read_lines(file, self.encoding)) for file in self.files]

    @cached_property
    def _line_ranges(self) -> dict[str, tuple[int, int]]:
        count = sum(self._line_counts)
        if count < 3:
            raise DataError(
                f"data.path={self.path}: has {count} lines; it takes at least 3, one for each of train, valid and test"
            )
        test = min(max(1, round(count * self.test_fraction)), count - 2)
        valid = min(max(1, round(count * self.valid_fraction)), count - test - 1)
        train = count - valid - test
        return {"train": (0, train), "valid": (train, train + valid), "test": (train + valid, count)}

    def _relative(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix() if self.path.is_dir() else file.name


def _find_files(path: Path) -> list[Path]:
    """The files that a path means, sorted.

    Raises:
        DataError: there are none, or one of them is empty.
    """
    if path.is_dir():
        everything = sorted(file for file in path.rglob("*") if file.is_file())
        files = [file for file in everything if file.name.endswith(_TEXT_SUFFIXES)]
        # Tables beside text files are taken for notes about them.
        files = files or [file for file in everything if table_suffix(file)]
        if not files:
            raise DataError(
                f"data.path={path}: the folder has no .txt file; name a file, or a pattern such as {path}/*.md "
                f"(tables: {', '.join(TABLE_SUFFIXES)})"
            )
    elif path.is_file():
        files = [path]
    else:
        files = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())  # noqa: PTH207
        if not files:
            raise DataError(
                f"data.path={path}: no such file or folder; give the path of a text file or a folder of .txt files"
            )
    for file in files:
        if file.stat().st_size == 0:
            raise DataError(f"data.path={file}: the file is empty; give it text, or take it away")
    return files


def _summary(documents: Iterator[Document]) -> Document:
    """A document that stands for all parts of a file: their metadata, and a text that differs where theirs do."""
    first = next(documents, Document(""))
    rest = [str(text_hash(document.text)) for document in documents]
    return Document("\n".join([first.text, *rest]), first.metadata) if rest else first
