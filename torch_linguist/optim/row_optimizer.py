"""What the optimizers share that take sparse gradients of tables."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

FUSED_DEVICES = ("cpu", "cuda", "mps")
"""Where torch has fused kernels of its optimizers."""

SparseGradient = tuple[nn.Parameter, Tensor, dict[str, Any]]
"""A table, its coalesced gradient, and the parameter group it belongs to."""


class RowOptimizer(Optimizer):
    """Stands before one of torch's optimizers, which takes the dense gradients; `update_rows` takes the sparse ones."""

    @abstractmethod
    def update_rows(self, table: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        """One update of the rows that a batch used.

        Args:
            table: [V, D], changed in place.
            gradient: sparse and coalesced, [V, D].
            group: the parameter group of the table.
        """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One update.

        Args:
            closure: as of `torch.optim.Optimizer.step`.
        """
        with without_sparse(self) as sparse:
            result = super().step(closure)
        for table, gradient, group in sparse:
            self.update_rows(table, gradient, group)
        return result


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
