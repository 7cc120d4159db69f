"""Check of backoff weights that were read from a file: probabilities after a context must sum to at most 1.

Shape legend: R n-grams, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_linguist.model.ngram.tables import Level, require

MOST_CONTEXTS = 512
"""Number of contexts of each length above 1 that are drawn; a file may contain hundreds of millions."""

MOST_CONTINUATIONS = (1 << 18, 50_000)
"""Largest number of continuations checked for contexts of one word, and for those of each other length."""

TOLERANCE = 0.2
"""Largest accepted excess of a sum over 1; with 8-bit codes, sums up to 1.07 were measured."""


def check_backoffs(unigrams: Tensor, levels: Sequence[Level]) -> None:
    """Check the sums over the vocabulary for all contexts, or for random ones if there are many.

    Args:
        unigrams: log-probabilities [V].
        levels: levels of order 2 and above.

    Raises:
        DataError: the probabilities after a context add up to more than 1.
    """
    generator = torch.Generator().manual_seed(1)
    for index, level in enumerate(levels):
        contexts = torch.randperm(len(unigrams), generator=generator)
        if index:
            size = levels[index - 1].size()
            contexts = torch.randint(max(size, 1), (min(size, MOST_CONTEXTS),), generator=generator)
        begin, end = level.ranges(contexts)
        kept = (end - begin).cumsum(0) <= MOST_CONTINUATIONS[min(index, 1)]
        contexts, begin, end = contexts[kept], begin[kept], end[kept]
        owner = torch.repeat_interleave(torch.arange(len(contexts)), end - begin)
        first = (end - begin).cumsum(0) - (end - begin)
        rows = torch.arange(len(owner)) + (begin - first)[owner]
        shorter = _spelled(levels[:index], contexts)[:, 1:]
        lower = _log_prob(unigrams, levels, shorter[owner], level.words(rows))
        above, below = torch.zeros(2, len(contexts), dtype=torch.float64)
        above.index_add_(0, owner, level.log_probs(rows).double().exp())
        below.index_add_(0, owner, lower.exp())
        total = above + level.log_backoffs(contexts).double().exp() * (1 - below).clamp_min(0)
        require(not bool((total > 1 + TOLERANCE).any()), "the probabilities after a context add up to more than 1")


def _spelled(levels: Sequence[Level], place: Tensor) -> Tensor:
    """Return the words of n-grams of the last given level (of unigrams without a level), [C, length]."""
    words: list[Tensor] = []
    for level in reversed(levels):
        words.insert(0, level.words(place))
        place = level.contexts(place)
    return torch.stack([place, *words], dim=1)


def _log_prob(unigrams: Tensor, levels: Sequence[Level], context: Tensor, word: Tensor) -> Tensor:
    """Return the log-probabilities [R] of words after contexts [R, length]."""
    length = context.shape[1]
    if length == 0:
        return unigrams[word].double()
    place = context[:, 0]
    for level, following in zip(levels, context[:, 1:].unbind(1), strict=False):
        found, exists = level.search(place, following)
        place = torch.where(exists, found, -1)
    own, exists = levels[length - 1].search(place, word)
    backoff = levels[length - 1].log_backoffs(place).double()
    shorter = backoff + _log_prob(unigrams, levels, context[:, 1:], word)
    return torch.where(exists, levels[length - 1].log_probs(own).double(), shorter)
