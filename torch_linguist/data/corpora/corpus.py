"""The contract of a corpus: named splits of documents."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch_linguist.errors import DataError

MetadataValue = str | int | float | bool | None

SPLITS = ("train", "valid", "test")
"""The splits of every corpus."""

HELD_OUT = ("valid", "test")
"""The held-out splits."""

COUNTABLE = ("lines", "words", "words_and_lines", "characters", "types")
"""Names of published counts of a split: words separated by white space; characters of ASCII text without its newlines;
types if each word is a token, ``<eos>`` and ``<unk>`` included."""

LONGEST_PIECE = 2**16
"""Number of characters of a line that are tokenized at once; longer lines are tokenized in pieces."""


@dataclass(frozen=True, slots=True)
class Document:
    r"""A text with its metadata.

    Attributes:
        text: lines separated by ``\n``; a final ``\n`` does not begin another line.
        metadata: plain values by name, such as year or party.

    Example:
        >>> Document("Four score and seven years ago", {"year": 1863}).metadata["year"]
        1863
    """

    text: str
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


class Corpus(ABC):
    r"""Named splits of documents, streamed; each iteration yields the same documents.

    Attributes:
        name: short name for headers and folders.
        tokenized: True if blanks already separate the words and the punctuation (WikiText), False if not, None to
            detect it.
        blank_lines: `keep` (each empty line becomes an ``<eos>``, the convention of WikiText) or `drop`.
        expected: published counts by split, checked after loading; see `COUNTABLE`.
        own_copy: whether the text comes from the user's own files, which may differ from the published corpus.
        drop_duplicates: whether copies of a document are dropped; None if the corpus has no such option.

    Example:
        >>> class Verses(Corpus):
        ...     name = "verses"
        ...     def documents(self, split):
        ...         yield Document("a verse\n")
        ...     def fingerprint(self):
        ...         return "1"
        >>> prepare(Verses(), CharTokenizerTrainer()).tokenizer.vocab_size
        8
    """

    name: str
    tokenized: bool | None = None
    blank_lines: str = "keep"
    expected: Mapping[str, Mapping[str, int]] = MappingProxyType({})
    own_copy: bool = False
    drop_duplicates: bool | None = None

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits; `train`, `valid` and `test` are always among them."""
        return SPLITS

    @abstractmethod
    def documents(self, split: str) -> Iterator[Document]:
        """Yield the documents of a split in order.

        Args:
            split: one of `splits()`.

        Raises:
            DataError: the source cannot be read, or there is no such split.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hexadecimal digest of everything that determines the documents; cheap, and without network."""

    def sources(self) -> dict[str, str]:
        """Return a description of each split for the header: its files, or the rule that assigns documents."""
        return {}

    def notes(self) -> list[str]:
        """Return notes on the sources, such as ignored files, one line each."""
        return []

    def check_split(self, split: str) -> None:
        """Raise a DataError if the corpus has no such split."""
        if split not in self.splits():
            raise DataError(f"split={split}: {self.name} has only {', '.join(self.splits())}")


def split_lines(text: str, blank_lines: str = "keep") -> list[str]:
    r"""Split a text at ``\n`` only.

    `str.splitlines` would also split at other line ends of Unicode, which occur inside lines of WikiText.

    Args:
        text: text; a final newline does not begin another line.
        blank_lines: `keep` or `drop` lines that contain only white space.

    Returns:
        The lines without their newlines.
    """
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if blank_lines == "drop":
        return [line for line in lines if not line.isspace() and line]
    return lines


def cut_line(line: str, limit: int = LONGEST_PIECE) -> list[str]:
    """Cut a very long line into pieces for tokenization; their concatenation is the line.

    A piece begins at a single blank between two words, where every tokenizer here separates tokens anyway. Only text
    without such a place for `limit` characters is cut elsewhere.

    Args:
        line: text without a newline.
        limit: longest piece, in characters.
    """
    if len(line) <= limit:
        return [line]
    pieces = []
    begin = 0
    while len(line) - begin > limit:
        cut = line.rfind(" ", begin + 1, begin + limit)
        while cut > begin and (line[cut - 1].isspace() or line[cut + 1].isspace()):
            cut = line.rfind(" ", begin + 1, cut)
        cut = cut if cut > begin else begin + limit
        pieces.append(line[begin:cut])
        begin = cut
    return [*pieces, line[begin:]]


def check_blank_lines(blank_lines: str) -> str:
    """Return the value, or raise a DataError if it is neither `keep` nor `drop`."""
    if blank_lines not in ("keep", "drop"):
        raise DataError(f"data.blank_lines={blank_lines}: must be keep or drop")
    return blank_lines


def digest(*parts: object) -> str:
    """Return the SHA-256 of the JSON of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def checked_counts(expected: Mapping[str, Mapping[str, int]] | None) -> Mapping[str, Mapping[str, int]]:
    """Return the published counts of a configuration; None becomes no counts.

    Raises:
        DataError: an unknown split or count.
    """
    for split, counts in (expected or {}).items():
        for name in counts:
            if split not in SPLITS or name not in COUNTABLE:
                raise DataError(
                    f"data.expected.{split}.{name}: no such count; use one of {', '.join(SPLITS)}, "
                    f"then one of {', '.join(COUNTABLE)}"
                )
    return expected or {}


def text_hash(text: str) -> int:
    """Return a 64-bit hash of a text; equal hashes mean equal texts for all practical purposes."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
