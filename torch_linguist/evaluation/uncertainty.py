"""Confidence intervals and paired comparisons, by resampling parts of a text.

Neighboring tokens are not independent, so documents are resampled as wholes. Where a split has too few documents,
blocks of neighboring lines take their place.

Shape legend: N tokens of a stream, U parts of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torch_linguist.data import TokenStream
from torch_linguist.errors import LinguistError

LEAST_DOCUMENTS = 20
"""With fewer documents, blocks of lines are resampled instead."""

BLOCKS = 100
"""Number of blocks that a split is cut into."""

RESAMPLES = 2000
CONFIDENCE = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Parts:
    """Stretches of a stream that are resampled as wholes.

    Attributes:
        kind: `documents`, `blocks of lines` or `blocks of tokens`.
        offsets: start of each part, and N at the end, int64 [U + 1].

    Example:
        >>> Parts("documents", np.array([0, 2, 3])).sums(np.array([1.0, 2.0, 4.0])).tolist()
        [3.0, 4.0]
    """

    kind: str
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Floats:
        """Tokens of each part [U]."""
        return np.diff(self.offsets).astype(np.float64)

    def sums(self, values: Floats) -> Floats:
        """Return the sum of values [N] over each part [U]."""
        running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        return np.asarray(running[self.offsets[1:]] - running[self.offsets[:-1]])


def parts_of(stream: TokenStream) -> Parts:
    """Return the documents of a stream if there are enough, else a hundred blocks of lines, else blocks of tokens.

    Documents and blocks of lines are the same stretches of text for every tokenizer.

    Example:
        >>> parts_of(corpus.train).kind, len(parts_of(corpus.train))
        ('blocks of lines', 40)
    """
    documents = np.unique(np.asarray(stream.document_offsets))
    if len(documents) > LEAST_DOCUMENTS:
        return Parts("documents", documents)
    lines = np.asarray(stream.line_offsets)
    if stream.num_lines >= LEAST_DOCUMENTS:
        blocks = min(BLOCKS, stream.num_lines)
        return Parts("blocks of lines", np.unique(lines[np.linspace(0, stream.num_lines, blocks + 1).astype(np.int64)]))
    blocks = min(BLOCKS, len(stream))
    return Parts("blocks of tokens", np.linspace(0, len(stream), blocks + 1).astype(np.int64))


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: lower end.
        high: upper end.

    Example:
        >>> Interval(low=1.5, high=2.0).high
        2.0
    """

    low: float
    high: float


def loss_interval(nll: Floats, parts: Parts, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Return the 95% interval of the loss, by bootstrap over the parts (percentiles, Efron 1979).

    Args:
        nll: nats of every token of the stream [N].
        parts: parts of the stream.
        seed: random seed.
        resamples: number of resampled texts.

    Returns:
        The interval in nats per token. For a text of one part, both ends are the loss.

    Example:
        >>> parts = Parts("documents", np.arange(0, 101, 10))
        >>> interval = loss_interval(np.random.default_rng(1).random(100), parts)
        >>> interval.low < 0.5 < interval.high
        True
    """
    totals, generator = parts.sums(nll), np.random.default_rng(seed)
    return _percentiles(
        np.array([_resampled_ratio(totals, parts.lengths, generator) for _ in range(resamples)])
    )  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """Difference of two models on the same text.

    Attributes:
        mean: nats per unit of the text (token or byte) that the first model needs more than the second.
        interval: 95% interval of that mean, by paired bootstrap.
        p_value: two-sided p-value of the hypothesis that the models differ by chance alone.

    Example:
        >>> Difference(mean=0.1, interval=Interval(-0.1, 0.3), p_value=0.4).interval.low < 0
        True
    """

    mean: float
    interval: Interval
    p_value: float


def paired_difference(
    first: Floats, second: Floats, units: Floats, *, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Compare two models part by part.

    The interval resamples parts with the nats of both models. Each resampled text is divided by its own size: parts
    differ in length, and a fixed size would count the variation of the total length as uncertainty. The p-value is that
    of a randomization test (Fisher 1935; for language technology Yeh 2000): if the models were equal, the difference of
    each part could as well have the opposite sign.

    Args:
        first: nats of each part under one model [U].
        second: nats of the same parts under the other model [U].
        units: size of each part, in tokens if the models share them, else in bytes [U].
        seed: random seed.
        resamples: number of resampled texts, and of drawn sign vectors.

    Raises:
        LinguistError: the arrays differ in length, or are empty.

    Example:
        >>> first, second = np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0, 3.0])
        >>> paired_difference(first, second, np.ones(3)).mean
        2.0
    """
    if not first.shape == second.shape == units.shape or first.ndim != 1 or len(first) == 0:
        raise LinguistError(f"{len(first)} and {len(second)} parts cannot be paired: score both on the same text")
    differences = first - second
    generator = np.random.default_rng(seed)
    observed = abs(differences.sum())
    means, extreme = np.empty(resamples), 0
    for index in range(resamples):
        means[index] = _resampled_ratio(differences, units, generator)
        signs = generator.integers(0, 2, len(differences)) * 2 - 1
        # Sums that are equal but for rounding count as reached, so that the test never claims too much.
        extreme += bool(abs((signs * differences).sum()) >= observed * (1 - 1e-12))
    return Difference(
        mean=float(differences.sum() / units.sum()),
        interval=_percentiles(means),
        p_value=(extreme + 1) / (resamples + 1),
    )


def _resampled_ratio(totals: Floats, sizes: Floats, generator: np.random.Generator) -> float:
    drawn = generator.integers(0, len(totals), len(totals))
    return float(totals[drawn].sum() / sizes[drawn].sum())


def _percentiles(values: Floats) -> Interval:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))
