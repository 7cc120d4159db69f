"""The type that matrix products are computed in."""

import torch

PRECISIONS = ("fp32", "bf16")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a model's forward pass runs.

    Args:
        device: of the model.
        precision: `fp32` (everything as the weights are) or `bf16`.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
