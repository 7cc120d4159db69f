"""What every maker of a tokenizer shares: its contract, and the lines of the training split."""

from collections.abc import Iterator
from typing import Protocol

from torch_linguist.data.corpora.corpus import Corpus, cut_line, split_lines
from torch_linguist.data.tokenizers.tokenizer import Tokenizer


class TokenizerTrainer(Protocol):
    """What makes a tokenizer out of a corpus.

    Example:
        >>> trainer: TokenizerTrainer = WordTokenizerTrainer()
        >>> trainer.train(texts).kind
        'word'
    """

    def train(self, corpus: Corpus) -> Tokenizer:
        """A tokenizer that has seen the training split alone."""
        ...

    def fingerprint(self) -> str:
        """Digest of everything, besides the corpus, that determines the tokenizer."""
        ...


def training_lines(corpus: Corpus) -> Iterator[str]:
    """The lines of the training split; a very long one comes in pieces, so that memory stays bounded."""
    for document in corpus.documents("train"):
        for line in split_lines(document.text, corpus.blank_lines):
            yield from cut_line(line)


def beginning(corpus: Corpus, characters: int = 200_000) -> str:
    """The beginning of the training split."""
    sample: list[str] = []
    for document in corpus.documents("train"):
        sample.append(document.text[:characters])
        characters -= len(sample[-1])
        if characters <= 0:
            break
    return "\n".join(sample)
