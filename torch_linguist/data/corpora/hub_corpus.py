"""A corpus of the Hugging Face hub with one column of texts: One Billion Word, text8, C4, or any other."""

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from torch_linguist.data.corpora.corpus import Corpus, Document, check_blank_lines, checked_counts, digest
from torch_linguist.data.corpora.hub import hub_fingerprint, hub_rows
from torch_linguist.data.corpora.source_files import below_here
from torch_linguist.data.corpora.tables import row_documents
from torch_linguist.errors import DataError

_PART = re.compile(r"(\w+)(?:\[(\d*):(\d*)\])?")


class Part(NamedTuple):
    """Rows of a split of the hub, such as `train`, `test[:6206]` or `validation[2000:4000]`."""

    split: str
    begin: int
    end: int | None

    @classmethod
    def parse(cls, option: str, text: str) -> "Part":
        """Parse `SPLIT` or `SPLIT[BEGIN:END]`.

        Raises:
            DataError: it is neither, or holds no row.
        """
        found = _PART.fullmatch(text)
        if found is None:
            raise DataError(f"data.{option}={text}: must be SPLIT or SPLIT[BEGIN:END], such as validation[:2000]")
        begin, end = int(found[2] or 0), int(found[3]) if found[3] else None
        if end is not None and end <= begin:
            raise DataError(f"data.{option}={text}: holds no row; END must be greater than BEGIN")
        return cls(found[1], begin, end)

    def overlaps(self, other: "Part") -> bool:
        """Return whether two parts share rows."""
        before = self.end is not None and self.end <= other.begin
        after = other.end is not None and other.end <= self.begin
        return self.split == other.split and not before and not after


def _disjoint_parts(**texts: str) -> dict[str, Part]:
    """Return the part of each split; raise DataError if two share rows."""
    parts = {split: Part.parse(split, text) for split, text in texts.items()}
    for first, second in itertools.combinations(parts, 2):
        if parts[first].overlaps(parts[second]):
            raise DataError(
                f"data.{first} and data.{second}: share rows of the split {parts[first].split}; give them parts of "
                "their own, such as train[10000:]"
            )
    return parts


class HubCorpus(Corpus):
    """Rows of a data set on the hub, or of a local folder of the same layout; a row is a document.

    With `streaming` the rows are read as they come and never lie on disk or in memory as a whole: only their tokens
    are kept. Without it, `datasets` keeps a copy of the text.

    Example:
        >>> stories = HubCorpus("roneneldan/TinyStories", name="stories", streaming=True)  # Nothing is read yet.
        >>> stories.name
        'stories'
    """

    def __init__(
        self,
        hub_id: str,
        name: str,
        path: str | None = None,
        hub_config: str | None = None,
        revision: str | None = None,
        files: Mapping[str, str] | None = None,
        text_column: str = "text",
        train: str = "train",
        valid: str = "validation",
        test: str = "test",
        streaming: bool = False,
        tokenized: bool | None = None,
        blank_lines: str = "keep",
        expected: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        """Store the settings; reading starts later.

        Args:
            hub_id: data set on the hub, `owner/name`.
            name: name of the corpus, in headers and folders.
            path: local folder with the files of the data set; None for the hub.
            hub_config: configuration of the data set; None for the default.
            revision: commit of the data set; None for the newest one.
            files: file pattern of each split on the hub; None if the data set defines its splits.
            text_column: column of the text; all other columns are metadata.
            train: rows of the training split: a split on the hub, or a part of one as in `train[:200000]`.
            valid: rows of the validation split.
            test: rows of the test split.
            streaming: whether to stream the rows without a download.
            tokenized: whether blanks already separate words and punctuation; None to detect it.
            blank_lines: `keep` (each becomes an ``<eos>``) or `drop`.
            expected: published counts by split, such as `{train: {lines: 30301028}}`, checked after loading.

        Raises:
            DataError: there is no such folder, or two splits share rows.
        """
        folder = None if path is None else Path(path).expanduser()
        if folder is not None and not folder.is_dir():
            raise DataError(
                f"data.path={path}: no such folder{below_here(folder)}; give the folder with the files of {hub_id}"
            )
        self.parts = _disjoint_parts(train=train, valid=valid, test=test)
        self.name = name
        self.source = hub_id if folder is None else str(folder)
        self.own_copy = path is not None
        self.hub_config = hub_config
        self.revision = revision
        self.files = dict(files) if files else None
        self.text_column = text_column
        self.streaming = streaming
        self.tokenized = tokenized
        self.blank_lines = check_blank_lines(blank_lines)
        self.expected = checked_counts(expected)

    def documents(self, split: str) -> Iterator[Document]:
        self.check_split(split)
        part = self.parts[split]
        rows = hub_rows(
            self.source,
            self.hub_config,
            self.revision,
            part.split,
            files=self.files,
            streaming=self.streaming,
            begin=part.begin,
            end=part.end,
        )
        yield from row_documents(rows, self.text_column, f"{self.source}, split {part.split}", first=part.begin)

    def sources(self) -> dict[str, str]:
        found = {}
        for split, part in self.parts.items():
            rows = f"[{part.begin or ''}:{'' if part.end is None else part.end}]"
            found[split] = f"{self.source} {part.split}{'' if rows == '[:]' else rows}"
        return found

    def fingerprint(self) -> str:
        parts = {split: list(part) for split, part in self.parts.items()}
        source = hub_fingerprint(self.source, self.hub_config, self.revision)
        return digest("hub rows", source, self.files, parts, self.text_column, self.tokenized)
