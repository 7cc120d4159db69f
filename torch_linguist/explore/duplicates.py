"""Exact duplicates within and across splits."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from torch_linguist.data import Document
from torch_linguist.data.corpora.corpus import split_lines
from torch_linguist.explore.sampling import text_digest

Digests = NDArray[np.uint64]

LEAST_WORDS = 5


def duplicate_counts(digests: Mapping[str, Digests]) -> pd.DataFrame:
    """Count the texts of each split that occur elsewhere, from the hashes of its texts.

    Returns:
        One row per split (`in` equals `also in`: copies beyond the first) and per ordered pair of splits: number of
        `texts`, number of `duplicates` among them, and their `share`.
    """
    rows = []
    unique = {split: np.unique(values) for split, values in digests.items()}
    for split, values in digests.items():
        rows.append((split, split, len(values), len(values) - len(unique[split])))
    for first, second in combinations(digests, 2):
        for own, other in ((second, first), (first, second)):
            rows.append((own, other, len(digests[own]), int(np.isin(digests[own], unique[other]).sum())))
    frame = pd.DataFrame(rows, columns=["in", "also in", "texts", "duplicates"])
    frame["share"] = frame["duplicates"] / frame["texts"].clip(lower=1)
    return frame


def line_digests(documents: Sequence[Document]) -> Digests:
    """Return hashes of the lines with at least `LEAST_WORDS` words; shorter ones, such as headings, recur anyway."""
    lines = (line for document in documents for line in split_lines(document.text))
    return np.array([text_digest(line) for line in lines if len(line.split()) >= LEAST_WORDS], np.uint64)


def find_duplicates(
    documents: Mapping[str, Sequence[Document]], positions: Mapping[str, Sequence[int]], limit: int = 100
) -> pd.DataFrame:
    """Return documents that occur more than once, empty ones left out.

    Args:
        documents: documents of each split.
        positions: position of each document in its split.
        limit: maximum number of groups of equal documents.

    Returns:
        One row per document: `group`, `split`, `position`, `characters`, and `begins`, its first words.
    """
    groups: dict[int, list[tuple[str, int, str]]] = {}
    for split, entries in documents.items():
        for position, document in zip(positions[split], entries, strict=True):
            if document.text.strip():
                groups.setdefault(text_digest(document.text), []).append((split, int(position), document.text))
    repeated = [members for members in groups.values() if len(members) > 1][:limit]
    rows = [
        (number, split, position, len(text), " ".join(text[:200].split())[:80])
        for number, members in enumerate(repeated, 1)
        for split, position, text in members
    ]
    return pd.DataFrame(rows, columns=["group", "split", "position", "characters", "begins"])
