"""The contract of tokenizer trainers, and the lines that they train on."""

from collections.abc import Iterator
from typing import Protocol

from torch_linguist.data.corpora.corpus import Corpus, cut_line, split_lines
from torch_linguist.data.tokenizers.tokenizer import Tokenizer


class TokenizerTrainer(Protocol):
    """Trainer of a tokenizer on a corpus.

    Example:
        >>> trainer: TokenizerTrainer = WordTokenizerTrainer()
        >>> trainer.train(texts).kind
        'word'
    """

    def train(self, corpus: Corpus) -> Tokenizer:
        """Return a tokenizer trained on the training split only."""
        ...

    def fingerprint(self) -> str:
        """Return a digest of everything except the corpus that determines the tokenizer."""
        ...


def training_lines(corpus: Corpus) -> Iterator[str]:
    """Yield the lines of the training split; very long lines are cut into pieces to bound the memory."""
    for document in corpus.documents("train"):
        for line in split_lines(document.text, corpus.blank_lines):
            yield from cut_line(line)


def beginning(corpus: Corpus, characters: int = 200_000) -> str:
    """Return the beginning of the training split, about `characters` long."""
    sample: list[str] = []
    for document in corpus.documents("train"):
        sample.append(document.text[:characters])
        characters -= len(sample[-1])
        if characters <= 0:
            break
    return "\n".join(sample)
