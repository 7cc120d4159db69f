"""Documents of text files and tables."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from torch_linguist.data.corpora.corpus import Document
from torch_linguist.data.corpora.reading import group_lines, read_lines
from torch_linguist.data.corpora.source_files import SourceFiles, table_suffix
from torch_linguist.data.corpora.tables import read_documents


class TextFiles:
    """Reads documents from the files of a corpus.

    Args:
        source: the files and the folder that their names are relative to.
        encoding: encoding of text files and text tables.
        text_column: column of the texts in tables.
    """

    def __init__(self, source: SourceFiles, encoding: str, text_column: str) -> None:
        self.source, self.encoding, self.text_column = source, encoding, text_column

    def documents(self, files: Sequence[Path]) -> Iterator[Document]:
        """Yield the documents of files in their order."""
        for file in files:
            for unit in self.units(file):
                yield from unit

    def units(self, file: Path) -> Iterator[Iterator[Document]]:
        """Yield what stays in one split: each row of a table, a text file with all its parts."""
        if table_suffix(file):
            for document in read_documents(file, self.text_column, self.encoding):
                yield iter((document,))
        else:
            yield self.parts(file)

    def parts(self, file: Path, begin: int = 0, end: int | None = None) -> Iterator[Document]:
        """Yield the documents of a text file, or of a range of its lines."""
        for part, text in enumerate(group_lines(islice(self.lines(file), begin, end))):
            yield Document(text, {"file": self.source.relative(file), "part": part})

    def lines(self, file: Path) -> Iterator[str]:
        """Yield the lines of a text file."""
        return read_lines(file, self.encoding)
