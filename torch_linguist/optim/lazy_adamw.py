"""AdamW that updates only the rows of a table that occur in a batch.

Shape legend: V rows of the table, D their width, R rows that occur in a batch.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from torch_linguist.optim.row_optimizer import RowOptimizer, fuse


class LazyAdamW(RowOptimizer, torch.optim.AdamW):
    """`torch.optim.AdamW` that applies a sparse gradient only to the rows it contains.

    When a row is used again, its moments are decayed by the updates it missed, and the step that its momentum would
    have caused in them is made up for: the sum of the geometric series of the moments without gradients. A table
    therefore learns as with the dense optimizer, with a delay. `torch.optim.SparseAdam`, in contrast, does not decay
    the moments and moves rare rows ten times less. Weight decay, too, is made up for when a row is used again, with the
    learning rate of that time. Dense gradients are handled as by AdamW, bit for bit.

    Args:
        params, lr, betas, eps, weight_decay, amsgrad: see `torch.optim.AdamW`, whose fused kernels are used where
            available; `amsgrad` applies to dense gradients only.

    Example:
        >>> network = LSTM(100, embedding_dim=8, hidden_size=8)
        >>> optimizer = LazyAdamW(network.parameters(), lr=3e-3)
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)
        fuse(self)

    @staticmethod
    def takes_sparse_gradients(decays: bool, arguments: dict[str, Any]) -> bool:
        """Return whether a table may have sparse gradients: always.

        Args:
            decays: whether weight decay applies to the table.
            arguments: arguments of the optimizer that differ from its defaults.
        """
        return True

    @torch.no_grad()
    def update_rows(self, table: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = cast("dict[str, Tensor]", self.state[table])
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        if "used" not in state:  # So far the gradients were dense.
            state["used"] = torch.full((len(table),), int(state["step"]), dtype=torch.int64, device=table.device)
        state["step"] += 1
        rows, values = gradient.indices()[0], gradient.values()
        weight, mean, square = (part.index_select(0, rows) for part in (table, state["exp_avg"], state["exp_avg_sq"]))
        step = int(state["step"])
        used = state["used"].index_select(0, rows).unsqueeze(1)
        _spend(weight, mean, square, used, step - 1, group)
        torch._fused_adamw_(
            [weight],
            [values],
            [mean],
            [square],
            [],
            [state["step"].to(table.device)],
            lr=float(group["lr"]),
            beta1=float(group["betas"][0]),
            beta2=float(group["betas"][1]),
            weight_decay=float(group["weight_decay"]),
            eps=float(group["eps"]),
            amsgrad=False,
            maximize=bool(group["maximize"]),
        )
        table.index_copy_(0, rows, weight)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        state["used"].index_fill_(0, rows, step)


def _spend(weight: Tensor, mean: Tensor, square: Tensor, used: Tensor, step: int, group: dict[str, Any]) -> None:
    """Bring rows in place from the update `used` [R, 1] to `step`, as updates without a gradient would."""
    missed = (step - used).to(mean.dtype)
    if not bool(missed.any()):
        return
    first, second = (float(beta) for beta in group["betas"])
    ratio = first / second**0.5
    series = ratio * (1 - ratio**missed) / (1 - ratio)
    # Momentum acts mostly in the first updates after the last gradient, so their bias correction is used.
    begin = (used + 1).to(mean.dtype)
    scale = float(group["lr"]) * (1 - second**begin).sqrt() / (1 - first**begin)
    weight.mul_((1 - float(group["lr"]) * float(group["weight_decay"])) ** missed)
    weight.sub_((mean / (square.sqrt() + group["eps"])).mul_(series * scale))
    mean.mul_(first**missed)
    square.mul_(second**missed)
