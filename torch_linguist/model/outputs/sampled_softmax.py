"""The sampled softmax: exact in scoring, an estimate over part of the vocabulary in training.

Shape legend: V vocabulary, D width of the hidden vector, N = B * T, S columns of a training step.
"""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_linguist.model.outputs.linear_cross_entropy import linear_cross_entropy
from torch_linguist.model.outputs.output import refuse_training_loss, FullOutput, RankedOutput

OUT_OF_SAMPLE = -1e4
"""Logit correction of a column that does not count."""

LIKELY = 1024
"""Types that are added to a sample because given hidden vectors make them likely."""

COLUMN_STEP = 256
"""Multiple that the number of columns is rounded up to: matrix libraries spend time on every new shape."""


class SampledOutput(FullOutput, RankedOutput):
    """A full softmax whose denominator is estimated in training, from a stratified sample of the vocabulary.

    The sample always contains the `head_size` most frequent types and the targets of the batch: the next token of one
    row is likely in its neighbors too, however rare it is elsewhere. Each doubling of the rank beyond the head is
    divided into strata of 2, 4, 8 … neighboring ranks. At each step one type of each stratum is drawn and counts once
    for every type of its stratum; if it is in the sample already, the stratum counts nothing. By Zipf's law all strata
    have about the same probability. The estimate of the denominator is unbiased, so the loss is slightly low on average
    (Jensen's inequality); the logit of the target is exact. In evaluation mode and without gradients, the loss is that
    of `FullOutput`, over all types.

    Sampling the denominator goes back to Bengio & Senécal 2008, "Adaptive importance sampling to accelerate training of
    a neural probabilistic language model". Here the sample is stratified by rank and shared by all rows of a batch, and
    no proposal distribution is learned.

    Args:
        vocab_size: V.
        input_size: D.
        tied: weight [V, D] of the embedding to share; None for a weight of its own.
        head_size: number of types that are always in the sample, at most V.
        bias: see `FullOutput`.

    Attributes:
        sparse: whether the gradient of the weight is a sparse tensor of the sampled rows.
    """

    def __init__(
        self,
        vocab_size: int,
        input_size: int,
        tied: nn.Parameter | None = None,
        head_size: int = 512,
        bias: bool = True,
    ) -> None:
        super().__init__(vocab_size, input_size, tied, bias)
        self.head_size: int = head_size
        self.sparse: bool = False
        self.samples_vocabulary = True
        self._drawn: tuple[Tensor, Tensor, Tensor] | None = None
        self.register_ranks(vocab_size)
        lows, widths = strata(self.head_size, vocab_size)
        self.register_buffer("stratum_low", torch.tensor(lows, dtype=torch.int64), persistent=False)
        self.register_buffer("stratum_width", torch.tensor(widths, dtype=torch.int64), persistent=False)

    stratum_low: Tensor
    stratum_width: Tensor

    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled() and len(self.stratum_low)):
            return super().nll(hidden, targets)
        columns, corrections, positions = self.sample(targets)
        weight = F.embedding(columns, self.weight, sparse=self.sparse)
        bias = self.bias.index_select(0, columns)
        return linear_cross_entropy(hidden, weight, bias, positions, corrections=corrections)

    def use_sparse_gradients(self, enabled: Callable[[nn.Parameter], bool]) -> None:
        self.sparse = enabled(self.weight)

    def set_training_loss(self, label_smoothing: float, z_loss: float) -> None:
        refuse_training_loss(label_smoothing, z_loss)

    @torch.no_grad()
    def draw_sample(self, targets: Tensor, generator: torch.Generator, hidden: Tensor | None = None) -> None:
        if not len(self.stratum_low):
            return
        if hidden is not None:
            probabilities = torch.softmax(self(hidden), dim=-1).mean(0)
            targets = torch.cat([targets, probabilities.topk(min(LIKELY, len(probabilities))).indices])
        self._drawn = self._draw(targets, generator)

    def sample(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the ids of the columns [S], the corrections of their logits [S], and the column of each target [N].

        The sample is the one that `draw_sample` drew since the last call, or a new one for these targets.
        """
        columns, corrections, place = self._drawn or self._draw(targets)
        self._drawn = None
        return columns, corrections, place[self.rank_of_id[targets]]

    def _draw(self, targets: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the ids of the columns [S], the corrections of their logits [S], and the column of each rank [V]."""
        device = targets.device
        uniform = torch.rand(len(self.stratum_low), device=device, generator=generator)
        drawn = (uniform * self.stratum_width).long() + self.stratum_low
        target_ranks = self.rank_of_id[targets]
        certain = torch.cat(
            [torch.arange(self.head_size, device=device), torch.unique(target_ranks[target_ranks >= self.head_size])]
        )
        place = torch.full((len(self.id_of_rank),), -1, dtype=torch.int64, device=device)
        place[certain] = torch.arange(len(certain), device=device)
        columns = torch.cat([certain, drawn])
        surplus = -len(columns) % COLUMN_STEP
        corrections = torch.zeros(len(columns) + surplus, device=device)
        # A stratum does not count if it draws a type that is in the sample anyway.
        weights = torch.where(place[drawn] < 0, self.stratum_width.log(), OUT_OF_SAMPLE)
        corrections[len(certain) : len(columns)] = weights
        corrections[len(columns) :] = OUT_OF_SAMPLE
        columns = torch.cat([columns, columns[:1].expand(surplus)])
        return self.id_of_rank[columns], corrections, place


def strata(head_size: int, vocab_size: int) -> tuple[list[int], list[int]]:
    """Return the first rank and the width of each stratum: 2 up to rank 2 * head_size, 4 up to 4 * head_size, ..."""
    lows: list[int] = []
    for doubling in itertools.count():
        low, width = head_size << doubling, 2 << doubling
        if low >= vocab_size:
            break
        lows.extend(range(low, min(2 * low, vocab_size), width))
    widths = [high - low for low, high in itertools.pairwise([*lows, vocab_size])] if lows else []
    return lows, widths
