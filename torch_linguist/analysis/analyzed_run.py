"""The object of an analysis: a model and the split it is examined on."""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from torch_linguist.data import TokenizedCorpus, Tokenizer, TokenStream
from torch_linguist.evaluation.slices import Grouping, by_document, token_groupings
from torch_linguist.evaluation.split_evaluation import SplitEvaluation, evaluate_split, reading_of
from torch_linguist.evaluation.words import Words, find_words, piece_texts
from torch_linguist.explore.columns import Column, describe_columns, groups
from torch_linguist.explore.texts import choose_columns
from torch_linguist.model import LanguageModel

MOST_INTERVALS = 8
"""Maximum number of intervals for a column of numbers, such as years."""

MOST_CROSSED = 12
"""Maximum number of groups of a column that is crossed with another."""

LONGEST_LABEL = 16
"""Longest folder name used as a label, in characters."""


@dataclass(frozen=True, eq=False)
class AnalyzedRun:
    """A model on a split.

    Attributes:
        label: short name of the run.
        model: the model, in eval mode.
        tokenizer: tokenizer of the model.
        corpus: the corpus in the tokens of the model.
        split: name of the split.
        stride: new tokens per window, for a model with a bounded context; None for half the context.
        folder: run folder; None where there is none.

    Example:
        >>> run = AnalyzedRun("bigram", model, corpus.tokenizer, corpus, split="test")
        >>> run.stream is corpus.test
        True
    """

    label: str
    model: LanguageModel
    tokenizer: Tokenizer
    corpus: TokenizedCorpus
    split: str
    stride: int | None = None
    folder: Path | None = None

    @property
    def stream(self) -> TokenStream:
        """Tokens of the split."""
        return self.corpus.streams[self.split]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Occurrences of each token in train [V]."""
        return self.corpus.token_counts()

    @property
    def family(self) -> str:
        """Class name of the model."""
        return type(self.model).__name__

    @property
    def reading(self) -> str:
        """How the model reads a stream, in words."""
        return reading_of(self.model, self.stride)

    @property
    def description(self) -> str:
        """What the label stands for: folder, model, tokenizer and size."""
        where = f"{self.folder}: " if self.folder is not None else ""
        size = f"{self.model.num_parameters():,} parameters, {self.tokenizer.vocab_size:,} types"
        return f"{where}{self.family}, {self.tokenizer.kind} tokenizer, {size}"

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Token ids of the split [N]."""
        return np.asarray(self.stream.ids).astype(np.int64)

    @cached_property
    def evaluation(self) -> SplitEvaluation:
        """The nll of every token, scored as `tl-eval` does."""
        return evaluate_split(self.model, self.stream, self.tokenizer.unk_id, stride=self.stride)

    @cached_property
    def words(self) -> Words:
        """Words of the split."""
        return find_words(self.stream.ids, self.tokenizer)

    @cached_property
    def pieces(self) -> list[str]:
        """Text of each token of the vocabulary, with its spaces; `<eos>` ends a line."""
        texts = piece_texts(self.tokenizer)
        texts[self.tokenizer.eos_id] = " ⏎\n"
        return texts

    @cached_property
    def metadata(self) -> pd.DataFrame:
        """Metadata, one row per document."""
        return pd.DataFrame(self.stream.metadata, index=range(self.stream.num_documents))

    @cached_property
    def columns(self) -> tuple[list[Column], list[str]]:
        """The metadata columns that group the documents, and sentences about the others.

        The kind of a column is decided on all splits together: in a few documents, every value may be unique.
        """
        everything = pd.DataFrame([row for stream in self.corpus.streams.values() for row in stream.metadata])
        described = describe_columns(everything, everything.columns)
        return choose_columns([column for column in described if column.name in self.metadata])

    @cached_property
    def groupings(self) -> list[Grouping]:
        """All groupings of the tokens of the split, those by metadata last."""
        own = token_groupings(self.stream, self.tokenizer, self.counts, self.words)
        return own + [self.column_grouping(column) for column in self.columns[0]]

    def column_grouping(self, column: Column, most: int = 20) -> Grouping:
        """Group the tokens by a metadata column; of more than `most` values, the rarest become one group."""
        most = min(most, MOST_INTERVALS) if column.kind == "number" else most
        found = groups(self.metadata, column, most)
        return by_document(column.name, [str(name) for name in found.cat.categories], found.cat.codes, self.stream)

    def shares_tokens(self, other: "AnalyzedRun") -> bool:
        """Return whether both runs read the same tokens, so that they can be compared token by token."""
        return np.array_equal(self.ids, other.ids) and self.tokenizer.to_json() == other.tokenizer.to_json()


def short_labels(folders: Sequence[Path], models: Sequence[LanguageModel]) -> list[str]:
    """Return a short, unique label per run: its folder's name if that is short, else the family of its model.

    Args:
        folders: run folders.
        models: their models.

    Example:
        >>> short_labels([Path("outputs/a"), Path("outputs/b")], [model, model])
        ['a', 'b']
    """
    names = [folder.resolve().name for folder in folders]
    if max(map(len, names)) > LONGEST_LABEL:
        names = [type(model).__name__.lower() for model in models]
    if len(set(names)) == len(names):
        return names
    return [f"{name} {letter}" for name, letter in zip(names, string.ascii_uppercase, strict=False)]
