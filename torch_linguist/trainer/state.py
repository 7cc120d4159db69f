"""State of a training: each counter is written down once, here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_linguist.data import Batch
from torch_linguist.distributed import data_parallel
from torch_linguist.model import State

COUNTERS = (
    "step",
    "tokens",
    "epochs",
    "seconds",
    "overhead_seconds",
    "checkpoint_seconds",
    "time_progress",
    "best_loss",
    "best_step",
    "validations",
    "validated_at",
)
"""Attributes of `TrainingState` that are plain numbers and belong in a checkpoint."""


@dataclass(frozen=True)
class Update:
    """One optimizer update. Loss and gradient norm stay on the device until something reads them.

    Attributes:
        step: number of the update (1-based).
        loss: mean loss before the update, in nats per token; scalar tensor.
        gradient_norm: norm of the gradient before clipping; scalar tensor.
        batches: batches of the update.
        lr: learning rate.
        skipped: whether the weights were left unchanged because loss or gradient was not finite.
    """

    step: int
    loss: Tensor
    gradient_norm: Tensor
    batches: Sequence[Batch]
    lr: float
    skipped: bool

    def fault(self) -> str | None:
        """Return a description of what is not finite; None if loss and gradient norm are."""
        for name, value in (("training loss", self.loss), ("gradient norm", self.gradient_norm)):
            if not math.isfinite(number := float(value)):
                return f"the {name} is {number}"
        return None


@dataclass
class TrainingState:
    """Progress of a training, shared by `Loop`, `Fit` and the callbacks.

    Attributes:
        step: updates done.
        tokens: training tokens read.
        epochs: passes over the training data, including fractions.
        seconds: wall-clock seconds since the first update, including validations and checkpoints.
        overhead_seconds: seconds spent on validations and checkpoints.
        checkpoint_seconds: seconds spent on writing checkpoints.
        progress: fraction of the training that is done, from 0 to 1.
        time_progress: fraction of the time for updates that is used up, under a time limit.
        best_loss: lowest validation loss in nats per token.
        best_step: update after which `best_loss` was measured.
        validations: number of validations.
        validated_at: update after which the last validation took place; -1 before the first.
        rows: rows B of the last batch over all processes.
        carried: recurrent state carried to the next batch; None starts afresh.
        update: the last update; None before the first.
    """

    step: int = 0
    tokens: int = 0
    epochs: float = 0.0
    seconds: float = 0.0
    overhead_seconds: float = 0.0
    checkpoint_seconds: float = 0.0
    progress: float = 0.0
    time_progress: float = 0.0
    best_loss: float = math.inf
    best_step: int = 0
    validations: int = 0
    validated_at: int = -1
    rows: int = 0
    carried: State | None = None
    update: Update | None = None

    @property
    def training_seconds(self) -> float:
        """Wall-clock seconds without validations and checkpoints."""
        return self.seconds - self.overhead_seconds

    @property
    def skipped(self) -> bool:
        """Whether the last update left the weights unchanged."""
        return self.update is not None and self.update.skipped

    def counters(self) -> dict[str, int | float]:
        """Return the plain numbers of the state."""
        return {name: getattr(self, name) for name in COUNTERS}

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain types and tensors, for a checkpoint."""
        carried = None if self.carried is None else data_parallel.gather_rows(self.carried, self.rows)
        return self.counters() | {"carried": None if carried is None else [tensor.cpu() for tensor in carried]}

    def load_state_dict(self, saved: Mapping[str, Any], device: torch.device) -> None:
        """Restore the state."""
        for name in COUNTERS:
            setattr(self, name, type(getattr(self, name))(saved[name]))
        self.carried = None
        if saved["carried"] is not None:
            self.rows = saved["carried"][0].shape[1]
            own = data_parallel.local_rows(self.rows)
            self.carried = [tensor[:, own].to(device) for tensor in saved["carried"]]
