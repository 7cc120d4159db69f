"""Dropout with masks that are cheap on a CPU, with one mask for a whole sequence, and of whole words.

Shape legend: B batch, T time, V vocabulary, D embedding, H hidden.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BITS = 16
"""Random bits of an element of a mask, so the dropout rate is rounded to a multiple of 2^-16."""

LEVELS = 2**BITS


def dropout_mask(shape: list[int], p: float, like: Tensor) -> Tensor:
    """Return a mask that is zero with probability p and elsewhere one over the probability of the rest.

    PyTorch draws a number for each element, one after the other. On a CPU, this function cuts numbers of 64 bits into
    four, which takes about an eighth of the time. Compiled code draws the same masks from the same seed.

    Args:
        shape: shape of the mask.
        p: dropout rate, at least 0 and less than 1.
        like: tensor whose device and type the mask has.
    """
    if not torch.jit.is_scripting() and like.device.type == "cpu":  # type: ignore[attr-defined]
        return _cut_mask(shape, p, like)
    return torch.empty(shape, device=like.device).bernoulli_(1.0 - p).div_(1.0 - p).to(like.dtype)


@torch.jit.unused
def _cut_mask(shape: list[int], p: float, like: Tensor) -> Tensor:
    return _mask_in_compiled_code(like.detach(), shape, p) if torch.compiler.is_compiling() else _mask(like, shape, p)


def _mask(like: Tensor, shape: Sequence[int], p: float) -> Tensor:
    dropped = min(round(p * LEVELS), LEVELS - 1)
    count = math.prod(shape)
    random = torch.empty(-(-count * BITS // 64), dtype=torch.int64).random_(-(2**63), None)
    kept: Tensor = random.view(torch.int16)[:count].view(list(shape)) >= dropped - LEVELS // 2
    return kept.to(like.dtype).mul_(LEVELS / (LEVELS - dropped))


_mask_in_compiled_code = torch.library.custom_op("torch_linguist::dropout_mask", _mask, mutates_args=())
"""The same for a compiler, which calls it as it is. `like` keeps it from taking two masks of a graph for one."""


@_mask_in_compiled_code.register_fake
def _(like: Tensor, shape: Sequence[int], p: float) -> Tensor:
    return like.new_empty(shape)


def dropout(features: Tensor, p: float, training: bool) -> Tensor:
    """Return features with a share p of them set to zero and the others rescaled.

    The same as `torch.nn.functional.dropout`, with `dropout_mask` on a CPU.

    Args:
        features: float tensor of any shape.
        p: dropout rate, at least 0 and less than 1.
        training: whether anything is dropped.
    """
    if not training or p == 0.0:
        return features
    if features.device.type != "cpu":
        return F.dropout(features, p)
    return features * dropout_mask(list(features.shape), p, features)


class Dropout(nn.Dropout):
    """Dropout of single features (Srivastava et al. 2014), with masks that are cheap on a CPU."""

    def forward(self, features: Tensor) -> Tensor:
        """Return features of any shape, masked and rescaled in training."""
        return dropout(features, self.p, self.training)


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
        return features * dropout_mask(shape, self.p, features)


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
        kept = dropout_mask([self.vocab_size], self.p, embedded)
        return embedded * kept[tokens].unsqueeze(-1)
