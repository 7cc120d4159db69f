"""How far a score can be trusted: confidence intervals and paired comparisons over parts of a text.

Tokens that stand near each other are not independent, so it is documents that are resampled; where a split has too few
of them, blocks of neighboring lines stand in for them.

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
"""Blocks that a split is cut into."""

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Parts:
    """The stretches of a stream that are resampled as wholes.

    Attributes:
        kind: `documents`, `blocks of lines` or `blocks of tokens`.
        offsets: where each part begins, and N at the end, int64 [U + 1].
    """

    kind: str
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of values [N] over each part, [U]."""
        running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        sums: NDArray[np.float64] = running[self.offsets[1:]] - running[self.offsets[:-1]]
        return sums


def parts_of(stream: TokenStream) -> Parts:
    """Documents where there are enough of them, else a hundred blocks of lines, else of tokens.

    Documents and blocks of lines are the same pieces of text whatever the tokenizer is.
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
        low: its lower end.
        high: its upper end.
    """

    low: float
    high: float


def loss_interval(nll: NDArray[np.float64], parts: Parts, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The 95% interval of the loss in nats per token, by bootstrap over the parts (percentiles, Efron 1979).

    Args:
        nll: of every token of the stream [N].
        parts: of the stream.
        seed: of the draws.
        resamples: how many resampled texts.

    Returns:
        The interval; of a text of one part it is the loss itself.
    """
    totals, tokens = parts.sums(nll), np.diff(parts.offsets).astype(np.float64)
    generator = np.random.default_rng(seed)
    losses = np.empty(resamples)
    for index in range(resamples):
        drawn = generator.integers(0, len(parts), len(parts))
        losses[index] = totals[drawn].sum() / tokens[drawn].sum()
    return _percentiles(losses)


@dataclass(frozen=True)
class Difference:
    """What one model loses against another on the same text.

    Attributes:
        mean: nats per unit of the text (token or byte) that the first needs more than the second.
        interval: of that mean, 95%, by paired bootstrap.
        p_value: two-sided, of the hypothesis that the two models differ by chance alone.
    """

    mean: float
    interval: Interval
    p_value: float


def paired_difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    units: float,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Difference:
    """Compares two models part by part.

    The interval resamples the parts with both models' nats together. The p-value is that of a randomization test
    (Fisher 1935; for language technology Yeh 2000): were the models equal, each part's difference might as well have
    the other sign.

    Args:
        first: nats of each part under one model [U].
        second: nats of the same parts under the other [U].
        units: what the whole text counts: its tokens where the models share them, its bytes where not.
        seed: of the draws.
        resamples: resampled texts, and signs drawn.

    Raises:
        LinguistError: the two were not measured on the same parts.
    """
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise LinguistError(f"{len(first)} and {len(second)} parts cannot be paired: score both on the same text")
    differences = first - second
    generator = np.random.default_rng(seed)
    observed = abs(differences.sum())
    means, extreme = np.empty(resamples), 0
    for index in range(resamples):
        drawn = generator.integers(0, len(differences), len(differences))
        means[index] = differences[drawn].sum() / units
        signs = generator.integers(0, 2, len(differences)) * 2 - 1
        # What is equal but for rounding counts as reached, so that the test never claims too much.
        extreme += bool(abs((signs * differences).sum()) >= observed * (1 - 1e-12))
    return Difference(
        mean=float(differences.sum() / units),
        interval=_percentiles(means),
        p_value=(extreme + 1) / (resamples + 1),
    )


def _percentiles(values: NDArray[np.float64]) -> Interval:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))
