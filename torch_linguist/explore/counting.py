"""Counts of words and n-grams, and the tables that follow from them.

Shape legend: N tokens, V types.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from torch_linguist.data import Document, Tokenizer
from torch_linguist.data.corpora.corpus import split_lines
from torch_linguist.explore.fits import spaced_ranks

CHUNK_LINES = 8192
CHUNK_CHARACTERS = 2**20

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EncodedDocuments:
    """Documents as token ids.

    Attributes:
        ids: token ids, each line closed by `<eos>`, int32 [N].
        line_lengths: tokens of each line, `<eos>` included, int64 [lines].
        document_lines: lines of each document, int64 [documents].
        oov: number of tokens that stand for a word outside the vocabulary.
    """

    ids: NDArray[np.int32]
    line_lengths: Ints
    document_lines: Ints
    oov: int

    @property
    def line_ends(self) -> Ints:
        """Position of the `<eos>` of each line, int64 [lines]."""
        return np.cumsum(self.line_lengths) - 1

    @property
    def document_tokens(self) -> Ints:
        """Tokens of each document, `<eos>` included, int64 [documents]."""
        ends = np.concatenate([[0], np.cumsum(self.line_lengths)])[np.cumsum(self.document_lines)]
        return np.diff(ends, prepend=0).astype(np.int64)

    @property
    def words(self) -> NDArray[np.int32]:
        """Token ids without the `<eos>` of the lines."""
        return np.delete(self.ids, self.line_ends)


def encode_documents(documents: Sequence[Document], tokenizer: Tokenizer, blank_lines: str) -> EncodedDocuments:
    """Encode documents in chunks; `blank_lines` is that of the corpus, `keep` or `drop`."""
    ids: list[NDArray[np.int32]] = []
    lengths: list[Ints] = []
    oov = characters = 0
    pending: list[str] = []

    def flush() -> None:
        nonlocal oov, characters, pending
        encoded = tokenizer.encode_lines(pending)
        ids.append(encoded.ids.astype(np.int32))
        lengths.append(encoded.lengths)
        oov += encoded.oov
        pending, characters = [], 0

    document_lines = np.zeros(len(documents), np.int64)
    for index, document in enumerate(documents):
        for line in split_lines(document.text, blank_lines):
            pending.append(line)
            characters += len(line)
            document_lines[index] += 1
            if len(pending) >= CHUNK_LINES or characters >= CHUNK_CHARACTERS:
                flush()
    if pending or not ids:
        flush()
    return EncodedDocuments(np.concatenate(ids), np.concatenate(lengths), document_lines, oov)


def top_ngrams(encoded: EncodedDocuments, tokens: Sequence[str], order: int, top: int) -> pd.DataFrame:
    """Return the most frequent n-grams within lines, ties in alphabetical order.

    The columns are `rank`, `ngram`, `count`, `share` of all n-grams of this order, and `words_only`: whether each of
    its words has a letter.
    """
    starts, codes = ngram_codes(encoded, order, len(tokens))
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    # One pass for the threshold, so that ties can be put in order without sorting every n-gram by its text.
    chosen = np.arange(len(counts))
    if len(counts) > top:
        chosen = np.flatnonzero(counts >= np.partition(counts, len(counts) - top)[len(counts) - top])
        chosen = chosen[np.argsort(-counts[chosen], kind="stable")][: 20 * top]
    rows = []
    for index in chosen:
        begin = int(starts[first[index]])
        parts = [tokens[word] for word in encoded.ids[begin : begin + order]]
        rows.append((" ".join(parts), int(counts[index]), all(has_letter(part) for part in parts)))
    rows.sort(key=lambda row: (-row[1], row[0]))
    frame = pd.DataFrame(rows[:top], columns=["ngram", "count", "words_only"])
    frame.insert(0, "rank", np.arange(1, len(frame) + 1))
    frame.insert(3, "share", frame["count"] / max(len(codes), 1))
    return frame


def ngram_codes(encoded: EncodedDocuments, order: int, vocab_size: int) -> tuple[Ints, Ints]:
    """Return the start of each n-gram and a number that equal n-grams share, both int64 [n-grams]."""
    ids = encoded.ids.astype(np.int64)
    # Words that still follow in the line, the one at the place itself included; 0 at the <eos>.
    ends = np.repeat(encoded.line_ends, encoded.line_lengths)
    starts = np.flatnonzero(ends - np.arange(len(ids)) >= order)
    codes = ids[starts]
    for offset in range(1, order):
        # Renumbered at each step: V ** order would not fit into 64 bits.
        codes = np.unique(codes, return_inverse=True)[1] * vocab_size + ids[starts + offset]
    return starts, codes


def has_letter(word: str) -> bool:
    """Return whether a token is a word rather than a number, a mark or a placeholder such as `<unk>`."""
    return any(character.isalpha() for character in word) and not (word.startswith("<") and word.endswith(">"))


def frequency_spectrum(counts: Ints, rows: int = 20) -> pd.DataFrame:
    """Count the types that occur once, twice, ...

    Args:
        counts: occurrences of each type, int64 [V].
        rows: number of frequencies; one more row counts all higher ones.

    Returns:
        Columns `occurrences`, `types`, `share_of_types`, `share_of_tokens`.
    """
    counts = counts[counts > 0]
    spectrum = np.bincount(np.minimum(counts, rows + 1), minlength=rows + 2)[1:]
    tokens = np.bincount(np.minimum(counts, rows + 1), weights=counts, minlength=rows + 2)[1:]
    return pd.DataFrame(
        {
            "occurrences": [*map(str, range(1, rows + 1)), f"more than {rows}"],
            "types": spectrum,
            "share_of_types": spectrum / max(len(counts), 1),
            "share_of_tokens": tokens / max(counts.sum(), 1),
        }
    )


def coverage(counts: Mapping[str, Ints]) -> pd.DataFrame:
    """Return the share of the words of each split that the most frequent words of train make up.

    `counts` holds the occurrences of each type [V] by split. The columns are `vocabulary`, a number of types, and one
    for each split.
    """
    train = counts["train"]
    order = np.argsort(-train, kind="stable")[: int((train > 0).sum())]
    sizes = spaced_ranks(len(order))
    frame = pd.DataFrame({"vocabulary": sizes})
    for split, values in counts.items():
        frame[split] = np.cumsum(values[order])[sizes - 1] / max(values.sum(), 1)
    return frame


def oov_by_frequency(
    counts: Mapping[str, Ints], line_ends: Mapping[str, int], unk_id: int, highest: int
) -> pd.DataFrame:
    """Return the out-of-vocabulary rate of each split if the vocabulary were cut at each `min_frequency`.

    The rate is over all tokens, `<eos>` included; a literal `<unk>` of the text counts as known.

    Args:
        counts: occurrences of each type, int64 [V], by split.
        line_ends: number of `<eos>` by split.
        unk_id: id of `<unk>`.
        highest: largest `min_frequency`.

    Returns:
        Columns `min_frequency`, `vocabulary` (`<eos>` and `<unk>` included) and one for each split.
    """
    train = counts["train"]
    rows = []
    for least in range(1, highest + 1):
        known = train >= least
        known[unk_id] = False
        vocabulary = int(known.sum()) + 2
        known[unk_id] = True
        rates = [float(values[~known].sum() / (values.sum() + line_ends[split])) for split, values in counts.items()]
        rows.append((least, vocabulary, *rates))
    return pd.DataFrame(rows, columns=["min_frequency", "vocabulary", *counts])
