"""What is written down of the long training: losses as they come, rows of `metrics.csv`, the pace."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from torch_linguist.data import Batch
from torch_linguist.evaluation.scoring import exp
from torch_linguist.runs.csv_table import Table, drop_rows_after
from torch_linguist.trainer.budget import Spent
from torch_linguist.trainer.callback import Callback
from torch_linguist.trainer.callbacks.non_finite import LossWatch, fault
from torch_linguist.trainer.loop import Loop
from torch_linguist.trainer.recorded_progress import FILE as PACE
from torch_linguist.trainer.recorded_progress import RecordedProgressTable

COLUMNS = (
    "step",
    "epoch",
    "tokens",
    "seconds",
    "lr",
    "train_loss",
    "train_perplexity",
    "gradient_norm",
    "tokens_per_second",
    "valid_loss",
    "valid_perplexity",
)

METRICS = "metrics.csv"


@dataclass(frozen=True)
class Update:
    """One update as it was carried out; loss and norm are still on the device.

    Attributes:
        step: its number.
        loss: nats per token.
        norm: of the gradient.
        parts: its batches.
        lr: its learning rate.
        skipped: whether it was left out.
    """

    step: int
    loss: Tensor
    norm: Tensor | None
    parts: Sequence[Batch]
    lr: float
    skipped: bool

    def fault(self) -> str | None:
        """What of it is not finite, in words."""
        return fault(self.loss, self.norm)


class MetricsLog:
    """Keeps the books of one training.

    Args:
        folder: of the run.
        observer: is told each row.
        timed: whether the pace is kept.
        resumed_at: the update from which the training goes on; None for a new one.
        rows: how many rows there were then; an update may have one that the checkpoint does not know.
    """

    def __init__(
        self, folder: Path, observer: Callback, timed: bool, resumed_at: int | None, rows: int | None = None
    ) -> None:
        self._observer = observer
        self._pending: list[Update] = []
        self._losses: list[float] = []
        self._tokens, self._seconds = 0, 0.0
        self._rows = 0
        self._watch = LossWatch()
        if resumed_at is not None:
            drop_rows_after(folder / METRICS, resumed_at, rows)
            drop_rows_after(folder / PACE, resumed_at)
        self._table = Table(folder / METRICS, COLUMNS, append=resumed_at is not None)
        self._paces = RecordedProgressTable(folder / PACE, append=resumed_at is not None) if timed else None

    def begins(self, step: int, progress: float) -> None:
        """An update begins at this progress, 0 to 1."""
        if self._paces:
            self._paces.add(step, progress)

    def add(self, loop: Loop, loss: Tensor, tokens: int, seconds: float) -> None:
        """An update has been carried out; nothing waits for its loss yet."""
        lr = loop.optimizer.param_groups[0]["lr"]
        self._pending.append(Update(loop.step, loss, loop.gradient_norm, loop.parts, lr, loop.skipped))
        self._tokens += tokens
        self._seconds += seconds

    def read(self) -> Update | None:
        """Fetches the losses from the device.

        Returns:
            The first update that is not finite, left out ones too; None where all are.
        """
        for index, update in enumerate(self._pending):
            if update.fault() is not None:
                del self._pending[: index + 1]
                return update
            loss = float(update.loss)
            self._losses.append(loss)
            if (jump := self._watch.jump(loss)) is not None:
                self._observer.noted(f"step {update.step}: {jump}")
        self._pending.clear()
        return None

    def forget(self) -> None:
        """Drops the updates that were not read yet."""
        self._pending.clear()

    def log(self, spent: Spent, loop: Loop, valid_loss: float | None) -> dict[str, Any] | None:
        """Writes a row and tells the observer; the losses must be read.

        Returns:
            The row; None where there is nothing to tell.
        """
        if self._paces:
            self._paces.flush()
        if not self._losses and valid_loss is None:
            return None
        row: dict[str, Any] = {
            "step": spent.steps,
            "epoch": spent.epochs,
            "tokens": spent.tokens,
            "seconds": spent.seconds,
            "lr": loop.optimizer.param_groups[0]["lr"],
        }
        if self._losses:
            row["train_loss"] = sum(self._losses) / len(self._losses)
            row["train_perplexity"] = exp(row["train_loss"])
            row["tokens_per_second"] = self._tokens / self._seconds if self._seconds else math.nan
            self._losses.clear()
            self._tokens, self._seconds = 0, 0.0
            if loop.gradient_norm is not None:
                row["gradient_norm"] = float(loop.gradient_norm)
        if valid_loss is not None:
            row |= {"valid_loss": valid_loss, "valid_perplexity": exp(valid_loss)}
        self._table.add(row)
        self._rows += 1
        self._observer.logged({key: float(value) for key, value in row.items() if key != "step"}, spent.steps)
        return row

    def sync(self) -> None:
        """Brings what was written to the disk, before a checkpoint that relies on it."""
        if self._paces:
            self._paces.flush()
        self._table.sync()

    def state_dict(self) -> dict[str, Any]:
        """What belongs to the next row; the losses must be read."""
        assert not self._pending
        return {
            "rows": self._rows,
            "losses": list(self._losses),
            "tokens": self._tokens,
            "seconds": self._seconds,
            "watch": self._watch.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self._rows = int(state["rows"])
        self._losses = [float(loss) for loss in state["losses"]]
        self._tokens, self._seconds = int(state["tokens"]), float(state["seconds"])
        self._watch.load_state_dict(state["watch"])
