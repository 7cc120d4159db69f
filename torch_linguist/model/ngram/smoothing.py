"""Smoothing: from counts to the log-probabilities and backoff weights of every order.

Whatever the method, the result has one form: an n-gram that was seen has its own log-probability, and a word that was
not seen after a context has that of the shorter context, times the context's backoff weight. For the interpolated
methods the shorter context's share is already within the probability of a seen n-gram.

Shape legend: V vocabulary, M[k] distinct n-grams of order k.
"""

import logging
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from torch_linguist.errors import ConfigError
from torch_linguist.model.ngram.counts import CountLevel, IntArray, NGramCounts

logger = logging.getLogger("torch_linguist.model.ngram")

FloatArray = npt.NDArray[np.float64]
Smoothing = Literal["kneser_ney", "witten_bell", "add_k", "stupid_backoff"]
SMOOTHINGS: tuple[str, ...] = get_args(Smoothing)

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""For n-grams counted once, twice, and three times or more, where the counts of counts give none (KenLM's choice)."""


@dataclass(frozen=True, slots=True)
class BackoffLevel:
    """One order k >= 2 of a smoothed model.

    Attributes:
        keys: as in `CountLevel`, int64 [M[k]].
        log_prob: natural log-probability of each n-gram's last word after its first ones, float64 [M[k]].
        log_backoff: log backoff weight of each context of k - 1 words, float64 [M[k - 1]] ([V] for k = 2).
    """

    keys: IntArray
    log_prob: FloatArray
    log_backoff: FloatArray


@dataclass(frozen=True, slots=True)
class BackoffModel:
    """A smoothed model in backoff form.

    Attributes:
        vocab_size: V.
        word_bits: bits that a word takes in a key.
        unigrams: natural log-probability of each word after no context, float64 [V].
        levels: orders 2 up to the highest.
        unseen_backoff: log weight for a context that was never seen (0 but for stupid backoff).
    """

    vocab_size: int
    word_bits: int
    unigrams: FloatArray
    levels: tuple[BackoffLevel, ...]
    unseen_backoff: float = 0.0

    def sizes(self) -> list[int]:
        """Number of n-grams of each order."""
        return [len(self.unigrams), *(len(level.keys) for level in self.levels)]


def smooth(
    counts: NGramCounts, smoothing: str, min_count: list[int], *, add_k: float, backoff_factor: float
) -> BackoffModel:
    """Estimates a model.

    Args:
        counts: of the training stream.
        smoothing: one of `SMOOTHINGS`.
        min_count: n-grams of order k that occur less than min_count[k - 1] times are left out; their mass goes to the
            backoff. Never decreasing.
        add_k: what add-k adds to every count.
        backoff_factor: what stupid backoff multiplies with for each word of context it drops.

    Returns:
        The model, without the n-grams below `min_count`.
    """
    match smoothing:
        case "kneser_ney":
            model = _kneser_ney(counts, min_count)
        case "witten_bell":
            model = _witten_bell(counts, min_count)
        case "add_k":
            model = _add_k(counts, min_count, add_k)
        case "stupid_backoff":
            model = _stupid_backoff(counts, backoff_factor)
        case _:
            raise ConfigError(f"smoothing={smoothing} is not known; choices: {', '.join(SMOOTHINGS)}")
    if all(least <= 1 for least in min_count):
        return model
    keep = [level.counts >= least for level, least in zip(counts.levels, min_count[1:], strict=True)]
    return compact(model, keep)


def compact(model: BackoffModel, keep: list[npt.NDArray[np.bool_]]) -> BackoffModel:
    """The model with only the n-grams marked, order 2 first; a kept n-gram's context must be kept too."""
    levels: list[BackoffLevel] = []
    contexts: npt.NDArray[np.bool_] | None = None
    for level, kept in zip(model.levels, keep, strict=True):
        keys, log_backoff = level.keys[kept], level.log_backoff
        if contexts is not None:
            renumbered = np.cumsum(contexts) - 1
            words = keys & ((1 << model.word_bits) - 1)
            keys = (renumbered[keys >> model.word_bits] << model.word_bits) | words
            log_backoff = log_backoff[contexts]
        levels.append(BackoffLevel(keys, level.log_prob[kept], log_backoff))
        contexts = kept
    return BackoffModel(model.vocab_size, model.word_bits, model.unigrams, tuple(levels), model.unseen_backoff)


def spell_out(contexts: IntArray, keys: IntArray, bits: int) -> IntArray:
    """The words of each n-gram of a level, [M[k], k], from those of the level below, [M[k - 1], k - 1]."""
    return np.concatenate([contexts[keys >> bits], (keys & ((1 << bits) - 1))[:, None]], axis=1, dtype=contexts.dtype)


def _kneser_ney(counts: NGramCounts, min_count: list[int]) -> BackoffModel:
    """Interpolated modified Kneser-Ney (Chen & Goodman 1999, section 4.3 and equation 26).

    As in Heafield et al. 2013, lower orders count the distinct words before an n-gram, the beginning of the stream
    being one; the unigrams are interpolated with the uniform distribution; n-grams below `min_count` are cut after the
    discounts are known and leave their whole mass to the backoff.
    """
    first = _adjusted(counts, 1).astype(np.float64)
    total = first.sum()
    amounts = _discounts(_adjusted(counts, 1), order=1)
    taken = amounts[np.minimum(first, 3).astype(np.intp)]
    probabilities = (first - taken) / total + taken.sum() / total / counts.vocab_size
    unigrams, levels = np.log(probabilities), []
    for k, level in enumerate(counts.levels, start=2):
        adjusted = _adjusted(counts, k)
        amounts = _discounts(adjusted, order=k)
        taken = amounts[np.minimum(adjusted, 3)]
        if min_count[k - 1] > 1:
            taken = np.where(level.counts < min_count[k - 1], adjusted, taken)
        prefix, contexts = level.keys >> counts.word_bits, len(probabilities)
        totals = _sums(prefix, adjusted, contexts)
        weights = _sums(prefix, taken, contexts)
        probabilities, backoff = _interpolate(level, prefix, adjusted - taken, totals, weights, probabilities)
        levels.append(BackoffLevel(level.keys, np.log(probabilities), backoff))
    return BackoffModel(counts.vocab_size, counts.word_bits, unigrams, tuple(levels))


def _adjusted(counts: NGramCounts, order: int) -> IntArray:
    """Kneser-Ney's counts: of distinct words before an n-gram, at the highest order of occurrences."""
    if order == len(counts.levels) + 1:
        return counts.unigrams if order == 1 else counts.levels[-1].counts
    size = counts.vocab_size if order == 1 else len(counts.levels[order - 2].keys)
    adjusted = np.bincount(counts.levels[order - 1].suffix, minlength=size)
    if order > 1 and counts.levels[order - 2].start >= 0:
        adjusted[counts.levels[order - 2].start] += 1
    return adjusted


def _discounts(adjusted: IntArray, order: int) -> FloatArray:
    """What modified Kneser-Ney takes from n-grams counted 0, 1, 2, and 3 times or more, float64 [4]."""
    if not len(adjusted):
        return np.array([0.0, *FALLBACK_DISCOUNTS])
    seen = np.bincount(np.minimum(adjusted, 5), minlength=6).astype(np.float64)
    if np.all(seen[1:4] > 0):
        share = seen[1] / (seen[1] + 2 * seen[2])
        amounts = np.arange(1, 4) - np.arange(2, 5) * share * seen[2:5] / seen[1:4]
        # A discount of exactly 0 would leave an unseen word nothing.
        if np.all(amounts > 0):
            return np.array([0.0, *amounts])
        problem = f"give discounts out of range ({', '.join(f'{value:.3f}' for value in amounts)})"
    else:
        holes = [count for count in range(1, 4) if not seen[count]]
        problem = f"have a hole (no n-gram is counted {' or '.join(map(str, holes))} times)"
    logger.warning(
        "order %d: the counts of counts %s, as in a tiny corpus or without its rare words; discounts %s stand in",
        order,
        problem,
        ", ".join(map(str, FALLBACK_DISCOUNTS)),
    )
    return np.array([0.0, *FALLBACK_DISCOUNTS])


def _witten_bell(counts: NGramCounts, min_count: list[int]) -> BackoffModel:
    """Interpolated Witten-Bell: a context leaves the shorter one as much as it has distinct continuations."""
    occurrences = counts.unigrams.astype(np.float64)
    distinct = float(np.count_nonzero(occurrences))
    probabilities = (occurrences + distinct / counts.vocab_size) / (occurrences.sum() + distinct)
    unigrams, levels = np.log(probabilities), []
    for level, least in zip(counts.levels, min_count[1:], strict=True):
        prefix, contexts = level.keys >> counts.word_bits, len(probabilities)
        kept = np.where(level.counts < least, 0, level.counts).astype(np.float64)
        totals = _sums(prefix, level.counts, contexts) + _sums(prefix, kept > 0, contexts)
        weights = totals - _sums(prefix, kept, contexts)
        probabilities, backoff = _interpolate(level, prefix, kept, totals, weights, probabilities)
        levels.append(BackoffLevel(level.keys, np.log(probabilities), backoff))
    return BackoffModel(counts.vocab_size, counts.word_bits, unigrams, tuple(levels))


def _sums(prefix: IntArray, values: npt.NDArray[Any], contexts: int) -> FloatArray:
    """Sum of the values [M[k]] after each context, [M[k - 1]]; exact for counts."""
    return np.bincount(prefix, values, minlength=contexts).astype(np.float64, copy=False)


def _interpolate(
    level: CountLevel,
    prefix: IntArray,
    numerators: FloatArray,
    totals: FloatArray,
    weights: FloatArray,
    lower: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Mixes a level's own estimate with that of the level below.

    Args:
        level: the level's n-grams.
        prefix: the context of each, [M[k]].
        numerators: the discounted counts [M[k]].
        totals: denominators of the contexts [M[k - 1]].
        weights: what each context leaves to the shorter one, before the division [M[k - 1]].
        lower: probabilities of the level below [M[k - 1]].

    Returns:
        Probabilities [M[k]] and log backoff weights [M[k - 1]], 0 for a context that nothing follows.
    """
    followed = totals > 0
    inverse = np.divide(1.0, totals, out=np.zeros_like(totals), where=followed)
    backoff = np.where(followed, weights * inverse, 1.0)
    probabilities = lower[level.suffix]
    probabilities *= backoff[prefix]
    probabilities += numerators * inverse[prefix]
    return probabilities, np.log(backoff)


def _add_k(counts: NGramCounts, min_count: list[int], add_k: float) -> BackoffModel:
    """Lidstone smoothing of the highest order alone: every word of the vocabulary is counted `add_k` times more.

    The lower orders are there to find the contexts and say 1 / V throughout.
    """
    uniform = -np.log(counts.vocab_size)
    if not counts.levels:
        estimate = (counts.unigrams + add_k) / (counts.unigrams.sum() + add_k * counts.vocab_size)
        return BackoffModel(counts.vocab_size, counts.word_bits, np.log(estimate), ())
    levels, contexts = [], counts.vocab_size
    for level in counts.levels[:-1]:
        levels.append(BackoffLevel(level.keys, np.full(len(level.keys), uniform), np.zeros(contexts)))
        contexts = len(level.keys)
    last = counts.levels[-1]
    prefix = last.keys >> counts.word_bits
    kept = np.where(last.counts < min_count[-1], 0, last.counts)
    totals = _sums(prefix, kept, contexts) + add_k * counts.vocab_size
    log_prob = np.log(kept + add_k) - np.log(totals)[prefix]
    log_backoff = np.log(add_k * counts.vocab_size) - np.log(totals)
    levels.append(BackoffLevel(last.keys, log_prob, log_backoff))
    return BackoffModel(counts.vocab_size, counts.word_bits, np.full(counts.vocab_size, uniform), tuple(levels))


def _stupid_backoff(counts: NGramCounts, factor: float) -> BackoffModel:
    """Relative frequencies, and a fixed factor for each word of context dropped (Brants et al. 2007).

    The scores of a context do not add up to one. Unlike the paper, a word that never occurs scores factor / V, so that
    no word of the vocabulary is impossible.
    """
    total = counts.unigrams.sum()
    seen = counts.unigrams > 0
    unigrams = np.log(np.where(seen, counts.unigrams / total, factor / counts.vocab_size))
    levels, contexts = [], counts.vocab_size
    for level in counts.levels:
        prefix = level.keys >> counts.word_bits
        totals = _sums(prefix, level.counts, contexts)
        log_prob = np.log(level.counts) - np.log(totals[prefix])
        levels.append(BackoffLevel(level.keys, log_prob, np.full(contexts, np.log(factor))))
        contexts = len(level.keys)
    return BackoffModel(counts.vocab_size, counts.word_bits, unigrams, tuple(levels), float(np.log(factor)))
