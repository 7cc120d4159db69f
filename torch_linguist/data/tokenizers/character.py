"""Tokenizers whose tokens are single characters or single bytes."""

from collections import Counter
from collections.abc import Sequence

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from torch_linguist.data.corpora.corpus import Corpus, digest
from torch_linguist.data.tokenizers.subword import sealed
from torch_linguist.data.tokenizers.tokenizer import EOS, UNK, Tokenizer
from torch_linguist.data.tokenizers.tokenizer_trainer import training_lines
from torch_linguist.data.tokenizers.transforms import set_transforms, transform_chain
from torch_linguist.errors import DataError


class CharTokenizerTrainer:
    """Trainer of a tokenizer with one token per character (Unicode code point) of the training split, blanks included.

    A literal ``<unk>`` in the text is one token, as with every other tokenizer.

    Example:
        >>> tokenizer = CharTokenizerTrainer().train(texts)
        >>> len(tokenizer.encode("a cat"))
        5
    """

    def __init__(self, min_frequency: int = 1, lowercase: bool = False, transforms: Sequence[str] = ()) -> None:
        """Store the settings.

        Args:
            min_frequency: smallest frequency in the training split; rarer characters become ``<unk>``.
            lowercase: whether to lower-case the text first.
            transforms: changes of the text, in order; see `TRANSFORMS`.

        Raises:
            DataError: a value is out of range.
        """
        if min_frequency < 1:
            raise DataError(f"tokenizer.min_frequency={min_frequency}: must be at least 1")
        self.min_frequency = min_frequency
        self.transforms = transform_chain(transforms, lowercase)

    def train(self, corpus: Corpus) -> Tokenizer:
        """Return a tokenizer with the characters of the training split; the most frequent have the lowest ids.

        Raises:
            DataError: no character of the training split is frequent enough.
        """
        backend = tokenizers.Tokenizer(models.BPE())
        set_transforms(backend, self.transforms)
        counts: Counter[str] = Counter()
        for line in training_lines(corpus):
            for part in line.split(UNK):
                counts.update(backend.normalizer.normalize_str(part) if backend.normalizer else part)
        kept = [character for character, count in counts.items() if count >= self.min_frequency]
        if not kept:
            raise DataError(
                f"{corpus.name}: the training split has no character that occurs {self.min_frequency} times or more; "
                "provide more text, or set tokenizer.min_frequency=1"
            )
        ordered = [EOS, UNK, *sorted(kept, key=lambda character: (-counts[character], character))]
        # BPE without merges splits into characters, with one lookup per character.
        backend.model = models.BPE({token: index for index, token in enumerate(ordered)}, [], unk_token=UNK)
        backend.decoder = decoders.Fuse()
        backend.add_tokens([AddedToken(UNK, normalized=False)])
        return sealed(backend)

    def fingerprint(self) -> str:
        """Return a digest of the options and of the library's version."""
        return digest("char", [self.min_frequency, self.transforms], tokenizers.__version__)


class ByteTokenizerTrainer:
    """Trainer of a tokenizer with one token per UTF-8 byte (256), the same for every corpus.

    Example:
        >>> ByteTokenizerTrainer().train(texts).vocab_size  # 256 bytes, <eos> and <unk>.
        258
    """

    def __init__(self, lowercase: bool = False, transforms: Sequence[str] = ()) -> None:
        """Store the settings.

        Args:
            lowercase: whether to lower-case the text first.
            transforms: changes of the text, in order; see `TRANSFORMS`. Decoding returns the changed text.

        Raises:
            DataError: there is no such transform.
        """
        self.transforms = transform_chain(transforms, lowercase)

    def train(self, corpus: Corpus) -> Tokenizer:
        """Return the tokenizer; the corpus is ignored. ``<eos>`` has id 0, ``<unk>`` id 1."""
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: index for index, token in enumerate([EOS, UNK, *alphabet])}
        backend = tokenizers.Tokenizer(models.BPE(vocabulary, []))
        set_transforms(backend, self.transforms)
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_tokens([AddedToken(UNK, normalized=False)])
        return sealed(backend)

    def fingerprint(self) -> str:
        """Return a digest of the options and of the library's version."""
        return digest("byte", self.transforms, tokenizers.__version__)
