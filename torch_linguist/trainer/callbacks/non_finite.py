"""Non-finite handling: what a training does if a loss or a gradient is not finite; and a note when the loss jumps."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torch_linguist.checkpoint.storage import load_weights
from torch_linguist.distributed import processes
from torch_linguist.distributed.sharding import local
from torch_linguist.optim.optimizers import load_optimizer
from torch_linguist.runs.files import whole_file
from torch_linguist.trainer.callback import Callback
from torch_linguist.trainer.callbacks.checkpointing import newest_state
from torch_linguist.trainer.state import Update

if TYPE_CHECKING:
    from torch_linguist.trainer.fit import Fit

MOST_SKIPPED = 100
"""Successive updates that `on_nan=skip` leaves out before it gives up."""

MOST_ROLLBACKS = 10
"""Rollbacks that `on_nan=rollback` makes before it gives up."""

JUMP = 1.5
"""A loss above this multiple of its running mean is reported."""

SETTLED = 20
"""Losses that the running mean needs before it can be trusted."""

PAST = 0.95
"""Weight of the past in the running mean."""


class NonFinite(Callback):
    """Fetches the losses from the device and handles those that are not finite.

    Args:
        on_nan: `stop`, `skip` or `rollback`; see `TrainerSettings`.
        log_every: updates after which the losses are fetched at the latest. With `skip` and `rollback` every update
            waits for its loss, because the training must continue from the update that failed.
    """

    def __init__(self, on_nan: str, log_every: int) -> None:
        self._on_nan, self._every = on_nan, log_every if on_nan == "stop" else 1
        self._pending: list[Update] = []
        self._skipped, self._rollbacks = 0, 0
        self._watch = LossWatch()

    def after_update(self, training: "Fit") -> None:
        assert training.state.update is not None
        self._pending.append(training.state.update)
        if training.state.step % self._every == 0:
            self._read(training)

    def before_validation(self, training: "Fit") -> None:
        # A fault must be found before the weights it spoiled are saved.
        self._read(training)

    def before_checkpoint(self, training: "Fit") -> None:
        self._read(training)
        finite = all(bool(torch.isfinite(local(weight)).all()) for weight in training.model.parameters())
        if any(processes.all_reduce_sum(not finite)):
            training.fail("the weights are not finite", training.state.step)

    def _read(self, training: "Fit") -> None:
        while self._pending:
            update = self._pending.pop(0)
            if (fault := update.fault()) is not None:
                path = save_faulty_batch(training.folder, update)
                self._handle(training, update, f"{fault} (its batch: {path})")
                continue
            self._skipped, loss = 0, float(update.loss)
            training.callbacks.loss_read(training, loss)
            if (jump := self._watch.jump(loss)) is not None:
                training.callbacks.noted(f"step {update.step}: {jump}")

    def _handle(self, training: "Fit", update: Update, fault: str) -> None:
        if update.skipped:
            self._skipped += 1
            if self._skipped > MOST_SKIPPED:
                training.fail(f"{fault}, as in the {MOST_SKIPPED} updates before it", update.step)
            training.callbacks.noted(f"step {update.step}: {fault}; the update is left out")
        elif self._on_nan == "rollback":
            self._roll_back(training, update.step, fault)
        else:
            training.fail(fault, update.step)

    def _roll_back(self, training: "Fit", step: int, fault: str) -> None:
        """Restore the weights of the last checkpoint; the data and the step count go on."""
        found = newest_state(training.folder / "checkpoints")
        if found is None or self._rollbacks == MOST_ROLLBACKS:
            training.fail(f"{fault}, after {self._rollbacks} rollbacks", step)
        path, content = found
        saved = content["progress"]
        load_weights(training.model, content, path)
        load_optimizer(training.loop.optimizer, saved["optimizer"])
        training.state.carried = None
        self._pending.clear()
        self._rollbacks += 1
        training.callbacks.rolled_back(training, saved)
        training.callbacks.noted(f"step {step}: {fault}; back to the weights of step {saved['step']}")

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self._skipped, "rollbacks": self._rollbacks, "watch": self._watch.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._skipped, self._rollbacks = int(state["skipped"]), int(state["rollbacks"])
        self._watch.load_state_dict(state["watch"])


class LossWatch:
    """Notices a loss that jumps."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._count = 0
        self._quiet = 0

    def jump(self, loss: float) -> str | None:
        """Add a loss to the running mean; return a message if it lies far above the mean.

        After a jump no other is reported until the mean has had time to follow.
        """
        mean, self._quiet = self._mean, max(0, self._quiet - 1)
        jumped = self._count >= SETTLED and not self._quiet and loss > JUMP * mean
        self._count += 1
        past = min(PAST, 1 - 1 / self._count)
        self._mean = past * mean + (1 - past) * loss
        if not jumped:
            return None
        self._quiet = SETTLED
        return f"the training loss jumped to {loss:.4g}, its running mean was {mean:.4g}"

    def state_dict(self) -> dict[str, Any]:
        """Return the running mean and its counters."""
        return {"mean": self._mean, "count": self._count, "quiet": self._quiet}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self._mean, self._count, self._quiet = float(state["mean"]), int(state["count"]), int(state["quiet"])


def save_faulty_batch(folder: Path, update: Update) -> Path:
    """Save the batches of an update that was not finite, for inspection.

    Returns:
        The file. `torch.load(file, weights_only=True)` returns a dict of plain numbers and tensors [B, T].
    """
    path = folder / f"faulty_batch_{update.step}.pt"
    content = {
        "step": update.step,
        "loss": float(update.loss),
        "gradient_norm": float(update.gradient_norm),
        "lr": update.lr,
        "batches": [
            {"tokens": batch.tokens, "targets": batch.targets, "reset": bool(batch.reset)} for batch in update.batches
        ],
    }
    with whole_file(path) as temporary:
        torch.save(content, temporary)
    return path
