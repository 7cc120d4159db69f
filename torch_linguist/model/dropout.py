"""Dropout that keeps one mask for a whole sequence.

Shape legend: B batch, T time, H hidden.
"""

import torch
from torch import Tensor, nn


class LockedDropout(nn.Dropout):
    """Variational dropout (Gal & Ghahramani 2016): the mask is drawn once a sequence and serves every time step.

    It regularizes recurrent models better than a fresh mask each step, and draws T times fewer random numbers.

    Args:
        p: share of the features that training sets to zero.
        time_axis: which axis is time; the mask is one long there.
    """

    def __init__(self, p: float, time_axis: int) -> None:
        super().__init__(p)
        self.time_axis: int = time_axis

    def forward(self, features: Tensor) -> Tensor:
        """Features of any shape, masked and rescaled in training, as they are otherwise."""
        if not self.training or self.p == 0.0:
            return features
        shape = list(features.shape)
        shape[self.time_axis] = 1
        mask = torch.empty(shape, device=features.device).bernoulli_(1.0 - self.p).div_(1.0 - self.p)
        return features * mask.to(features.dtype)
