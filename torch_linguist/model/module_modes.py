"""Device, mode and precision of any module."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

PRECISIONS = ("fp32", "bf16")
"""Data types of matrix products."""


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


def allow_recurrent_gradients(model: nn.Module) -> None:
    """Put the recurrent layers in training mode, without which cuDNN computes no gradients.

    These layers have no dropout of their own; the dropout between them follows the mode of its modules.
    """
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.train()
            module.flatten_parameters()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context of a model's forward pass.

    Args:
        device: device of the model.
        precision: `fp32` (computes in the type of the weights) or `bf16`.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
