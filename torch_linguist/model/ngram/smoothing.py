"""Smoothing: log-probabilities and backoff weights of every order, computed from counts.

All methods have the same form. A seen n-gram has its own log-probability. The probability of an unseen n-gram is that
of the n-gram without its first word, times the backoff weight of its context. In interpolated methods, the probability
of a seen n-gram already includes the share of the shorter context.

Shape legend: V vocabulary, M[k] distinct n-grams of order k, R n-grams of a part, C contexts of a part.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from torch_linguist.errors import ConfigError
from torch_linguist.model.ngram.columns import Column, Lookup, Part, Store, count_values, slices
from torch_linguist.model.ngram.counts import IntArray, NGramCounts

logger = logging.getLogger("torch_linguist.model.ngram")

FloatArray = npt.NDArray[np.float64]
Smoothing = Literal["kneser_ney", "witten_bell", "add_k", "stupid_backoff"]
SMOOTHINGS: tuple[str, ...] = get_args(Smoothing)

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Discounts of n-grams counted once, twice, and more often, if the counts of counts yield none; as in KenLM."""

Estimator = Callable[[Part, npt.NDArray[np.bool_] | None], "Estimates"]
"""Estimates a part of one level. The second argument is a mask of the pruned n-grams [R]."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """Estimates of a part of one level.

    Attributes:
        log_prob: natural log-probability of each n-gram [R].
        log_backoff: log backoff weight of each context [C].
        prob: probability of each n-gram [R]; None if the level above does not use it.
    """

    log_prob: FloatArray
    log_backoff: FloatArray
    prob: FloatArray | None = None


class Method:
    """A smoothing method on one set of counts.

    Args:
        counts: counts of the training stream.
        min_count: smallest count of each order, order 1 first.
        store: store for the columns that the method computes.
    """

    def __init__(self, counts: NGramCounts, min_count: Sequence[int], store: Store) -> None:
        self.counts, self.min_count, self.store = counts, min_count, store
        self.order = len(counts.levels) + 1
        self.unseen_backoff = 0.0

    def unigrams(self) -> Estimates:
        """Return the unigram estimates [V]."""
        raise NotImplementedError

    def level(self, k: int, lower: Column) -> Estimator:
        """Return the estimator of level k.

        Args:
            k: order.
            lower: probabilities of the level below [M[k - 1]]; empty if the method does not compute them.
        """
        raise NotImplementedError


class KneserNey(Method):
    """Interpolated modified Kneser-Ney (Chen & Goodman 1999, section 4.3 and equation 26).

    As in Heafield et al. 2013, lower orders count the distinct words before an n-gram (the beginning of the stream
    counts as one), the unigrams are interpolated with the uniform distribution, and pruned n-grams are removed after
    the discounts are computed, so that their whole mass goes to the backoff.
    """

    def unigrams(self) -> Estimates:
        first = np.asarray(self._adjusted(1)[:]).astype(np.float64)
        total = first.sum()
        taken = self._discounts(first, 1)[np.minimum(first, 3).astype(np.intp)]
        return _of_words((first - taken) / total + taken.sum() / total / self.counts.vocab_size)

    def level(self, k: int, lower: Column) -> Estimator:
        level, adjusted = self.counts.levels[k - 2], self._adjusted(k)
        amounts, lookup = self._discounts(adjusted, k), Lookup(lower, self.store.block)

        def estimate(part: Part, dropped: npt.NDArray[np.bool_] | None) -> Estimates:
            own = adjusted[part.rows]
            taken = amounts[np.minimum(own, 3)]
            if dropped is not None:
                taken = np.where(dropped, own, taken)
            totals, weights = _sums(part, own), _sums(part, taken)
            return _interpolated(part, own - taken, totals, weights, lookup(level.suffix[part.rows]))

        return estimate

    def _adjusted(self, k: int) -> Column:
        """Return the number of distinct words before each n-gram [M[k]]; for the highest order, its occurrences."""
        if k == self.order:
            return self.counts.unigrams if k == 1 else self.counts.levels[-1].counts
        above = self.counts.levels[k - 1].suffix
        if k == 1:
            return count_values(above, self.counts.vocab_size, self.store, "adjusted1")
        level = self.counts.levels[k - 2]
        return count_values(above, len(level.keys), self.store, f"adjusted{k}", extra=level.start)

    def _discounts(self, adjusted: Column, k: int) -> FloatArray:
        seen = np.zeros(6)
        for part in slices(len(adjusted), self.store.rows):
            seen += np.bincount(np.minimum(adjusted[part], 5).astype(np.intp), minlength=6)
        return _discounts(seen, k)


def _discounts(seen: FloatArray, order: int) -> FloatArray:
    """Return the modified Kneser-Ney discounts of counts of 0, 1, 2, and 3 or more, float64 [4].

    Args:
        seen: number of n-grams counted 0, 1, 2, 3, 4, and 5 times or more [6].
        order: order of the n-grams, for the warning.
    """
    if not seen.any():
        return np.array([0.0, *FALLBACK_DISCOUNTS])
    if np.all(seen[1:4] > 0):
        share = seen[1] / (seen[1] + 2 * seen[2])
        amounts = np.arange(1, 4) - np.arange(2, 5) * share * seen[2:5] / seen[1:4]
        # A discount of 0 would leave no mass for unseen words.
        if np.all(amounts > 0):
            return np.array([0.0, *amounts])
        problem = f"yield discounts out of range ({', '.join(f'{value:.3f}' for value in amounts)})"
    else:
        holes = [count for count in range(1, 4) if not seen[count]]
        problem = f"have a hole (no n-gram is counted {' or '.join(map(str, holes))} times)"
    logger.warning(
        "order %d: the counts of counts %s, as in a tiny corpus or one without its rare words; using the discounts %s",
        order,
        problem,
        ", ".join(map(str, FALLBACK_DISCOUNTS)),
    )
    return np.array([0.0, *FALLBACK_DISCOUNTS])


class WittenBell(Method):
    """Interpolated Witten-Bell: the weight of the shorter context is the number of distinct continuations."""

    def unigrams(self) -> Estimates:
        occurrences = self.counts.unigrams.astype(np.float64)
        distinct = float(np.count_nonzero(occurrences))
        return _of_words((occurrences + distinct / self.counts.vocab_size) / (occurrences.sum() + distinct))

    def level(self, k: int, lower: Column) -> Estimator:
        level, lookup = self.counts.levels[k - 2], Lookup(lower, self.store.block)

        def estimate(part: Part, dropped: npt.NDArray[np.bool_] | None) -> Estimates:
            counts = level.counts[part.rows]
            kept = _without(counts, dropped).astype(np.float64)
            totals = _sums(part, counts) + _sums(part, kept > 0)
            weights = totals - _sums(part, kept)
            return _interpolated(part, kept, totals, weights, lookup(level.suffix[part.rows]))

        return estimate


class AddK(Method):
    """Lidstone smoothing of the highest order: `add_k` is added to the count of every word of the vocabulary.

    Lower orders only store the contexts; their probabilities are 1 / V.
    """

    def __init__(self, counts: NGramCounts, min_count: Sequence[int], store: Store, add_k: float) -> None:
        super().__init__(counts, min_count, store)
        self.add_k, self.added = add_k, add_k * counts.vocab_size

    def unigrams(self) -> Estimates:
        if self.order > 1:
            return Estimates(np.full(self.counts.vocab_size, -np.log(self.counts.vocab_size)), np.empty(0))
        return _of_words((self.counts.unigrams + self.add_k) / (self.counts.unigrams.sum() + self.added))

    def level(self, k: int, lower: Column) -> Estimator:
        level, uniform = self.counts.levels[k - 2], -np.log(self.counts.vocab_size)

        def estimate(part: Part, dropped: npt.NDArray[np.bool_] | None) -> Estimates:
            if k < self.order:
                return Estimates(np.full(len(part.prefix), uniform), np.zeros(part.width))
            kept = _without(level.counts[part.rows], dropped)
            totals = _sums(part, kept) + self.added
            log_prob = np.log(kept + self.add_k) - np.log(totals)[part.prefix]
            return Estimates(log_prob, np.log(self.added) - np.log(totals))

        return estimate


class StupidBackoff(Method):
    """Relative frequencies, with a fixed factor for each dropped word of context (Brants et al. 2007).

    The scores after a context do not sum to one. Unlike in the paper, a word that never occurs scores factor / V, so
    that every word of the vocabulary is possible.
    """

    def __init__(self, counts: NGramCounts, min_count: Sequence[int], store: Store, factor: float) -> None:
        super().__init__(counts, min_count, store)
        self.factor, self.unseen_backoff = factor, float(np.log(factor))

    def unigrams(self) -> Estimates:
        counts = self.counts.unigrams
        return _of_words(np.where(counts > 0, counts / counts.sum(), self.factor / self.counts.vocab_size))

    def level(self, k: int, lower: Column) -> Estimator:
        level = self.counts.levels[k - 2]

        def estimate(part: Part, dropped: npt.NDArray[np.bool_] | None) -> Estimates:
            counts = level.counts[part.rows]
            log_prob = np.log(counts) - np.log(_sums(part, counts)[part.prefix])
            return Estimates(log_prob, np.full(part.width, np.log(self.factor)))

        return estimate


def smoothing_method(
    name: str, counts: NGramCounts, min_count: Sequence[int], store: Store, *, add_k: float, backoff_factor: float
) -> Method:
    """Return the smoothing method with a name, one of `SMOOTHINGS`.

    Raises:
        ConfigError: the name is unknown.
    """
    match name:
        case "kneser_ney":
            return KneserNey(counts, min_count, store)
        case "witten_bell":
            return WittenBell(counts, min_count, store)
        case "add_k":
            return AddK(counts, min_count, store, add_k)
        case "stupid_backoff":
            return StupidBackoff(counts, min_count, store, backoff_factor)
    raise ConfigError(f"smoothing={name} is not known; choices: {', '.join(SMOOTHINGS)}")


def _of_words(prob: FloatArray) -> Estimates:
    return Estimates(np.log(prob), np.empty(0), prob)


def _sums(part: Part, values: npt.NDArray[Any]) -> FloatArray:
    """Return the sum of the values [R] of each context [C]; exact for counts."""
    return np.bincount(part.prefix, values, minlength=part.width).astype(np.float64, copy=False)


def _without(counts: IntArray, dropped: npt.NDArray[np.bool_] | None) -> IntArray:
    """Return the counts [R], with 0 for pruned n-grams."""
    return counts if dropped is None else np.where(dropped, 0, counts)


def _interpolated(
    part: Part, numerators: FloatArray, totals: FloatArray, weights: FloatArray, lower: FloatArray
) -> Estimates:
    """Interpolate the estimates of a part with those of the level below.

    Args:
        part: n-grams.
        numerators: discounted counts [R].
        totals: denominator of each context [C].
        weights: mass that each context leaves to the shorter one, before the division [C].
        lower: probability of each n-gram without its first word [R], overwritten.
    """
    followed = totals > 0
    inverse = np.divide(1.0, totals, out=np.zeros_like(totals), where=followed)
    backoff = np.where(followed, weights * inverse, 1.0)
    lower *= backoff[part.prefix]
    lower += numerators * inverse[part.prefix]
    return Estimates(np.log(lower), np.log(backoff), lower)
