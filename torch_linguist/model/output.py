"""Output layers: from hidden vectors to log-probabilities over the vocabulary.

Shape legend: B batch, T time, V vocabulary, D embedding (the width of the hidden vector given), N = B * T.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_linguist.model.linear_cross_entropy import linear_cross_entropy


class OutputLayer(nn.Module):
    """From hidden [..., D] to logits [..., V], and straight to the nll of given targets."""

    @abstractmethod
    def forward(self, hidden: Tensor) -> Tensor:
        """Logits, float32 (or float64) [..., V], of hidden vectors [..., D]."""

    @abstractmethod
    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood, float32 (or float64) [N], of targets [N] after hidden vectors [N, D]."""

    def order_by(self, token_counts: Tensor) -> None:
        """Told the frequency of each token [V]; only layers that sort their vocabulary use it."""

    @abstractmethod
    def start_at(self, log_probabilities: Tensor) -> None:
        """Makes the biases such that a hidden vector of zeros predicts these log-probabilities [V]."""


class FullOutput(OutputLayer):
    """A linear layer and a softmax over the whole vocabulary, with the loss fused into the product.

    Args:
        vocab_size: V.
        input_size: D.
        tied: the embedding's weight [V, D] to share; None for a weight of its own.

    Attributes:
        label_smoothing: share of the target's probability that the loss of a training spreads over the vocabulary.
        z_loss: factor of the squared logarithm of the denominator that the loss of a training adds; both see
            `linear_cross_entropy`, and neither touches scoring.
    """

    def __init__(self, vocab_size: int, input_size: int, tied: nn.Parameter | None = None) -> None:
        super().__init__()
        if tied is None:
            self.weight = nn.Parameter(torch.empty(vocab_size, input_size).normal_(std=0.02))
        else:
            self.weight = tied
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.label_smoothing: float = 0.0
        self.z_loss: float = 0.0

    def forward(self, hidden: Tensor) -> Tensor:
        return widened(F.linear(hidden, self.weight, self.bias))

    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return linear_cross_entropy(hidden, self.weight, self.bias, targets)
        return linear_cross_entropy(
            hidden, self.weight, self.bias, targets, label_smoothing=self.label_smoothing, z_loss=self.z_loss
        )

    @torch.no_grad()
    def start_at(self, log_probabilities: Tensor) -> None:
        self.bias.copy_(log_probabilities)


class RankedOutput(OutputLayer):
    """A layer that works on ranks: ids sorted by frequency, inside the layer alone."""

    rank_of_id: Tensor
    id_of_rank: Tensor

    def register_ranks(self, vocab_size: int) -> None:
        """Adds the two buffers, at first in the order of the ids."""
        self.register_buffer("rank_of_id", torch.arange(vocab_size))
        self.register_buffer("id_of_rank", torch.arange(vocab_size))

    def order_by(self, token_counts: Tensor) -> None:
        """Sorts the vocabulary by falling frequency, equal ones by id; a vocabulary once sorted stays so.

        The weights may belong to ranks, so another order would scramble a trained layer.
        """
        if not torch.equal(self.id_of_rank, torch.arange(len(self.id_of_rank), device=self.id_of_rank.device)):
            return
        order = torch.argsort(token_counts.to(self.id_of_rank.device), descending=True, stable=True)
        self.id_of_rank.copy_(order)
        self.rank_of_id[order] = torch.arange(len(order), device=order.device)


def widened(features: Tensor) -> Tensor:
    """Features in float32 where they are narrower (autocast); float64 stays."""
    return features if features.dtype == torch.float64 else features.float()
