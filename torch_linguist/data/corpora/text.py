"""A user's own text: a file, a folder or a pattern of files; plain text, or tables with a column of texts."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from torch_linguist.data.corpora.corpus import HELD_OUT, Corpus, Document, check_blank_lines, digest, text_hash
from torch_linguist.data.corpora.dealing import DealtFiles
from torch_linguist.data.corpora.reading import check_encoding, files_fingerprint
from torch_linguist.data.corpora.source_files import find_source_files
from torch_linguist.data.corpora.splitting import Splitter
from torch_linguist.data.corpora.text_files import TextFiles
from torch_linguist.errors import DataError


class TextCorpus(Corpus):
    r"""Files of plain text (also .gz), or .jsonl, .csv, .tsv, .parquet and .arrow files with a text column.

    A row of a table is a document, its other columns are metadata. A text file is a document with the metadata `file`,
    and `part` if a long file makes several documents.

    Files with split names (`train.txt`, `ptb.valid.txt`, `test/0.jsonl`) are ready splits. Otherwise rows and files are
    dealt out by `Splitter`; with one or two text files, the first lines train, the next ones validate, the last ones
    test. A split that is missing beside `train` is taken from it in the same way.

    Example:
        >>> _ = Path("verse.txt").write_text("one line\n" * 40)
        >>> verse = TextCorpus("verse.txt", valid_fraction=0.1, test_fraction=0.1)
        >>> next(iter(verse.documents("train"))).text.count("\n")
        32
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
        ready_splits: bool | None = None,
    ) -> None:
        """Find the files; reading starts later.

        Args:
            path: file, folder (with its subfolders), or a pattern such as `books/*.txt`; of several formats in a
                folder, text files are read rather than tables.
            valid_fraction: share of the documents, or of the lines of one or two text files, held out for validation.
            test_fraction: share held out for testing.
            seed: random seed of the split.
            blank_lines: `keep` (each makes an ``<eos>``) or `drop`.
            encoding: encoding of the files; a byte-order mark overrides it.
            tokenized: whether blanks already separate words and punctuation; None to detect it.
            name: name of the corpus in headers and folders.
            text_column: column of the texts in tables.
            stratify: metadata column whose values are spread evenly over the splits.
            train_where: condition such as `year<1900`: documents that meet it train and validate, the rest test.
            drop_duplicates: whether of documents with the same text only the first is kept; with ready splits, training
                documents that are held out as well are dropped.
            ready_splits: whether file names decide the splits; None if they are named so.

        Raises:
            DataError: there is no such file, the split names are incomplete, or a value is out of its range.
        """
        self.splitter = Splitter(valid_fraction, test_fraction, seed, stratify, train_where, drop_duplicates)
        self.source = find_source_files(path, ready_splits)
        self.blank_lines = check_blank_lines(blank_lines)
        self.encoding = check_encoding(encoding)
        self.tokenized = tokenized
        self.name = name
        self.text_column = text_column
        self.drop_duplicates = drop_duplicates
        ready = self.source.splits or {}
        self._missing = tuple(split for split in HELD_OUT if split not in ready)
        if ready and (train_where or (stratify and not self._missing)):
            raise DataError(
                f"data.path={path}: has ready splits, so that data.stratify and data.train_where have no effect; "
                "leave them out, or set data.ready_splits=false"
            )
        self._reader = TextFiles(self.source, self.encoding, text_column)
        pool = ready.get("train", self.source.files)
        self._dealt = DealtFiles(self._reader, pool, self.splitter, self._missing, name) if self._missing else None

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        return list(self.source.files)

    def documents(self, split: str) -> Iterator[Document]:
        self.check_split(split)
        ready = self.source.splits or {}
        if self._dealt is not None and (split == "train" or split in self._missing):
            documents = self._dealt.documents(split)
        else:
            documents = self._reader.documents(ready[split])
        held_out = self._held_out if split == "train" and self.drop_duplicates else frozenset[int]()
        for document in documents:
            if not held_out or text_hash(document.text) not in held_out:
                yield document

    def fingerprint(self) -> str:
        settings = [*self.splitter.settings, self.encoding, self.tokenized, self.text_column]
        names = {
            split: [self.source.relative(file) for file in files]
            for split, files in (self.source.splits or {"": self.files}).items()
        }
        return digest("text", names, files_fingerprint(self.files), settings)

    def sources(self) -> dict[str, str]:
        ready = {split: self.source.listed(files) for split, files in (self.source.splits or {}).items()}
        if self._dealt is None:
            return ready
        shares = self._dealt.shares()
        if not ready:
            return {"files": self.source.listed(self.files), "splits": shares}
        return ready | dict.fromkeys(self._missing, shares)

    def notes(self) -> list[str]:
        notes = list(self.source.notes)
        if self._dealt is not None and self.source.splits is not None:
            notes += [f"no {split} among the ready splits: {self._dealt.shares()}" for split in self._missing]
        return notes

    @cached_property
    def _held_out(self) -> frozenset[int]:
        """Hashes of the documents of the ready held-out splits."""
        files = [file for split in HELD_OUT for file in (self.source.splits or {}).get(split, [])]
        return frozenset(text_hash(document.text) for document in self._reader.documents(files))
