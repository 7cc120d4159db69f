"""Counts of a corpus: one pass over its text, the rest on arrays.

Shape legend: N tokens, V types.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from torch_linguist.data import Corpus, Document, InMemoryCorpus, Tokenizer, TokenizerTrainer, WordTokenizerTrainer
from torch_linguist.data.corpora.corpus import split_lines
from torch_linguist.data.suitability import small_split_notes, word_notes
from torch_linguist.errors import DataError
from torch_linguist.explore.columns import Column, describe_columns
from torch_linguist.explore.counting import EncodedDocuments, encode_documents
from torch_linguist.explore.sampling import MEBIBYTE, SplitSample, read_split
from torch_linguist.explore.settings import ExploreSettings

Ints = NDArray[np.int64]
Report = Callable[[str], None]

MEASURES = ("lines", "empty_lines", "words", "tokens", "types", "characters", "bytes")
"""Counts of each document."""


@dataclass(frozen=True, eq=False)
class Measurements:
    """A counted corpus.

    Attributes:
        name: name of the corpus.
        samples: sample of each split.
        tokenizer: the requested tokenizer, trained on the documents of train.
        word_tokenizer: tokenizer that knows every word of all splits; it cuts words as `tokenizer` does if that is a
            word tokenizer, else as `tokenizer=word`.
        words: documents of each split as ids of `word_tokenizer`.
        tokens: the same as ids of `tokenizer`; for a word tokenizer, as those of `word_tokenizer`.
        documents: one row per document: `split`, `position`, the metadata columns, `lines`, `empty_lines`, `words`
            (separated by whitespace), `tokens` (`<eos>` included), `types`, `characters`, `bytes`.
        columns: metadata columns.
        oov: tokens outside the vocabulary of `tokenizer`, by split.

    Example:
        >>> measure(texts, WordTokenizerTrainer(), ExploreSettings()).splits
        ['train', 'valid', 'test']
    """

    name: str
    samples: Mapping[str, SplitSample]
    tokenizer: Tokenizer
    word_tokenizer: Tokenizer
    words: Mapping[str, EncodedDocuments]
    tokens: Mapping[str, EncodedDocuments]
    documents: pd.DataFrame
    columns: list[Column]
    oov: Mapping[str, int]

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.samples)

    @property
    def is_whole(self) -> bool:
        """Whether the whole corpus was explored, not a sample of it."""
        return all(sample.is_whole for sample in self.samples.values())

    @property
    def has_subwords(self) -> bool:
        """Whether the tokens are parts of words."""
        return not self.tokenizer.joins_words

    @cached_property
    def word_counts(self) -> dict[str, Ints]:
        """Occurrences of each word by split, without the `<eos>` of the lines, int64 [V]."""
        size = self.word_tokenizer.vocab_size
        return {split: np.bincount(encoded.words, minlength=size) for split, encoded in self.words.items()}

    @cached_property
    def notes(self) -> list[str]:
        """Notes on splits too small to judge by, and on words that white space does not separate."""
        sizes = {split: int(encoded.document_tokens.sum()) for split, encoded in self.tokens.items()}
        notes = small_split_notes(sizes)
        counts = self.word_counts["train"]
        if not self.tokenizer.joins_words or not counts.sum():
            return notes
        rare = {split: self.oov[split] / max(size, 1) for split, size in sizes.items()}
        rare["train"] = max(rare["train"], float((counts == 1).sum() / counts.sum()))
        return notes + word_notes(float(counts @ self.word_lengths / counts.sum()), rare)

    @cached_property
    def word_lengths(self) -> Ints:
        """Characters of each word, int64 [V]."""
        return np.array([len(token) for token in self.word_tokenizer.tokens], np.int64)


def measure(
    corpus: Corpus,
    tokenizer_trainer: TokenizerTrainer,
    settings: ExploreSettings,
    seed: int = 1,
    report: Report = lambda line: None,
) -> Measurements:
    """Read and count a corpus.

    Args:
        corpus: source of the documents.
        tokenizer_trainer: builds the tokenizer.
        settings: how much to read.
        seed: random seed of the samples.
        report: called with each progress message, in one line.

    Raises:
        DataError: the corpus cannot be read, or a split is empty.

    Example:
        >>> measured = measure(texts, WordTokenizerTrainer(), ExploreSettings())
        >>> measured.documents[["split", "words"]].shape
        (3, 2)
    """
    samples = _read_splits(corpus, settings, seed, report)
    for note in corpus.notes():
        report(f"note: {note}")
    train = samples["train"].documents
    tokenizer = tokenizer_trainer.train(_in_memory(corpus, train))
    everything = [document for sample in samples.values() for document in sample.documents]
    word_tokenizer = _every_word(tokenizer_trainer, tokenizer).train(_in_memory(corpus, everything))
    cut = f", words end at {tokenizer.word_boundaries}" if tokenizer.joins_words else ""
    report(f"tokenizer: {tokenizer.vocab_size:,} types{cut}")

    def encoded_by(one: Tokenizer) -> dict[str, EncodedDocuments]:
        return {split: encode_documents(sample.documents, one, corpus.blank_lines) for split, sample in samples.items()}

    words = encoded_by(word_tokenizer)
    for split, encoded in words.items():
        if not len(encoded.ids):
            raise DataError(f"{corpus.name}: the split {split} is empty; provide more text")
    tokens = words if tokenizer.joins_words else encoded_by(tokenizer)
    report(f"tokenized: {sum(len(encoded.ids) for encoded in tokens.values()):,} tokens")
    frame, names = documents_table(samples, words, tokens, corpus.blank_lines, word_tokenizer.vocab_size)
    measured = Measurements(
        name=corpus.name,
        samples=samples,
        tokenizer=tokenizer,
        word_tokenizer=word_tokenizer,
        words=words,
        tokens=tokens,
        documents=frame,
        columns=describe_columns(frame, names),
        oov=_out_of_vocabulary(tokenizer, word_tokenizer, tokens),
    )
    for note in measured.notes:
        report(f"note: {note}")
    return measured


def _read_splits(corpus: Corpus, settings: ExploreSettings, seed: int, report: Report) -> dict[str, SplitSample]:
    characters = int(settings.sample_mebibytes * MEBIBYTE)
    scanned = None if settings.scan_mebibytes is None else int(settings.scan_mebibytes * MEBIBYTE)
    samples: dict[str, SplitSample] = {}
    for split in corpus.splits():
        samples[split] = read_split(corpus, split, characters, scanned, seed)
        report(f"read {split}: {len(samples[split].documents):,} documents")
    return samples


def _in_memory(corpus: Corpus, documents: list[Document]) -> InMemoryCorpus:
    splits = {"train": documents, "valid": [], "test": []}
    return InMemoryCorpus(splits, corpus.name, corpus.tokenized, corpus.blank_lines)


def _every_word(tokenizer_trainer: TokenizerTrainer, tokenizer: Tokenizer) -> TokenizerTrainer:
    """Return a trainer that cuts words as the given one does and leaves none out."""
    if tokenizer.joins_words and isinstance(tokenizer_trainer, WordTokenizerTrainer):
        whole = copy.copy(tokenizer_trainer)
        whole.min_frequency, whole.max_size = 1, None
        return whole
    return WordTokenizerTrainer(min_frequency=1, lowercase=bool(getattr(tokenizer_trainer, "lowercase", False)))


def _out_of_vocabulary(
    tokenizer: Tokenizer, word_tokenizer: Tokenizer, tokens: Mapping[str, EncodedDocuments]
) -> dict[str, int]:
    if not tokenizer.joins_words:
        return {split: encoded.oov for split, encoded in tokens.items()}
    known = set(tokenizer.tokens)
    unknown = np.array([word not in known for word in word_tokenizer.tokens])
    return {split: int(unknown[encoded.ids].sum()) for split, encoded in tokens.items()}


def documents_table(
    samples: Mapping[str, SplitSample],
    words: Mapping[str, EncodedDocuments],
    tokens: Mapping[str, EncodedDocuments],
    blank_lines: str,
    vocab_size: int,
) -> tuple[pd.DataFrame, list[str]]:
    """Return a table with one row per document, its metadata and counts, and the names of the metadata columns."""
    names: dict[str, str] = {}
    frames = []
    for split, sample in samples.items():
        for document in sample.documents:
            for name in document.metadata:
                if name not in names:
                    own = name
                    while own in ("split", "position", *MEASURES) or own in names.values():
                        own = f"{own} (metadata)"
                    names[name] = own
        columns: dict[str, object] = {"split": split, "position": sample.positions}
        for name, own in names.items():
            columns[own] = [document.metadata.get(name) for document in sample.documents]
        sizes = np.array([_text_sizes(document, blank_lines) for document in sample.documents], np.int64)
        columns |= dict(zip(("lines", "empty_lines", "words", "characters", "bytes"), sizes.T, strict=True))
        columns["tokens"] = tokens[split].document_tokens
        columns["types"] = _types(words[split], vocab_size)
        frames.append(pd.DataFrame(columns))
    own_names = list(names.values())
    return pd.concat(frames, ignore_index=True)[["split", "position", *own_names, *MEASURES]], own_names


def _text_sizes(document: Document, blank_lines: str) -> tuple[int, int, int, int, int]:
    lines = split_lines(document.text, blank_lines)
    text = "\n".join([*lines, ""])
    empty = sum(1 for line in lines if not line.strip())
    return len(lines), empty, len(text.split()), len(text), len(text.encode("utf-8", "surrogatepass"))


def _types(encoded: EncodedDocuments, vocab_size: int) -> Ints:
    """Return the number of different words of each document, int64 [documents]."""
    tokens = encoded.document_tokens
    document = np.repeat(np.arange(len(tokens)), tokens)
    pairs = np.delete(document * vocab_size + encoded.ids, encoded.line_ends)
    return np.bincount(np.unique(pairs) // vocab_size, minlength=len(tokens)).astype(np.int64)


def totals(measured: Measurements) -> pd.DataFrame:
    """Return totals by split and over all: documents, lines, words, tokens, types, characters, unknown words."""
    rows = []
    everything = np.zeros(measured.word_tokenizer.vocab_size, np.int64)
    for split in measured.splits:
        own = measured.documents[measured.documents["split"] == split]
        everything += measured.word_counts[split]
        rows.append(_total_row(split, own, measured.word_counts[split], measured.oov[split]))
    rows.append(_total_row("all", measured.documents, everything, sum(measured.oov.values())))
    return pd.DataFrame(rows)


def _total_row(name: str, documents: pd.DataFrame, counts: Ints, oov: int) -> dict[str, object]:
    tokens = int(documents["tokens"].sum())
    return {
        "split": name,
        "documents": len(documents),
        "empty documents": int((documents["words"] == 0).sum()),
        **{column.replace("_", " "): int(documents[column].sum()) for column in ("lines", "empty_lines", "words")},
        "tokens": tokens,
        "types": int((counts > 0).sum()) + 1,
        "characters": int(documents["characters"].sum()),
        "bytes": int(documents["bytes"].sum()),
        "unknown": oov,
        "unknown rate": oov / max(tokens, 1),
    }
