"""The documents of a split in bounded memory: all of them, or a seeded sample."""

import hashlib
import heapq
from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torch_linguist.data import Corpus, Document
from torch_linguist.errors import DataError

MEBIBYTE = 2**20


@dataclass(frozen=True)
class SplitSample:
    """What was read of a split.

    Attributes:
        split: its name.
        documents: those that are explored, in the order of the corpus.
        positions: the place of each in the split, from 0, int64 [documents].
        digests: 64 bits of a hash of every document that was read, the explored ones and the others, uint64.
        characters: of all documents that were read.
        complete: whether the split was read to its end.
        cut: documents that were longer than the sample may be, of which only the beginning is explored.
    """

    split: str
    documents: list[Document]
    positions: NDArray[np.int64]
    digests: NDArray[np.uint64]
    characters: int
    complete: bool
    cut: int

    @property
    def scanned(self) -> int:
        """Documents that were read."""
        return len(self.digests)

    @property
    def is_whole(self) -> bool:
        """Whether everything that the split holds is explored."""
        return self.complete and not self.cut and len(self.documents) == self.scanned


def read_split(
    corpus: Corpus, split: str, sample_characters: int, scan_characters: int | None = None, seed: int = 1
) -> SplitSample:
    """Reads a split once and keeps a sample of its documents of bounded size.

    Each document draws a number; those with the smallest numbers are kept, as many as the budget holds. Whether a
    document is kept thus depends neither on its place nor, but for the last one, on its length.

    Args:
        corpus: where the documents come from.
        split: its name.
        sample_characters: how much text is kept at most.
        scan_characters: how much text is read before the rest is left alone; None for all.
        seed: of the draws.

    Raises:
        DataError: the split has no document, or cannot be read.
    """
    generator = np.random.default_rng([seed, *split.encode()])
    kept: list[tuple[float, int, Document]] = []  # A heap, the largest draw (negated) on top.
    threshold = 1.0
    held = characters = cut = 0
    digests = array("Q")
    complete = True
    for position, document in enumerate(corpus.documents(split)):
        if scan_characters is not None and characters >= scan_characters:
            complete = False
            break
        characters += len(document.text)
        digests.append(text_digest(document.text))
        draw = float(generator.random())
        # A document that drew more than one that had to go must not come in because it happens to be short.
        if draw >= threshold:
            continue
        if len(document.text) > sample_characters:
            document = Document(beginning(document.text, sample_characters), document.metadata)
            cut += 1
        heapq.heappush(kept, (-draw, position, document))
        held += len(document.text)
        while held > sample_characters and len(kept) > 1:
            largest, _, dropped = heapq.heappop(kept)
            threshold = -largest
            held -= len(dropped.text)
    if not kept:
        raise DataError(f"{corpus.name}: the split {split} has no document; give more text")
    kept.sort(key=lambda entry: entry[1])
    return SplitSample(
        split=split,
        documents=[document for _, _, document in kept],
        positions=np.array([position for _, position, _ in kept], np.int64),
        digests=np.array(digests, np.uint64),
        characters=characters,
        complete=complete,
        cut=cut,
    )


def beginning(text: str, characters: int) -> str:
    """The first characters of a text, up to the end of a line or at least of a word."""
    for separator in ("\n", " "):
        end = text.rfind(separator, characters // 2, characters)
        if end >= 0:
            return text[: end + 1]
    return text[:characters]


def text_digest(text: str) -> int:
    """64 bits of a hash of a text; two of ten million different texts agree with a chance of 3 in a million."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
