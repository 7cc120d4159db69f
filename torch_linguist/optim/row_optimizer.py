"""Base class of optimizers that take sparse gradients of tables."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

FUSED_DEVICES = ("cpu", "cuda", "mps")
"""Devices with fused optimizer kernels in torch."""

SparseGradient = tuple[nn.Parameter, Tensor, dict[str, Any]]
"""A table, its coalesced gradient, and its parameter group."""


class RowOptimizer(Optimizer):
    """Mixin before one of torch's optimizers, which handles dense gradients; `update_rows` handles sparse ones."""

    @abstractmethod
    def update_rows(self, table: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        """Update the rows that occur in a batch.

        Args:
            table: weights [V, D], modified in place.
            gradient: sparse, coalesced gradient [V, D].
            group: parameter group of the table.
        """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Make one update.

        Args:
            closure: see `torch.optim.Optimizer.step`.
        """
        with without_sparse(self) as sparse:
            result = super().step(closure)
        for table, gradient, group in sparse:
            self.update_rows(table, gradient, group)
        return result


@contextmanager
def without_sparse(optimizer: Optimizer) -> Iterator[list[SparseGradient]]:
    """Remove the sparse gradients from the parameters, because torch's kernels do not support them.

    Args:
        optimizer: optimizer of the parameters.

    Yields:
        The tables with a sparse gradient.
    """
    sparse: list[SparseGradient] = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.is_sparse:
                sparse.append((parameter, parameter.grad.coalesce(), group))
                parameter.grad = None
    yield sparse


def fuse(optimizer: Optimizer) -> None:
    """Use torch's fused kernels if they exist for all weights."""
    weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if all(weight.device.type in FUSED_DEVICES for weight in weights):
        for group in optimizer.param_groups:
            group["fused"] = True
