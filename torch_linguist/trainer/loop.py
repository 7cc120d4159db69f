"""The training loop: one optimizer update at a time. Every stage of a run stands on it.

Shape legend: B batch, T time.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from torch_linguist.data import Batch
from torch_linguist.distributed import processes
from torch_linguist.model import LanguageModel, State, detach_state, device_of
from torch_linguist.model.precision import autocast
from torch_linguist.optim.optimizers import clip_gradients, load_optimizer

Nll = Callable[[Tensor, Tensor, State], tuple[Tensor, State]]
"""What a training step computes, as `LanguageModel.nll` does."""


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

    The loss stays on the device: nothing waits for it until somebody reads it. Where several processes train together,
    each computes its own rows of a batch, and loss and gradients are those of the whole.

    Args:
        model: is trained in place.
        optimizer: holds the model's weights; its learning rate is the caller's to set before each update.
        batches: an endless supply.
        gradient_clip: largest gradient norm; None turns clipping off.
        accumulate: batches an update.
        precision: `fp32` or `bf16`.
        skip_faults: leaves an update out whose loss or gradient is not finite: the weights stay, the carried state
            begins anew, the data and the step go on. It waits for the loss.
        nll: is called instead of `model.nll` where given, as by its compiled form.

    Attributes:
        step: updates done.
        tokens: training tokens seen.
        gradient_norm: of the last update, before clipping; a tensor without dimensions, None before the first.
        parts: the batches of the last update.
        skipped: whether the last update was left out.
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
        skip_faults: bool = False,
        nll: Nll | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.batches = batches
        self.gradient_clip = gradient_clip
        self.accumulate = accumulate
        self.precision = precision
        self.skip_faults = skip_faults
        self._nll = nll
        self.device = device_of(model)
        self.step = 0
        self.tokens = 0
        self.gradient_norm: Tensor | None = None
        self.parts: list[Batch] = []
        self.skipped = False
        self._state: State | None = None
        self._rows = 0

    def update(self) -> Tensor:
        """One optimizer update on the next batch (or `accumulate` batches).

        Returns:
            The mean loss in nats per token before the update: a tensor without dimensions, on the device.
        """
        self.model.train()
        self.parts = [self.batches.next() for _ in range(self.accumulate)]
        total = sum(part.targets.numel() for part in self.parts)
        loss = torch.zeros((), device=self.device)
        for part in self.parts:
            self._rows = len(part.tokens)
            own = processes.local_rows(self._rows)
            tokens, targets = part.tokens[own].to(self.device), part.targets[own].to(self.device)
            if not len(tokens):  # The last windows of a pass may be fewer than the processes.
                continue
            if part.reset or self._state is None or self._state[0].shape[1] != len(tokens):
                self._state = self.model.initial_state(len(tokens))
            with autocast(self.device, self.precision):
                nll, state = (self._nll or self.model.nll)(tokens, targets, self._state)
            part_loss = nll.sum() / total
            part_loss.backward()  # type: ignore[no-untyped-call]
            loss += part_loss.detach()
            # Under autocast a layer may hand back its state in bfloat16; it is carried in the weights' own type.
            self._state = [new.to(old.dtype) for new, old in zip(detach_state(state), self._state, strict=True)]
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        loss = processes.all_reduce_gradients(parameters, loss)
        self.gradient_norm = clip_gradients(parameters, self.gradient_clip)
        self.skipped = self.skip_faults and not bool(torch.isfinite(loss + self.gradient_norm))
        if self.skipped:
            self.forget()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += total
        return loss

    def forget(self) -> None:
        """Begins the carried state anew with the next batch."""
        self._state = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact continuation needs but the weights; plain types and tensors."""
        carried = None if self._state is None else processes.gather_rows(self._state, self._rows)
        return {
            "step": self.step,
            "tokens": self.tokens,
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state_dict(),
            "gradient_norm": None if self.gradient_norm is None else float(self.gradient_norm),
            "carried": None if carried is None else [tensor.cpu() for tensor in carried],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave; the optimizer's options stay those it was made with."""
        self.step, self.tokens = int(state["step"]), int(state["tokens"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.batches.load_state_dict(state["batches"])
        norm, carried = state["gradient_norm"], state["carried"]
        self.gradient_norm = None if norm is None else torch.tensor(norm)
        if carried is None:
            self._state = None
            return
        self._rows = carried[0].shape[1]
        self._state = [tensor[:, processes.local_rows(self._rows)].to(self.device) for tensor in carried]
