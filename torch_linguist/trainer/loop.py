"""The training loop: one optimizer update at a time. Every stage of a run stands on it.

Shape legend: B batch, T time.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from torch_linguist.data import Batch
from torch_linguist.model import LanguageModel, State, detach_state, device_of
from torch_linguist.trainer.device import autocast


class BatchSource(Protocol):
    """An endless supply of batches; `torch_linguist.data.Batches` is one."""

    @property
    def epoch(self) -> float:
        """Passes over the data that are done, fractions included."""

    def next(self) -> Batch:
        """The next batch."""

    def state_dict(self) -> dict[str, Any]:
        """The position, in plain types."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to a position."""


class Loop:
    """Truncated back-propagation through time over an endless supply of batches.

    The loss stays on the device: nothing waits for it until somebody reads it.

    Args:
        model: is trained in place.
        optimizer: holds the model's weights; its learning rate is the caller's to set before each update.
        batches: an endless supply.
        gradient_clip: largest gradient norm; None turns clipping off.
        accumulate: batches an update.
        precision: `fp32` or `bf16`.

    Attributes:
        step: updates done.
        tokens: training tokens seen.
        gradient_norm: of the last update, before clipping; a tensor without dimensions, None before the first.
    """

    def __init__(
        self,
        model: LanguageModel,
        optimizer: Optimizer,
        batches: BatchSource,
        *,
        gradient_clip: float | None = 1.0,
        accumulate: int = 1,
        precision: str = "fp32",
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.batches = batches
        self.gradient_clip = gradient_clip
        self.accumulate = accumulate
        self.precision = precision
        self.device = device_of(model)
        self.step = 0
        self.tokens = 0
        self.gradient_norm: Tensor | None = None
        self._state: State | None = None

    def update(self) -> Tensor:
        """One optimizer update on the next batch (or `accumulate` batches).

        Returns:
            The mean loss in nats per token before the update: a tensor without dimensions, on the device.
        """
        self.model.train()
        parts = [self.batches.next() for _ in range(self.accumulate)]
        total = sum(part.targets.numel() for part in parts)
        loss = torch.zeros((), device=self.device)
        for part in parts:
            tokens, targets = part.tokens.to(self.device), part.targets.to(self.device)
            if part.reset or self._state is None or self._state[0].shape[1] != len(tokens):
                self._state = self.model.initial_state(len(tokens))
            with autocast(self.device, self.precision):
                nll, state = self.model.nll(tokens, targets, self._state)
            part_loss = nll.sum() / total
            part_loss.backward()  # type: ignore[no-untyped-call]
            loss += part_loss.detach()
            # Under autocast a layer may hand back its state in bfloat16; it is carried in the weights' own type.
            self._state = [new.to(old.dtype) for new, old in zip(detach_state(state), self._state, strict=True)]
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        limit = self.gradient_clip if self.gradient_clip is not None else float("inf")
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += total
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact continuation needs but the weights; plain types and tensors."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state_dict(),
            "carried": None if self._state is None else [tensor.cpu() for tensor in self._state],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.step, self.tokens = int(state["step"]), int(state["tokens"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.load_state_dict(state["batches"])
        carried = state["carried"]
        self._state = None if carried is None else [tensor.to(self.device) for tensor in carried]
