"""Device and mode of any module."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's weights or tables; the CPU for a model without any.

    Example:
        >>> device_of(LSTM(100, embedding_dim=8, hidden_size=8))
        device(type='cpu')
    """
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for the block and restore its mode afterwards.

    Example:
        >>> network = LSTM(100, embedding_dim=8, hidden_size=8)
        >>> with evaluating(network):
        ...     print(network.training)
        False
    """
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)
