"""Dropout with one mask for a whole sequence, and dropout of whole words.

Shape legend: B batch, T time, V vocabulary, D embedding, H hidden.
"""

import torch
from torch import Tensor, nn


class LockedDropout(nn.Dropout):
    """Variational dropout (Gal & Ghahramani 2016): one mask for each sequence, shared by all time steps.

    It regularizes recurrent models better than a new mask at each step, and needs T times fewer random numbers.

    Args:
        p: share of the features that are set to zero in training.
        time_axis: axis of time, along which the mask is constant.
    """

    def __init__(self, p: float, time_axis: int) -> None:
        super().__init__(p)
        self.time_axis: int = time_axis

    def forward(self, features: Tensor) -> Tensor:
        """Return features of any shape, masked and rescaled in training."""
        if not self.training or self.p == 0.0:
            return features
        shape = list(features.shape)
        shape[self.time_axis] = 1
        mask = torch.empty(shape, device=features.device).bernoulli_(1.0 - self.p).div_(1.0 - self.p)
        return features * mask.to(features.dtype)


class WordDropout(nn.Dropout):
    """Embedding dropout (Merity et al. 2018): drops whole words, wherever they occur in a batch.

    Args:
        p: share of the vocabulary whose vectors are set to zero in training; the others are rescaled.
        vocab_size: V.
    """

    def __init__(self, p: float, vocab_size: int) -> None:
        super().__init__(p)
        self.vocab_size: int = vocab_size

    def forward(self, embedded: Tensor, tokens: Tensor) -> Tensor:  # type: ignore[override]
        """Return embedded tokens [B, T, D] without the dropped words.

        Args:
            embedded: embedded tokens [B, T, D].
            tokens: their ids [B, T].
        """
        if not self.training or self.p == 0.0:
            return embedded
        kept = torch.empty(self.vocab_size, device=tokens.device).bernoulli_(1.0 - self.p).div_(1.0 - self.p)
        return embedded * kept[tokens].unsqueeze(-1).to(embedded.dtype)
