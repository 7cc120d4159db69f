"""The sampled softmax: exact in scoring, an estimate over part of the vocabulary in training.

Shape legend: V vocabulary, D width of the hidden vector, N = B * T, S columns of a training step.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_linguist.model.linear_cross_entropy import linear_cross_entropy
from torch_linguist.model.output import FullOutput, RankedOutput

OUT_OF_SAMPLE = -1e4
"""Logit correction of a column that is there for its own targets alone."""

COLUMN_STEP = 256
"""The number of columns is rounded up to a multiple of this: each new shape costs a matrix library time."""


class SampledOutput(FullOutput, RankedOutput):
    """A full softmax whose denominator training estimates from a stratified sample of the vocabulary.

    The most frequent `head_size` types are always in. Each doubling of the rank beyond them is cut into strata of 2, 4,
    8 … neighbouring ranks, one of which is drawn at each step and stands for its stratum: its probability counts as
    many times as the stratum has types. By Zipf's law all strata then hold about as much probability. The estimate of
    the denominator is unbiased, the loss therefore a little low on average (Jensen); the target's own logit is always
    exact. In evaluation mode, and without gradients, the loss is that of `FullOutput`, over all types.

    Sampling the denominator goes back to Bengio & Senécal 2008, "Adaptive importance sampling to accelerate training of
    a neural probabilistic language model". It differs in that the sample is stratified by rank, the same for all rows
    of a batch, and that no proposal is learned.

    Args:
        vocab_size: V.
        input_size: D.
        tied: the embedding's weight [V, D] to share; None for a weight of its own.
        head_size: types that are always in, at most V.

    Attributes:
        sparse: whether the weight's gradient is a sparse tensor of the rows in the sample, for an optimizer that
            takes those.
    """

    def __init__(
        self, vocab_size: int, input_size: int, tied: nn.Parameter | None = None, head_size: int = 512
    ) -> None:
        super().__init__(vocab_size, input_size, tied)
        self.head_size: int = head_size
        self.sparse: bool = False
        self.register_ranks(vocab_size)
        lows, widths = _strata(self.head_size, vocab_size)
        self.register_buffer("stratum_low", torch.tensor(lows, dtype=torch.int64), persistent=False)
        self.register_buffer("stratum_width", torch.tensor(widths, dtype=torch.int64), persistent=False)

    stratum_low: Tensor
    stratum_width: Tensor

    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled() and len(self.stratum_low)):
            return super().nll(hidden, targets)
        columns, corrections, positions = self._sample(targets)
        weight = F.embedding(columns, self.weight, sparse=self.sparse)
        bias = self.bias.index_select(0, columns)
        return linear_cross_entropy(hidden, weight, bias, positions, corrections=corrections)

    def _sample(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ids of the columns [S], corrections of their logits [S], and in which column each target [N] lies."""
        device = targets.device
        drawn = (torch.rand(len(self.stratum_low), device=device) * self.stratum_width).long() + self.stratum_low
        target_ranks = self.rank_of_id[targets]
        # Targets below the head that were not drawn come after the sample, for their own rows alone.
        place = torch.full((len(self.id_of_rank),), -1, dtype=torch.int64, device=device)
        head = torch.arange(self.head_size, device=device)
        sampled = torch.cat([head, drawn])
        place[sampled] = torch.arange(len(sampled), device=device)
        missing = torch.unique(target_ranks[place[target_ranks] < 0])
        columns = torch.cat([sampled, missing])
        place[missing] = torch.arange(len(sampled), len(columns), device=device)
        positions = place[target_ranks]
        surplus = -len(columns) % COLUMN_STEP
        columns = torch.cat([columns, columns[:1].expand(surplus)])
        corrections = torch.full((len(columns),), OUT_OF_SAMPLE, device=device)
        corrections[: self.head_size] = 0.0
        corrections[self.head_size : len(sampled)] = self.stratum_width.log()
        return self.id_of_rank[columns], corrections, positions


def _strata(head_size: int, vocab_size: int) -> tuple[list[int], list[int]]:
    """First rank and number of ranks of each stratum: 2 a stratum up to rank 2 * head_size, 4 up to 4 *, and so on."""
    lows: list[int] = []
    for doubling in itertools.count():
        low, width = head_size << doubling, 2 << doubling
        if low >= vocab_size:
            break
        lows.extend(range(low, min(2 * low, vocab_size), width))
    widths = [high - low for low, high in itertools.pairwise([*lows, vocab_size])] if lows else []
    return lows, widths


__all__ = ["SampledOutput"]
