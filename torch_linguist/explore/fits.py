"""Fitted laws of word frequencies, and statistics that compare two samples."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

GROWTH_POINTS = 200
"""Points on the curve of the vocabulary's growth."""


class PowerLaw(NamedTuple):
    """y = scale * x ** exponent, fitted on logarithms.

    Attributes:
        scale: y at x = 1.
        exponent: slope on logarithmic axes.
        r_squared: share of the variance of log y that the line explains.
    """

    scale: float
    exponent: float
    r_squared: float

    def __call__(self, x: ArrayLike) -> Floats:
        """Return the value of the law at x."""
        return np.asarray(self.scale * np.asarray(x, np.float64) ** self.exponent)


def fit_power_law(x: ArrayLike, y: ArrayLike) -> PowerLaw | None:
    """Fit log y to log x by least squares; None for fewer than three different x."""
    log_x, log_y = np.log(np.asarray(x, np.float64)), np.log(np.asarray(y, np.float64))
    if len(np.unique(log_x)) < 3:
        return None
    slope, intercept = np.polyfit(log_x, log_y, 1)
    spread = float(((log_y - log_y.mean()) ** 2).sum())
    left = float(((log_y - slope * log_x - intercept) ** 2).sum())
    return PowerLaw(float(np.exp(intercept)), float(slope), 1.0 - left / spread if spread > 0 else 1.0)


def spaced_ranks(count: int) -> NDArray[np.int64]:
    """Return integers from 1 to `count`, evenly spaced on a logarithmic axis."""
    points = max(2, round(20 * math.log10(max(count, 2))))
    return np.unique(np.geomspace(1, max(count, 1), points).round().astype(np.int64))


def fit_zipf(counts: ArrayLike) -> PowerLaw | None:
    """Fit Zipf's law, frequency against rank (Zipf 1949, "Human Behavior and the Principle of Least Effort").

    The fit uses ranks evenly spaced on the logarithmic axis; otherwise the long tail of words that occur once would
    dominate it. Zipf's exponent is the negative of the law's. Zeros among the counts are left out.
    """
    frequencies = np.sort(np.asarray(counts)[np.asarray(counts) > 0])[::-1]
    if len(frequencies) < 3:
        return None
    ranks = spaced_ranks(len(frequencies))
    return fit_power_law(ranks, frequencies[ranks - 1])


def vocabulary_growth(ids: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return numbers of tokens read, evenly spaced on a logarithmic axis, and of types met so far."""
    ids = np.asarray(ids)
    if not len(ids):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    _, first = np.unique(ids, return_index=True)
    tokens = np.unique(np.geomspace(1, len(ids), GROWTH_POINTS).round().astype(np.int64))
    return tokens, np.searchsorted(np.sort(first), tokens).astype(np.int64)


def fit_heaps(tokens: ArrayLike, types: ArrayLike) -> PowerLaw | None:
    """Fit Heaps' law, types = K * tokens ** beta (Heaps 1978, "Information Retrieval"), from 100 tokens on.

    The first words of a text are nearly all new, which the law does not describe.
    """
    tokens, types = np.asarray(tokens), np.asarray(types)
    chosen = tokens >= min(100, int(tokens.max(initial=0)) // 10)
    return fit_power_law(tokens[chosen], types[chosen])


class TwoSample(NamedTuple):
    """Distance of two samples.

    Attributes:
        statistic: from 0 (alike) to 1.
        p_value: probability of so large a statistic if both samples are drawn from one distribution.
    """

    statistic: float
    p_value: float


def kolmogorov_smirnov(first: ArrayLike, second: ArrayLike) -> TwoSample:
    """Return the two-sample Kolmogorov-Smirnov statistic, the largest distance of the distribution functions.

    The p-value is that of Kolmogorov's limiting distribution at sqrt(nm / (n + m)) * D (Smirnov 1948, "Table for
    estimating the goodness of fit of empirical distributions"). Equal values make it too large, never too small.
    """
    a, b = np.sort(np.asarray(first, np.float64)), np.sort(np.asarray(second, np.float64))
    values = np.concatenate([a, b])
    distance = np.searchsorted(a, values, side="right") / len(a) - np.searchsorted(b, values, side="right") / len(b)
    statistic = float(np.abs(distance).max())
    return TwoSample(statistic, _kolmogorov_tail(math.sqrt(len(a) * len(b) / (len(a) + len(b))) * statistic))


def _kolmogorov_tail(x: float) -> float:
    """Return P(K > x) of Kolmogorov's distribution, by the series that converges fast."""
    if x < 1e-3:
        return 1.0
    if x < 1.18:
        total = sum(math.exp(-((2 * k - 1) ** 2) * math.pi**2 / (8 * x * x)) for k in range(1, 21))
        return 1.0 - math.sqrt(2 * math.pi) / x * total
    return 2.0 * sum((1.0 if k % 2 else -1.0) * math.exp(-2.0 * k * k * x * x) for k in range(1, 21))


def total_variation(first: ArrayLike, second: ArrayLike, seed: int = 1, draws: int = 2000) -> TwoSample:
    """Return half the summed difference of the shares of categories, with the p-value of a permutation test."""
    a, b = np.asarray(first, np.int64), np.asarray(second, np.int64)
    observed = float(np.abs(a / a.sum() - b / b.sum()).sum() / 2)
    dealt = np.random.default_rng(seed).multivariate_hypergeometric(a + b, int(b.sum()), size=draws)
    others = np.abs((a + b - dealt) / a.sum() - dealt / b.sum()).sum(axis=1) / 2
    return TwoSample(observed, float((1 + (others >= observed - 1e-12).sum()) / (1 + draws)))


def jensen_shannon(first: ArrayLike, second: ArrayLike) -> float:
    """Return the Jensen-Shannon divergence of two count vectors in bits: 0 for equal shares, 1 for disjoint ones."""
    p, q = np.asarray(first, np.float64), np.asarray(second, np.float64)
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    return float((_entropy(middle) - (_entropy(p) + _entropy(q)) / 2) / math.log(2))


def _entropy(shares: Floats) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())
