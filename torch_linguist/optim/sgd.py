"""Stochastic gradient descent that touches only the rows of a table that a batch used.

Shape legend: V rows of the table, D their width.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from torch_linguist.optim.row_optimizer import RowOptimizer, fuse


class SGD(RowOptimizer, torch.optim.SGD):
    """`torch.optim.SGD` whose fused kernels take the dense gradients while sparse ones change their rows alone.

    Without momentum and weight decay a row without a gradient does not move, so the result is that of dense gradients.

    Args:
        params, lr, momentum, dampening, weight_decay, nesterov: as of `torch.optim.SGD`.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr, momentum, dampening, weight_decay, nesterov)
        fuse(self)

    @staticmethod
    def takes_sparse_gradients(decays: bool, arguments: dict[str, Any]) -> bool:
        """Whether a table may give sparse gradients.

        Args:
            decays: whether the table is subject to weight decay.
            arguments: those that the optimizer is made with, where they are not its defaults.
        """
        return not decays and not arguments.get("momentum")

    @torch.no_grad()
    def update_rows(self, table: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        sign = 1.0 if group["maximize"] else -1.0
        table.index_add_(0, gradient.indices()[0], gradient.values(), alpha=sign * float(group["lr"]))
