"""The adaptive softmax: frequent tokens in a short head, rare ones in clusters of lower width.

Shape legend: B batch, T time, V vocabulary, D embedding (the width of the hidden vector given), N = B * T,
C the size of the adaptive head, K its number of tail clusters.
"""

import copy
import itertools
import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.model.outputs.linear_cross_entropy import linear_cross_entropy
from torch_linguist.model.outputs.output import LinearOutput, RankedOutput, linear, widened


class AdaptiveOutput(RankedOutput):
    """Adaptive softmax: frequent tokens in a short head, rare ones in clusters of lower width.

    Grave et al. 2017, "Efficient softmax approximation for GPUs". Unlike the paper and
    `torch.nn.AdaptiveLogSoftmaxWithLoss`, the ids need not be sorted by frequency (a buffer holds the order), the rows
    of the head may be tied to the embedding, and the cluster logits start at the logarithm of the cluster sizes, so
    that an untrained model is uniform over the vocabulary. The probabilities are exactly normalized. Without cutoffs
    the layer equals the full softmax.

    Args:
        vocab_size: V.
        input_size: D.
        cutoffs: ascending ranks at which clusters begin; None chooses by V.
        shrink: factor between the widths of successive clusters.
        tied: weight [V, D] of the embedding, whose rows serve as those of the head; None for weights of its own.
    """

    may_skip_weights = True  # A batch may hold no token of a cluster.

    def __init__(
        self,
        vocab_size: int,
        input_size: int,
        cutoffs: Sequence[int] | None = None,
        shrink: float = 4.0,
        tied: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        cutoffs = default_cutoffs(vocab_size) if cutoffs is None else list(cutoffs)
        if sorted(set(cutoffs)) != list(cutoffs) or any(not 0 < cutoff < vocab_size for cutoff in cutoffs):
            raise LinguistError(
                f"model.cutoffs={list(cutoffs)}: must ascend and lie between 1 and {vocab_size - 1} (the vocabulary)"
            )
        if shrink < 1:
            raise LinguistError(f"model.shrink={shrink}: must be at least 1")
        edges = [*cutoffs, vocab_size]
        self.head_size: int = edges[0]
        self.edges: list[int] = edges
        self.tied: bool = tied is not None
        clusters = len(edges) - 1
        if tied is None:
            self.head_weight = nn.Parameter(torch.empty(self.head_size, input_size).normal_(std=0.02))
        else:
            self.head_weight = tied
        self.cluster_weight = nn.Parameter(torch.empty(clusters, input_size).normal_(std=0.02))
        sizes = [math.log(high - low) for low, high in itertools.pairwise(edges)]
        self.head_bias = nn.Parameter(torch.tensor([0.0] * self.head_size + sizes))
        self.projections = nn.ModuleList()
        self.tails = nn.ModuleList()
        for index, (low, high) in enumerate(itertools.pairwise(edges)):
            width = max(8, int(input_size / shrink ** (index + 1)))
            self.projections.append(nn.Linear(input_size, width, bias=False))
            tail = nn.Linear(width, high - low)
            nn.init.normal_(tail.weight, std=0.02)
            nn.init.zeros_(tail.bias)
            self.tails.append(tail)
        self.register_ranks(vocab_size)

    def _head_weight(self) -> Tensor:
        """Return the rows of the head's tokens, then of the clusters: [C + K, D]."""
        weight: Tensor = self.head_weight
        if self.tied:
            weight = weight.index_select(0, self.id_of_rank[: self.head_size])
        return torch.cat([weight, self.cluster_weight])

    def forward(self, hidden: Tensor) -> Tensor:
        head = torch.log_softmax(widened(F.linear(hidden, self._head_weight(), self.head_bias)), dim=-1)
        parts = [head[..., : self.head_size]]
        for index, (projection, tail) in enumerate(zip(self.projections, self.tails)):  # noqa: B905  (TorchScript)
            within = torch.log_softmax(widened(tail(projection(hidden))), dim=-1)
            parts.append(within + head[..., self.head_size + index : self.head_size + index + 1])
        return torch.cat(parts, dim=-1).index_select(-1, self.rank_of_id)

    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        rank = self.rank_of_id[targets]
        head_target = rank
        tail_rows: list[Tensor] = []
        for index, (low, high) in enumerate(itertools.pairwise(self.edges)):
            inside = (rank >= low) & (rank < high)
            tail_rows.append(inside.nonzero().squeeze(1))
            head_target = torch.where(inside, self.head_size + index, head_target)
        nll = linear_cross_entropy(hidden, self._head_weight(), self.head_bias, head_target)
        for rows, low, projection, tail in zip(tail_rows, self.edges, self.projections, self.tails, strict=False):
            if len(rows):
                linear = cast(nn.Linear, tail)
                padded = _padded(rows)
                inner = projection(hidden.index_select(0, padded))
                inside_targets = rank.index_select(0, padded) - low
                surplus = len(padded) - len(rows)
                within = linear_cross_entropy(inner, linear.weight, linear.bias, inside_targets, padding=surplus)
                nll = nll.index_add(0, rows, within[: len(rows)])
        return nll

    @torch.no_grad()
    def start_at(self, log_probabilities: Tensor) -> bool:
        ranked = log_probabilities.index_select(0, self.id_of_rank)
        self.head_bias[: self.head_size] = ranked[: self.head_size]
        for index, (low, high) in enumerate(itertools.pairwise(self.edges)):
            mass = ranked[low:high].logsumexp(0)
            self.head_bias[self.head_size + index] = mass
            cast(nn.Linear, self.tails[index]).bias.copy_(ranked[low:high] - mass)
        return True

    def linear_layers(self) -> LinearOutput:
        head = linear(self._head_weight(), self.head_bias)
        return LinearOutput(head, self.rank_of_id.clone(), copy.deepcopy(self.projections), copy.deepcopy(self.tails))


def default_cutoffs(vocab_size: int) -> list[int]:
    """Return the default cutoffs: 2,000, then five times as many each; none below 4,000 types."""
    cutoffs: list[int] = []
    cutoff = 2000
    while 2 * cutoff <= vocab_size:
        cutoffs.append(cutoff)
        cutoff *= 5
    return cutoffs


def _padded(rows: Tensor) -> Tensor:
    """Return row numbers, padded with the first one to a multiple of 64.

    The number of targets in a cluster differs from batch to batch, and oneDNN compiles a kernel for every new shape
    (20 ms each in bfloat16). Padding leaves a handful of shapes; the surplus results are dropped.
    """
    surplus = -len(rows) % 64
    return torch.cat([rows, rows[:1].expand(surplus)])
