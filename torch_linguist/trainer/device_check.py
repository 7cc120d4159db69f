"""Comparison of a training step on a device with the same step on the CPU.

Apple's MPS backend has trained recurrent models wrongly without any error (pytorch#92615, pytorch#107294).
"""

import copy
import logging

import torch
from torch import Tensor

from torch_linguist.model import LanguageModel
from torch_linguist.trainer.device import choose_device

LOG = logging.getLogger("torch_linguist.trainer")

TOLERANCE = 1e-3
"""Largest accepted difference of a loss or a gradient, relative to its largest value."""

ROWS, CHUNK = 3, 9
"""Size of the batch that is compared; two chunks, so that the state is carried once."""


def checked_device(name: str, model: LanguageModel) -> torch.device:
    """Return the device to train a model on; `auto` is MPS only if a step there equals the step on the CPU.

    Args:
        name: `trainer.device`.
        model: model to train, on the CPU.

    Raises:
        ConfigError: the device is not available.
    """
    device = choose_device(name)
    if name != "auto" or device.type != "mps" or step_agrees(model, device):
        return device
    LOG.warning("trainer.device=auto: a step on MPS differs from the step on the CPU; training on the CPU")
    return torch.device("cpu")


def step_agrees(model: LanguageModel, device: torch.device) -> bool:
    """Return whether losses and gradients of a small batch are the same on a device and on the CPU."""
    try:
        found = _step(model, device)
    except (RuntimeError, TypeError):  # An operation or a type that the device lacks.
        return False
    expected = _step(model, torch.device("cpu"))
    return len(found) == len(expected) and all(map(_close, found, expected))


def _step(model: LanguageModel, device: torch.device) -> list[Tensor]:
    """Return the losses [ROWS, CHUNK] of two chunks, and the gradients, without dropout."""
    # A copy, so that neither the model nor the random states change.
    copied = copy.deepcopy(model).eval().to(device)
    source = torch.Generator().manual_seed(1)
    tokens = torch.randint(model.vocab_size, (ROWS, 2 * CHUNK + 1), generator=source).to(device)
    state = [part.to(device) for part in copied.initial_state(ROWS)]
    losses = []
    for begin in (0, CHUNK):
        chunk = tokens[:, begin : begin + CHUNK + 1]
        nll, state = copied.nll(chunk[:, :-1], chunk[:, 1:], state)
        losses.append(nll)
    weights = [weight for weight in copied.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(torch.stack(losses).mean(), weights, allow_unused=True) if weights else ()
    return [values.detach().cpu() for values in (*losses, *gradients) if values is not None and values.numel()]


def _close(found: Tensor, expected: Tensor) -> bool:
    if found.is_sparse or expected.is_sparse:
        found, expected = found.to_dense(), expected.to_dense()
    limit = TOLERANCE * float(expected.abs().max().clamp_min(1e-6))
    # A comparison with NaN is false.
    return found.shape == expected.shape and bool((found - expected).abs().max() <= limit)
