"""Data type of matrix products."""

import torch

PRECISIONS = ("fp32", "bf16")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context of a model's forward pass.

    Args:
        device: device of the model.
        precision: `fp32` (computes in the type of the weights) or `bf16`.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
