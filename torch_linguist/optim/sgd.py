"""Stochastic gradient descent that updates only the rows of a table that occur in a batch.

Shape legend: V rows of the table, D their width.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from torch_linguist.optim.row_optimizer import RowOptimizer, fuse


class SGD(RowOptimizer, torch.optim.SGD):
    """`torch.optim.SGD` with fused kernels that applies a sparse gradient only to the rows it contains.

    Without momentum and weight decay a row without a gradient does not move, so the result is that of dense gradients.

    Args:
        params, lr, momentum, dampening, weight_decay, nesterov: see `torch.optim.SGD`.

    Example:
        >>> network = LSTM(100, embedding_dim=8, hidden_size=8)
        >>> optimizer = SGD(network.parameters(), lr=0.1, momentum=0.9)
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
        """Return whether a table may have sparse gradients.

        Args:
            decays: whether weight decay applies to the table.
            arguments: arguments of the optimizer that differ from its defaults.
        """
        return not decays and not arguments.get("momentum")

    @torch.no_grad()
    def update_rows(self, table: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        sign = 1.0 if group["maximize"] else -1.0
        table.index_add_(0, gradient.indices()[0], gradient.values(), alpha=sign * float(group["lr"]))
