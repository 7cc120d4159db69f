"""Documents of a split in bounded memory: all of them, or a seeded sample."""

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
    """Sample of a split.

    Attributes:
        split: name of the split.
        documents: documents to explore, in the order of the corpus.
        positions: position of each in the split (0-based), int64 [documents].
        digests: hash of every document read, explored or not, uint64.
        characters: characters of all documents read.
        complete: whether the split was read to its end.
        cut: number of documents longer than the sample, of which only the beginning is explored.
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
        """Number of documents read."""
        return len(self.digests)

    @property
    def is_whole(self) -> bool:
        """Whether the whole split is explored."""
        return self.complete and not self.cut and len(self.documents) == self.scanned


def read_split(
    corpus: Corpus, split: str, sample_characters: int, scan_characters: int | None = None, seed: int = 1
) -> SplitSample:
    """Read a split once and keep a sample of its documents of bounded size.

    Each document draws a number; those with the smallest numbers are kept, as many as fit. So neither its position nor,
    except for the last one, its length decides whether a document is kept.

    Args:
        corpus: source of the documents.
        split: name of the split.
        sample_characters: maximum size of the sample.
        scan_characters: characters to read before the rest is skipped; None reads all.
        seed: random seed of the draws.

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
    """Return the first characters of a text, up to the end of a line or at least of a word."""
    for separator in ("\n", " "):
        end = text.rfind(separator, characters // 2, characters)
        if end >= 0:
            return text[: end + 1]
    return text[:characters]


def text_digest(text: str) -> int:
    """Return 64 bits of a hash of a text; any two of ten million texts collide with a chance of 3 in a million."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
