"""Notes on corpora with small held-out splits, or with words that a word tokenizer cannot separate."""

from collections.abc import Mapping

import numpy as np

from torch_linguist.data.stream import TokenizedCorpus

FEW_TOKENS = 1000
"""Number of held-out tokens below which a note warns: the perplexity of 1,000 tokens has an error of about 10%."""

LONG_WORD = 20
"""Average length of a word, in characters, above which white space does not separate words."""

MOST = 0.5
"""Share of unknown or unique words above which a word model learns little."""


def small_split_notes(sizes: Mapping[str, int]) -> list[str]:
    """Return a note for held-out splits that are too small to evaluate a model.

    Args:
        sizes: number of tokens of each split.
    """
    small = [f"{split} has {size:,}" for split, size in sizes.items() if split != "train" and size < FEW_TOKENS]
    if not small:
        return []
    return [
        f"tokens to judge by: {', '.join(small)}; scores on fewer than {FEW_TOKENS:,} say little, give more text or "
        "larger splits"
    ]


def word_notes(length: float, rare: Mapping[str, float]) -> list[str]:
    """Return a note if a word tokenizer does not suit a text.

    Args:
        length: average length of the words of the training split, in characters.
        rare: share of unknown tokens in each split; for train, words that occur once count as unknown.
    """
    split, share = max(rare.items(), key=lambda item: item[1])
    if length > LONG_WORD:
        reason = f"the average word has {length:.0f} characters, so spaces do not separate words here"
    elif share > MOST:
        reason = f"{share:.0%} of {split} are words that are unknown or occur once"
    else:
        return []
    return [f"tokenizer=word: {reason}; choose tokenizer=bpe or tokenizer=char"]


def corpus_notes(corpus: TokenizedCorpus) -> list[str]:
    """Return notes on a corpus whose scores would be unreliable."""
    notes = small_split_notes({split: len(stream) for split, stream in corpus.streams.items()})
    if not corpus.tokenizer.joins_words:
        return notes
    tokenizer, counts = corpus.tokenizer, corpus.token_counts().astype(np.float64)
    counts[[tokenizer.eos_id, tokenizer.unk_id]] = 0
    lengths = np.array([len(token) for token in tokenizer.tokens])
    length = float(counts @ lengths / counts.sum()) if counts.sum() else 0.0
    rare = {split: stream.oov_rate for split, stream in corpus.streams.items()}
    rare["train"] += float((counts == 1).sum()) / max(len(corpus.train), 1)
    return notes + word_notes(length, rare)
