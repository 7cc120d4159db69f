"""Named splits of documents: what every corpus looks like to the rest of the package."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from torch_linguist.errors import DataError

MetadataValue = str | int | float | bool | None

SPLITS = ("train", "valid", "test")
"""The splits that every corpus has."""

COUNTABLE = ("lines", "words", "words_and_lines", "characters", "types")
"""What a corpus may promise of a split: words by white space; characters of ASCII text without its newlines; types
where each word is a token, ``<eos>`` and ``<unk>`` included."""

LONGEST_PIECE = 2**16
"""Characters of a line that are tokenized at once; longer lines are tokenized in pieces."""


@dataclass(frozen=True, slots=True)
class Document:
    r"""A text with what is known about it.

    Attributes:
        text: the lines, separated by ``\n``; one final ``\n`` closes the last line and opens no further one.
        metadata: plain values by name (year, party, article, ...), kept through to the analysis.
    """

    text: str
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


class Corpus(ABC):
    """Named splits of documents; streamed, and the same again on each iteration.

    Attributes:
        name: short name for headers and folders.
        tokenized: True where blanks already separate the words and the punctuation (WikiText), False where not, None
            where that is to be detected.
        blank_lines: `keep` (each empty line becomes an ``<eos>``, the convention of WikiText) or `drop`.
        expected: published counts by split, checked after loading; see `COUNTABLE`.
        own_copy: the text comes from a person's own files, which may differ from what was published.
        drop_duplicates: whether copies of a document are dropped; None where the corpus has no such option.
    """

    name: str
    tokenized: bool | None = None
    blank_lines: str = "keep"
    expected: Mapping[str, Mapping[str, int]] = MappingProxyType({})
    own_copy: bool = False
    drop_duplicates: bool | None = None

    def splits(self) -> tuple[str, ...]:
        """Names of the splits; `train`, `valid` and `test` are always among them."""
        return SPLITS

    @abstractmethod
    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split, in their order.

        Args:
            split: one of `splits()`.

        Raises:
            DataError: the source cannot be read, or there is no such split.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal digest of everything that determines the documents; cheap, and without network."""

    def check_split(self, split: str) -> None:
        """Raises a DataError where this corpus has no such split."""
        if split not in self.splits():
            raise DataError(f"split={split}: {self.name} has only {', '.join(self.splits())}")


def split_lines(text: str, blank_lines: str = "keep") -> list[str]:
    r"""Cuts a text at ``\n`` alone.

    `str.splitlines` would also cut at other line ends of Unicode, which occur inside lines of WikiText.

    Args:
        text: the text; one final newline closes the last line.
        blank_lines: `keep` or `drop` lines of nothing but white space.

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
    """Cuts a very long line into pieces that can be tokenized one by one; together they are the line.

    A piece begins at a single blank between two words, where every tokenizer here separates tokens anyway. Only text
    without such a place for `limit` characters is cut anywhere.

    Args:
        line: without a newline.
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
    """Returns the value, or raises a DataError where it is neither `keep` nor `drop`."""
    if blank_lines not in ("keep", "drop"):
        raise DataError(f"data.blank_lines={blank_lines}: must be keep or drop")
    return blank_lines


def check_fractions(valid_fraction: float, test_fraction: float) -> None:
    """Raises a DataError where the held-out fractions leave a split without documents."""
    for name, value in (("valid_fraction", valid_fraction), ("test_fraction", test_fraction)):
        if not 0 < value < 1:
            raise DataError(f"data.{name}={value}: must be greater than 0 and less than 1")
    if valid_fraction + test_fraction >= 1:
        raise DataError(
            f"data.valid_fraction={valid_fraction} and data.test_fraction={test_fraction}: "
            "together they must be less than 1, or nothing is left to train on"
        )


def digest(*parts: object) -> str:
    """SHA-256 over the JSON of plain values: one fingerprint out of several facts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def checked_counts(expected: Mapping[str, Mapping[str, int]] | None) -> Mapping[str, Mapping[str, int]]:
    """Published counts of a configuration, checked; None for no counts.

    Raises:
        DataError: an unknown split or count.
    """
    for split, counts in (expected or {}).items():
        for name in counts:
            if split not in SPLITS or name not in COUNTABLE:
                raise DataError(
                    f"data.expected.{split}.{name}: no such count; take one of {', '.join(SPLITS)}, "
                    f"then one of {', '.join(COUNTABLE)}"
                )
    return expected or {}


def text_hash(text: str) -> int:
    """A number of 64 bits: two texts with the same one are the same, for every practical purpose."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def assign_splits(count: int, valid_fraction: float, test_fraction: float, seed: int) -> list[str]:
    """Deals ordered documents out to the splits so that each split is spread evenly over that order.

    The documents are cut into as many runs of neighbors as validation documents are wanted, and one of each run is
    drawn; then the rest likewise for test. Ordered by year, every split covers all years alike.

    Args:
        count: number of documents, at least one a split.
        valid_fraction: share of validation documents; at least one is taken.
        test_fraction: share of test documents; at least one is taken, none where it is 0.
        seed: of the draws.

    Returns:
        The split of each document.
    """
    generator = np.random.default_rng(seed)
    assigned = ["train"] * count
    remaining = np.arange(count)
    for split, fraction in (("valid", valid_fraction), ("test", test_fraction)):
        if fraction == 0:
            continue
        wanted = min(max(1, round(count * fraction)), len(remaining) - 1)
        drawn = [int(generator.choice(run)) for run in np.array_split(remaining, wanted)]
        for index in drawn:
            assigned[index] = split
        remaining = np.setdiff1d(remaining, drawn)
    return assigned
