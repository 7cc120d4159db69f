"""Muon for the hidden matrices, lazy AdamW for everything else.

Shape legend: R rows of a matrix, C its columns, G equal matrices stacked in one weight (the gates of an LSTM).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torch_linguist.optim.lazy_adamw import LazyAdamW


class Muon(Optimizer):
    """`torch.optim.Muon` (Jordan et al. 2024) for the hidden matrices and `LazyAdamW` for all other weights.

    Muon replaces the momentum of a matrix by the nearest orthogonal matrix. Gates that are stacked in one weight are
    orthogonalized one by one. Updates are scaled to the size of AdamW's (`match_rms_adamw`), so that one learning rate
    suits both parts.

    Args:
        params: parameter groups; those with a key `stacked` (the number of equal matrices G in each of their weights
            [G R, C]) are updated by Muon.
        lr: learning rate.
        weight_decay: weight decay of the groups without a value of their own.
        momentum: momentum of Muon.
        nesterov: whether Muon uses Nesterov's momentum.
        ns_steps: Newton-Schulz iterations of Muon.
        hidden_lr_ratio: learning rate of Muon relative to `lr`.
        betas: decay rates of AdamW's moments.
        eps: constant added to AdamW's denominator.

    Example:
        >>> network = LSTM(100, embedding_dim=8, hidden_size=8)
        >>> optimizer = build_optimizer(network, Muon, lr=3e-3, weight_decay=0.0)
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        hidden_lr_ratio: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        matrices = [group for group in self.param_groups if "stacked" in group]
        others = [group for group in self.param_groups if "stacked" not in group]
        for group in matrices:
            group["lr_ratio"] = hidden_lr_ratio
        # Leaf tensors that share the memory of a weight, one for each of its stacked matrices.
        self._views = [
            [(weight, place, _view(weight, place, group["stacked"])) for weight in group["params"]
             for place in range(group["stacked"])]
            for group in matrices
        ]  # fmt: skip
        self._parts: dict[str, Optimizer] = {}
        if others:
            options = [{"params": group["params"], "weight_decay": group["weight_decay"]} for group in others]
            self._parts["others"] = LazyAdamW(options, lr, betas, eps)
        if matrices:
            self._parts["matrices"] = torch.optim.Muon(
                [{"params": [view for _, _, view in views]} for views in self._views],
                lr=lr,
                momentum=momentum,
                nesterov=nesterov,
                ns_steps=ns_steps,
                adjust_lr_fn="match_rms_adamw",
            )
        self._outer = {"others": others, "matrices": matrices}

    splits_hidden_matrices = True
    """Whether the optimizer needs the hidden matrices in groups of their own; see `build_optimizer`."""

    @staticmethod
    def takes_sparse_gradients(decays: bool, arguments: dict[str, Any]) -> bool:
        """Return whether a table may have sparse gradients; see `LazyAdamW`."""
        return True

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for name, part in self._parts.items():
            for outer, inner in zip(self._outer[name], part.param_groups, strict=True):
                inner["lr"], inner["weight_decay"] = outer["lr"], outer["weight_decay"]
        for views, group in zip(self._views, self._outer["matrices"], strict=True):
            for weight, place, view in views:
                view.grad = None if weight.grad is None else _rows(weight.grad, place, group["stacked"])
        for part in self._parts.values():
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"parts": {name: part.state_dict() for name, part in self._parts.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        own = dict(state_dict)
        for name, state in own.pop("parts").items():
            self._parts[name].load_state_dict(state)
        kept = [group["params"] for group in self.param_groups]
        for group, params, saved in zip(self.param_groups, kept, own["param_groups"], strict=True):
            group.update({key: value for key, value in saved.items() if key != "params"}, params=params)


def _rows(tensor: Tensor, place: int, stacked: int) -> Tensor:
    size = len(tensor) // stacked
    return tensor[place * size : (place + 1) * size]


def _view(weight: nn.Parameter, place: int, stacked: int) -> nn.Parameter:
    return nn.Parameter(_rows(weight.detach(), place, stacked))
