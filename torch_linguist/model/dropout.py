"""Dropout that keeps one mask for a whole sequence.

Shape legend: B batch, T time, H hidden.
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
