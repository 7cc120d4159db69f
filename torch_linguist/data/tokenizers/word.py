"""Word-level tokenizers: one token per word of the training split."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from torch_linguist.data.corpora.corpus import Corpus, digest
from torch_linguist.data.tokenizers.tokenizer import EOS, UNK, Tokenizer
from torch_linguist.data.tokenizers.tokenizer_trainer import beginning, training_lines
from torch_linguist.data.tokenizers.transforms import set_transforms, transform_chain
from torch_linguist.errors import DataError

WORD_PATTERN = (
    rf"{UNK}|{EOS}"
    r"|(?:\p{L}\.){2,}"
    r"|[\p{L}\p{M}\p{N}_]+(?:(?:['’-]|(?<=\p{N})[.,](?=\p{N}))[\p{L}\p{M}\p{N}_]+)*"
    r"|-{2,}|\.{2,}"
    r"|[^\s\p{L}\p{M}\p{N}_]"
)
"""Words with inner apostrophes and hyphens, numbers, initials (U.S.), runs of dashes or dots, single other marks."""


class WordTokenizerTrainer:
    """Trainer of a word-level tokenizer: one token per word of the training split.

    Example:
        >>> tokenizer = WordTokenizerTrainer(max_size=4).train(texts)
        >>> tokenizer.tokens
        ['<eos>', '<unk>', 'a', 'on']
    """

    def __init__(
        self,
        min_frequency: int | None = None,
        max_size: int | None = None,
        lowercase: bool = False,
        split: str = "auto",
        transforms: Sequence[str] = (),
    ) -> None:
        """Store the settings.

        Args:
            min_frequency: smallest frequency in the training split; rarer words become ``<unk>``. None means 1 if the
                text contains ``<unk>`` for its rare words (WikiText), else 2, so that training sees ``<unk>``.
            max_size: largest size of the vocabulary, ``<eos>`` and ``<unk>`` included; the rarest words are left out.
                None for no limit.
            lowercase: whether to lower-case the text first.
            split: `whitespace` (only white space separates words), `punctuation` (each mark is a token), or `auto`:
                `whitespace` if the corpus is already tokenized (detected if unknown), else `punctuation`.
            transforms: changes of the text, in order; see `TRANSFORMS`.

        Raises:
            DataError: a value is out of range.
        """
        if min_frequency is not None and min_frequency < 1:
            raise DataError(f"tokenizer.min_frequency={min_frequency}: must be at least 1")
        if max_size is not None and max_size < 3:
            raise DataError(f"tokenizer.max_size={max_size}: must be at least 3 ({EOS}, {UNK} and a word)")
        if split not in ("auto", "whitespace", "punctuation"):
            raise DataError(f"tokenizer.split={split}: must be auto, whitespace or punctuation")
        self.min_frequency = min_frequency
        self.max_size = max_size
        self.split = split
        self.transforms = transform_chain(transforms, lowercase)

    def train(self, corpus: Corpus) -> Tokenizer:
        """Return a tokenizer with the words of the training split.

        ``<eos>`` has id 0 and ``<unk>`` id 1. Words follow by descending frequency, ties in alphabetical order.

        Raises:
            DataError: no word of the training split is frequent enough.
        """
        backend = tokenizers.Tokenizer(models.WordLevel({UNK: 0}, unk_token=UNK))
        set_transforms(backend, self.transforms)
        sample = beginning(corpus)
        backend.pre_tokenizer = self._pre_tokenizer(corpus, sample)
        min_frequency = self.min_frequency or (1 if UNK in sample.split() else 2)
        size = 2**31 if self.max_size is None else self.max_size
        trainer = trainers.WordLevelTrainer(vocab_size=size, min_frequency=min_frequency, show_progress=False)
        backend.train_from_iterator(training_lines(corpus), trainer)
        ranks = backend.get_vocab()
        words = [word for word in sorted(ranks, key=ranks.__getitem__) if word not in (EOS, UNK)]
        if not words:
            raise DataError(
                f"{corpus.name}: the training split has no word that occurs {min_frequency} times or more; provide "
                "more text, set tokenizer.min_frequency=1, or choose tokenizer=bpe or tokenizer=char if spaces do not "
                "separate words"
            )
        ordered = [EOS, UNK, *words][: self.max_size]
        backend.model = models.WordLevel({word: index for index, word in enumerate(ordered)}, unk_token=UNK)
        return Tokenizer(backend)

    def fingerprint(self) -> str:
        """Return a digest of the options and of the library's version."""
        options = [self.min_frequency, self.max_size, self.transforms, self.split, WORD_PATTERN]
        return digest("word", options, "looks_tokenized 2", tokenizers.__version__)

    def _pre_tokenizer(self, corpus: Corpus, sample: str) -> Any:
        split = self.split
        if split == "auto":
            tokenized = looks_tokenized(sample) if corpus.tokenized is None else corpus.tokenized
            split = "whitespace" if tokenized else "punctuation"
        if split == "whitespace":
            return pre_tokenizers.WhitespaceSplit()
        return pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="removed", invert=True)


def word_tokenizer(tokens: Sequence[str]) -> Tokenizer:
    """Return a tokenizer of given words, which white space separates.

    Args:
        tokens: the words in the order of their ids, ``<eos>`` and ``<unk>`` among them.

    Example:
        >>> word_tokenizer(["<eos>", "<unk>", "the", "dog"]).encode("the cat")
        [2, 1]
    """
    backend = tokenizers.Tokenizer(models.WordLevel({word: index for index, word in enumerate(tokens)}, unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend)


TOKENIZED_SIGNS = frozenset(
    f"{UNK} <s> </s> @-@ @,@ @.@ -lrb- -rrb- -LRB- -RRB- `` '' &apos;s "
    "n't 's 're 've 'll 'd 'm n’t ’s ’re ’ve ’ll ’d ’m".split()
)
"""Tokens that only a tokenizer writes, or separates from their neighbors."""

TOKENIZED_SHARE = 0.8
"""Smallest share of tokenizer signs at which a text counts as tokenized."""

FULL_WIDTH = frozenset("，。、！？；：「」『』")
"""Punctuation marks of scripts without spaces, which occur inside words separated by white space."""


def looks_tokenized(text: str) -> bool:
    """Return whether white space already separates the punctuation of a text from its words.

    Marks that stand alone, split contractions (`n't`) and `<unk>` are signs of a tokenizer; marks attached to words
    are signs against one. Full stops within a line are ignored, because tokenized text keeps them in `mr.` and `inc.`.
    Marks of any script count. A text without any sign (verse, or a script without spaces) is not
    tokenized.
    """
    separated = attached = 0
    for line in text.split("\n"):
        words = line.split()
        attached += bool(words) and words[-1][-1] == "." and words[-1].strip(".") != ""
        for word in words:
            if word in TOKENIZED_SIGNS:
                separated += 1
            elif not any(map(str.isalnum, word)):
                separated += word == "." or any(map(_is_mark, word))
            else:
                attached += _is_mark(word[0]) or _is_mark(word[-1]) or not FULL_WIDTH.isdisjoint(word)
    return separated > 0 and separated >= TOKENIZED_SHARE * (separated + attached)


def _is_mark(sign: str) -> bool:
    # Apostrophes and full stops also belong to words such as 'tis and mr.; dashes stand alone in any text.
    category = unicodedata.category(sign)
    return category[0] == "P" and category not in ("Pd", "Pc") and sign not in "'’.…•&@#%*/\\"
