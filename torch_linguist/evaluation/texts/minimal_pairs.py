"""Minimal pairs: whether a model gives the acceptable sentence the higher probability.

The measure is that of BLiMP (Warstadt et al. 2020, "BLiMP: The Benchmark of Linguistic Minimal Pairs for English"): the
log-probabilities of whole sentences are compared. Difference: ties, which unknown words cause, count as half.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError

CONTRACTION = re.compile(r"(?<=[A-Za-z])('(?:s|S|re|ve|ll|d|m))\b")
PUNCTUATION = re.compile(r"([.,!?;:()\"“”])")
QUANTILE = 1.959963984540054
"""Quantile of the normal distribution for 95% intervals."""

TOLERANCE = 1e-6
"""Differences in nats up to which two sentences tie; they are rounding errors."""


@dataclass(frozen=True, slots=True)
class MinimalPair:
    """Two sentences that differ in one respect.

    Attributes:
        good: the acceptable sentence.
        bad: the other one.
        group: group of the pair, such as a paradigm of BLiMP.
    """

    good: str
    bad: str
    group: str = "all"


@dataclass(frozen=True)
class PairAccuracy:
    """Accuracy of a model on the pairs of a group.

    Attributes:
        group: name of the group.
        pairs: number of pairs.
        accuracy: share of the pairs decided correctly, ties counted as half.
        low: lower end of the accuracy's 95% interval (Wilson 1927).
        high: upper end of the interval.
        ties: pairs whose sentences have the same probability.
        unknown: pairs in which a sentence holds an unknown word.
    """

    group: str
    pairs: int
    accuracy: float
    low: float
    high: float
    ties: int
    unknown: int


def pair_accuracy(group: str, good: Sequence[float], bad: Sequence[float], unknown: Sequence[bool]) -> PairAccuracy:
    """Compute the accuracy over pairs.

    Args:
        group: name for the result.
        good: log-probability of each acceptable sentence, in nats.
        bad: log-probability of each other sentence.
        unknown: whether either sentence holds an unknown word.

    Raises:
        LinguistError: there are no pairs.
    """
    if not good:
        raise LinguistError(f"{group}: holds no pairs")
    points = [decided(first, second) for first, second in zip(good, bad, strict=True)]
    share, low, high = wilson_interval(sum(points), len(points))
    return PairAccuracy(group, len(points), share, low, high, points.count(0.5), sum(unknown))


def decided(good: float, bad: float) -> float:
    """Return 1 if the acceptable sentence is the more probable one, 0 if it is not, 0.5 for a tie."""
    return 0.5 if abs(good - bad) <= TOLERANCE else float(good > bad)


def wilson_interval(successes: float, trials: int) -> tuple[float, float, float]:
    """Return a share with its 95% interval (Wilson 1927).

    Args:
        successes: number of successes; halves are allowed.
        trials: number of trials, at least 1.

    Returns:
        The share, and the lower and upper end of its interval.
    """
    share, square = successes / trials, QUANTILE**2
    center = (share + square / (2 * trials)) / (1 + square / trials)
    spread = QUANTILE / (1 + square / trials) * math.sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    return share, max(0.0, center - spread), min(1.0, center + spread)


def sign_test(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of an exact sign test over the pairs that two models decide differently."""
    wins = sum(a > b for a, b in zip(first, second, strict=True))
    losses = sum(a < b for a, b in zip(first, second, strict=True))
    trials, fewer = wins + losses, min(wins, losses)
    if trials == 0:
        return 1.0
    # Logarithms of binomial coefficients: of tens of thousands of pairs the coefficients themselves overflow a float.
    logs = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) - trials * math.log(2)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(log) for log in logs))


def separated_words(texts: Iterable[str], tokenizer: Tokenizer) -> list[str]:
    """Separate the words of sentences where the tokenizer cuts at blanks alone; return them unchanged otherwise.

    Blanks set punctuation and contractions apart. The vocabulary decides how contractions are cut: `ca n't` if it holds
    `n't`, `can 't` if it holds `'t`.
    """
    # A comma that sticks to its word makes one token where blanks alone separate words.
    if len(tokenizer.encode("a,")) != 1:
        return list(texts)
    negation = "n't" if "n't" in set(tokenizer.tokens) else "'t"
    return [_separated(text, negation) for text in texts]


def _separated(text: str, negation: str) -> str:
    text = PUNCTUATION.sub(r" \1 ", text)
    text = re.sub(r"(?<=[A-Za-z])n't\b", f" {negation}" if negation == "n't" else "n 't", text)
    return " ".join(CONTRACTION.sub(lambda match: f" {match[1]}", text).split())
