"""Assignment of files without ready splits to splits, by documents or by lines."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from torch_linguist.data.corpora.corpus import Document, text_hash
from torch_linguist.data.corpora.source_files import table_suffix
from torch_linguist.data.corpora.splitting import Splitter
from torch_linguist.data.corpora.text_files import TextFiles
from torch_linguist.errors import DataError


class DealtFiles:
    """Assigns the content of files to `train` and held-out splits.

    Args:
        reader: reader of the files.
        files: files to split.
        splitter: fractions, random seed and condition of the splits.
        held_out: splits to hold out: `valid`, `test` or both.
        name: name of the corpus, for error messages.
    """

    def __init__(
        self, reader: TextFiles, files: Sequence[Path], splitter: Splitter, held_out: Sequence[str], name: str
    ) -> None:
        self.reader, self.files, self.splitter, self.held_out, self.name = reader, files, splitter, held_out, name

    def documents(self, split: str) -> Iterator[Document]:
        """Yield the documents of a split."""
        if self.by_lines:
            yield from self._line_documents(split)
        else:
            units = (unit for file in self.files for unit in self.reader.units(file))
            for own_split, documents in zip(self._assigned, units, strict=True):
                if own_split == split:
                    yield from documents

    @property
    def by_lines(self) -> bool:
        """Whether lines are assigned instead of documents, as for one or two text files."""
        tables = any(table_suffix(file) for file in self.files)
        return len(self.files) < 3 and not tables and not self.splitter.looks_at_documents

    def shares(self) -> str:
        """Return a description of a split for the header."""
        if self.splitter.condition is not None:
            return f"train and valid where {self.splitter.condition.text}, test the rest"
        fractions = {"valid": self.splitter.valid_fraction, "test": self.splitter.test_fraction}
        shares = ", ".join(f"{fractions[split]:.3g} for {split}" for split in self.held_out)
        if self.by_lines:
            return f"the last lines ({shares}) of {self._named}"
        return f"documents drawn with data.seed={self.splitter.seed} ({shares}) from {self._named}"

    @property
    def _named(self) -> str:
        return "train" if len(self.held_out) == 1 or self.reader.source.splits else "all"

    @cached_property
    def _assigned(self) -> list[str]:
        """Split of each unit, stored so that no document occurs in two splits."""
        summaries = (_summary(unit) for file in self.files for unit in self.reader.units(file))
        return self.splitter.assign(summaries, self.name, self.held_out)

    def _line_documents(self, split: str) -> Iterator[Document]:
        """Yield the lines of a split from the concatenated files."""
        begin, end = self._line_ranges[split]
        first = 0  # Number of the file's first line.
        for file, count in zip(self.files, self._line_counts, strict=True):
            own_begin, own_end = max(begin - first, 0), min(end - first, count)
            if own_begin < own_end:
                yield from self.reader.parts(file, own_begin, own_end)
            first += count

    @cached_property
    def _line_counts(self) -> list[int]:
        return [sum(1 for _ in self.reader.lines(file)) for file in self.files]

    @cached_property
    def _line_ranges(self) -> dict[str, tuple[int, int]]:
        count, splits = sum(self._line_counts), ["train", *self.held_out]
        if count < len(splits):
            names = self.reader.source.listed(self.files)
            if count == 1:
                raise DataError(
                    f"data.path={names}: is one line of text; break it into lines first (fold -s -w 1000 FILE), or for "
                    "text8 itself choose data=text8"
                )
            raise DataError(
                f"data.path={names}: has {count} lines; give it at least {len(splits)}, one for each of "
                f"{', '.join(splits)}"
            )
        left = count
        ranges = {}
        # From the end; each split leaves at least one line for every split before it.
        for place in range(len(splits) - 1, 0, -1):
            split = splits[place]
            fraction = self.splitter.test_fraction if split == "test" else self.splitter.valid_fraction
            own = min(max(1, round(count * fraction)), left - place)
            ranges[split] = (left - own, left)
            left -= own
        return {"train": (0, left)} | ranges


def _summary(documents: Iterator[Document]) -> Document:
    """Return a document for all parts of a file: their metadata, and a text that differs if their texts differ."""
    first = next(documents, Document(""))
    rest = [str(text_hash(document.text)) for document in documents]
    return Document("\n".join([first.text, *rest]), first.metadata) if rest else first
