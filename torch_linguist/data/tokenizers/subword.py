"""Byte-level subword tokenizers, BPE and unigram: they decode any text exactly and have no unknown words."""

import json
from collections.abc import Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from torch_linguist.data.corpora.corpus import Corpus, digest
from torch_linguist.data.tokenizers.tokenizer import EOS, UNK, Tokenizer
from torch_linguist.data.tokenizers.tokenizer_trainer import training_lines
from torch_linguist.data.tokenizers.transforms import set_transforms, transform_chain
from torch_linguist.errors import DataError


def special_tokens() -> list[AddedToken]:
    """Return ``<eos>`` and ``<unk>``, which have the first two ids."""
    return [AddedToken(EOS, special=True, normalized=False), AddedToken(UNK, normalized=False)]


def sealed(backend: tokenizers.Tokenizer) -> Tokenizer:
    """Return the finished tokenizer: a literal ``<unk>`` is one token, and only a newline becomes ``<eos>``.

    A literal ``<eos>`` in a text remains text.
    """
    description: dict[str, Any] = json.loads(backend.to_str())
    description["added_tokens"] = [token for token in description["added_tokens"] if token["content"] == UNK]
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(description)))


class _SubwordTrainer:
    """Base class of BPE and unigram trainers: bytes as in GPT-2, the options, the training loop."""

    def __init__(self, vocab_size: int, lowercase: bool, transforms: Sequence[str]) -> None:
        if vocab_size < 258:
            raise DataError(f"tokenizer.vocab_size={vocab_size}: must be at least 258 (256 bytes, {EOS} and {UNK})")
        self.vocab_size = vocab_size
        self.transforms = transform_chain(transforms, lowercase)

    def _train(self, corpus: Corpus, backend: tokenizers.Tokenizer, trainer: Any) -> Tokenizer:
        set_transforms(backend, self.transforms)
        # A literal <unk> is one token, so its letters must not influence the merges.
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(UNK, behavior="removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        backend.decoder = decoders.ByteLevel()
        backend.train_from_iterator(training_lines(corpus), trainer)
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return sealed(backend)


class BPETokenizerTrainer(_SubwordTrainer):
    """Trainer of a byte-level BPE tokenizer (Sennrich et al. 2016; bytes as in GPT-2) that decodes every text exactly.

    ``<unk>`` occurs only if the text contains it, as WikiText does; it is one token.

    Example:
        >>> tokenizer = BPETokenizerTrainer(vocab_size=300).train(texts)
        >>> tokenizer.decode(tokenizer.encode("a zebra"))
        'a zebra'
    """

    def __init__(
        self,
        vocab_size: int = 8000,
        lowercase: bool = False,
        min_frequency: int = 2,
        transforms: Sequence[str] = (),
    ) -> None:
        """Store the settings.

        Args:
            vocab_size: largest number of token types, ``<eos>`` and ``<unk>`` included.
            lowercase: whether to lower-case the text first.
            min_frequency: smallest frequency of a pair that is merged.
            transforms: changes of the text, in order; see `TRANSFORMS`. Decoding returns the changed text.

        Raises:
            DataError: a value is out of range.
        """
        super().__init__(vocab_size, lowercase, transforms)
        if min_frequency < 1:
            raise DataError(f"tokenizer.min_frequency={min_frequency}: must be at least 1")
        self.min_frequency = min_frequency

    def train(self, corpus: Corpus) -> Tokenizer:
        """Return a tokenizer with merges from the training split only; ``<eos>`` has id 0, ``<unk>`` id 1.

        Raises:
            DataError: the source cannot be read.
        """
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=special_tokens(),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        return self._train(corpus, tokenizers.Tokenizer(models.BPE()), trainer)

    def fingerprint(self) -> str:
        """Return a digest of the options and of the library's version."""
        return digest("bpe", [self.vocab_size, self.transforms, self.min_frequency], tokenizers.__version__)


class UnigramTokenizerTrainer(_SubwordTrainer):
    """Trainer of a unigram tokenizer (Kudo 2018, "Subword regularization") that picks the most probable segmentation.

    It works on bytes, so that no text is unknown; the original works on characters.

    Example:
        >>> tokenizer = UnigramTokenizerTrainer(vocab_size=300).train(texts)
        >>> tokenizer.decode(tokenizer.encode("a zebra"))
        'a zebra'
    """

    def __init__(self, vocab_size: int = 8000, lowercase: bool = False, transforms: Sequence[str] = ()) -> None:
        """Store the settings.

        Args:
            vocab_size: largest number of token types, ``<eos>`` and ``<unk>`` included.
            lowercase: whether to lower-case the text first.
            transforms: changes of the text, in order; see `TRANSFORMS`. Decoding returns the changed text.

        Raises:
            DataError: a value is out of range.
        """
        super().__init__(vocab_size, lowercase, transforms)

    def train(self, corpus: Corpus) -> Tokenizer:
        """Return a tokenizer with pieces from the training split only; ``<eos>`` has id 0, ``<unk>`` id 1.

        Raises:
            DataError: the source cannot be read, or the training split has no text.
        """
        if not any(line.strip() for line in training_lines(corpus)):
            raise DataError(f"{corpus.name}: the training split has no text to learn from; provide more text")
        trainer = trainers.UnigramTrainer(
            vocab_size=self.vocab_size,
            special_tokens=special_tokens(),
            unk_token=UNK,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer = self._train(corpus, tokenizers.Tokenizer(models.Unigram()), trainer)
        description: dict[str, Any] = json.loads(tokenizer.to_json())
        # Sorted, because the library orders by probability, and equal ones in the random order of a hash table.
        vocabulary = description["model"]["vocab"]
        vocabulary[2:] = sorted(vocabulary[2:])
        return Tokenizer.from_json(json.dumps(description))

    def fingerprint(self) -> str:
        """Return a digest of the options and of the library's version."""
        return digest("unigram", [self.vocab_size, self.transforms], tokenizers.__version__)
