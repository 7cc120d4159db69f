"""A corpus of documents in memory, for notebooks."""

from collections.abc import Iterator, Mapping, Sequence

from torch_linguist.data.corpora.corpus import SPLITS, Corpus, Document, check_blank_lines, digest
from torch_linguist.errors import DataError


class InMemoryCorpus(Corpus):
    """A corpus of texts or documents in memory.

    Example:
        ``InMemoryCorpus({"train": [text], "valid": [other_text], "test": [third_text]})``

    Example:
        >>> texts = InMemoryCorpus({"train": ["one text", "two texts"], "valid": ["three"], "test": ["four"]})
        >>> [document.text for document in texts.documents("train")]
        ['one text', 'two texts']
    """

    def __init__(
        self,
        documents: Mapping[str, Sequence[str | Document]],
        name: str = "memory",
        tokenized: bool | None = None,
        blank_lines: str = "keep",
    ) -> None:
        """Store the documents of each split.

        Args:
            documents: texts, or documents with metadata, by split; `train`, `valid` and `test` are required.
            name: name of the corpus.
            tokenized: whether blanks already separate words and punctuation; None to detect it.
            blank_lines: `keep` or `drop`.

        Raises:
            DataError: a split is missing.
        """
        for split in SPLITS:
            if split not in documents:
                raise DataError(f"split {split}: is missing; {name} must have {', '.join(SPLITS)}")
        self.name = name
        self.tokenized = tokenized
        self.blank_lines = check_blank_lines(blank_lines)
        self._documents = {
            split: [Document(entry) if isinstance(entry, str) else entry for entry in entries]
            for split, entries in documents.items()
        }

    def splits(self) -> tuple[str, ...]:
        return tuple(self._documents)

    def documents(self, split: str) -> Iterator[Document]:
        self.check_split(split)
        yield from self._documents[split]

    def fingerprint(self) -> str:
        content = {
            split: [[document.text, dict(document.metadata)] for document in documents]
            for split, documents in self._documents.items()
        }
        return digest("memory", content, self.tokenized)
