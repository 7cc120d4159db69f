"""What the optimizers share that take sparse gradients of tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

FUSED_DEVICES = ("cpu", "cuda", "mps")
"""Where torch has fused kernels of its optimizers."""

SparseGradient = tuple[nn.Parameter, Tensor, dict[str, Any]]
"""A table, its coalesced gradient, and the parameter group it belongs to."""


@contextmanager
def without_sparse(optimizer: Optimizer) -> Iterator[list[SparseGradient]]:
    """Takes the sparse gradients away from the parameters, for torch's own kernels, which know none.

    Args:
        optimizer: whose parameters are looked through.

    Yields:
        The tables that had one.
    """
    sparse: list[SparseGradient] = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.is_sparse:
                sparse.append((parameter, parameter.grad.coalesce(), group))
                parameter.grad = None
    yield sparse


def fuse(optimizer: Optimizer) -> None:
    """Has torch's fused kernels take the dense gradients, where there are some for all weights."""
    weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if all(weight.device.type in FUSED_DEVICES for weight in weights):
        for group in optimizer.param_groups:
            group["fused"] = True
