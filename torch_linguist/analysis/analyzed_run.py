"""What is analyzed: a model with the split that it is looked at on."""

from dataclasses import dataclass
from functools import cached_property

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
"""Intervals that a column of numbers is cut into, such as years into eras."""

MOST_CROSSED = 12
"""Groups of a column that is crossed with another."""


@dataclass(frozen=True, eq=False)
class AnalyzedRun:
    """A model on a split.

    Attributes:
        label: what the run is called.
        model: the model, in eval mode.
        tokenizer: its tokenizer.
        corpus: the corpus in its tokens.
        split: which split is looked at.
        stride: new tokens a window, for a model with a bounded context; None for half of that.
    """

    label: str
    model: LanguageModel
    tokenizer: Tokenizer
    corpus: TokenizedCorpus
    split: str
    stride: int | None = None

    @property
    def stream(self) -> TokenStream:
        """The tokens of the split."""
        return self.corpus.streams[self.split]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each token occurs in train [V]."""
        return self.corpus.token_counts()

    @property
    def family(self) -> str:
        """What kind of model it is."""
        return type(self.model).__name__

    @property
    def reading(self) -> str:
        """How it reads a stream."""
        return reading_of(self.model, self.stride)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Of the split [N]."""
        return np.asarray(self.stream.ids).astype(np.int64)

    @cached_property
    def evaluation(self) -> SplitEvaluation:
        """The nll of every token, as `tl-eval` scores it."""
        return evaluate_split(self.model, self.stream, self.tokenizer.unk_id, stride=self.stride)

    @cached_property
    def words(self) -> Words:
        """The words of the split."""
        return find_words(self.stream.ids, self.tokenizer)

    @cached_property
    def pieces(self) -> list[str]:
        """The text of each token of the vocabulary, with its blanks; `<eos>` ends a line."""
        texts = piece_texts(self.tokenizer)
        texts[self.tokenizer.eos_id] = " ⏎\n"
        return texts

    @cached_property
    def metadata(self) -> pd.DataFrame:
        """A row a document."""
        return pd.DataFrame(self.stream.metadata, index=range(self.stream.num_documents))

    @cached_property
    def columns(self) -> tuple[list[Column], list[str]]:
        """The metadata columns that group the documents, and sentences on the others.

        All splits together tell what kind a column is: of a few documents each may have a value of its own.
        """
        everything = pd.DataFrame([row for stream in self.corpus.streams.values() for row in stream.metadata])
        described = describe_columns(everything, everything.columns)
        return choose_columns([column for column in described if column.name in self.metadata])

    @cached_property
    def groupings(self) -> list[Grouping]:
        """Every way to sort the tokens of the split, those by metadata last."""
        own = token_groupings(self.stream, self.tokenizer, self.counts, self.words)
        return own + [self.column_grouping(column) for column in self.columns[0]]

    def column_grouping(self, column: Column, most: int = 20) -> Grouping:
        """The tokens by a metadata column; the rarest values of more than `most` become one."""
        most = min(most, MOST_INTERVALS) if column.kind == "number" else most
        found = groups(self.metadata, column, most)
        return by_document(column.name, [str(name) for name in found.cat.categories], found.cat.codes, self.stream)

    def shares_tokens(self, other: "AnalyzedRun") -> bool:
        """Whether both read the same tokens, so that they can be compared one by one."""
        return np.array_equal(self.ids, other.ids) and self.tokenizer.to_json() == other.tokenizer.to_json()
