"""The sampled softmax: exact in scoring, an estimate over part of the vocabulary in training.

Shape legend: V vocabulary, D width of the hidden vector, N = B * T, S columns of a training step.
"""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_linguist.model.base import refuse_training_loss
from torch_linguist.model.linear_cross_entropy import linear_cross_entropy
from torch_linguist.model.output import FullOutput, RankedOutput

OUT_OF_SAMPLE = -1e4
"""Logit correction of a column that does not count."""

COLUMN_STEP = 256
"""The number of columns is rounded up to a multiple of this: each new shape costs a matrix library time."""


class SampledOutput(FullOutput, RankedOutput):
    """A full softmax whose denominator training estimates from a stratified sample of the vocabulary.

    The most frequent `head_size` types are always in, and so are the targets of the batch: what one row has for its
    next token is likely in the rows around it too, however rare it is elsewhere. Each doubling of the rank beyond the
    head is cut into strata of 2, 4, 8 … neighboring ranks, one of which is drawn at each step and stands for its
    stratum: its probability counts as many times as the stratum has types, unless it is in already; then the stratum
    counts nothing. By Zipf's law all strata hold about as much probability. The estimate of the denominator is
    unbiased, the loss therefore a little low on average (Jensen); the target's own logit is always exact. In evaluation
    mode, and without gradients, the loss is that of `FullOutput`, over all types.

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

    def use_sparse_gradients(self, enabled: Callable[[nn.Parameter], bool]) -> None:
        self.sparse = enabled(self.weight)

    def set_training_loss(self, label_smoothing: float, z_loss: float) -> None:
        refuse_training_loss(label_smoothing, z_loss)

    def _sample(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ids of the columns [S], corrections of their logits [S], and in which column each target [N] lies."""
        device = targets.device
        drawn = (torch.rand(len(self.stratum_low), device=device) * self.stratum_width).long() + self.stratum_low
        target_ranks = self.rank_of_id[targets]
        certain = torch.cat(
            [torch.arange(self.head_size, device=device), torch.unique(target_ranks[target_ranks >= self.head_size])]
        )
        place = torch.full((len(self.id_of_rank),), -1, dtype=torch.int64, device=device)
        place[certain] = torch.arange(len(certain), device=device)
        columns = torch.cat([certain, drawn])
        surplus = -len(columns) % COLUMN_STEP
        corrections = torch.zeros(len(columns) + surplus, device=device)
        # A type that is certain stands for itself: where a stratum draws it, the stratum has no say.
        weights = torch.where(place[drawn] < 0, self.stratum_width.log(), OUT_OF_SAMPLE)
        corrections[len(certain) : len(columns)] = weights
        corrections[len(columns) :] = OUT_OF_SAMPLE
        columns = torch.cat([columns, columns[:1].expand(surplus)])
        return self.id_of_rank[columns], corrections, place[target_ranks]


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
