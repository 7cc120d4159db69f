"""Metrics log: rows of `metrics.csv`, and what reports show of them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from torch_linguist.evaluation.scoring import exp
from torch_linguist.runs.csv_table import Table, drop_rows_after
from torch_linguist.trainer.budget import remaining_seconds
from torch_linguist.trainer.callback import Callback, Fact

if TYPE_CHECKING:
    from torch_linguist.trainer.fit import Fit

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


class MetricsLog(Callback):
    """Writes a row every `log_every` updates and after each validation.

    The training loss of a row is the mean since the last row that has one. An update has one row: a validation that
    follows it, as at the end of a training, is added to it.

    Args:
        folder: run folder.
        log_every: updates between two rows.
    """

    def __init__(self, folder: Path, log_every: int) -> None:
        self._path, self._log_every = folder / METRICS, log_every
        self._losses: list[float] = []
        self._gradient_norm: Tensor | float | None = None
        self._rows, self._tokens, self._training_seconds = 0, 0, 0.0
        self._last_step: int | None = None

    def training_started(self, training: "Fit") -> None:
        resumed = training.resumed_from is not None
        if resumed:
            # An update may have a row that the checkpoint does not know of.
            self._last_step = drop_rows_after(self._path, training.state.step, self._rows)
        self._table = Table(self._path, COLUMNS, append=resumed)

    def loss_read(self, training: "Fit", loss: float) -> None:
        self._losses.append(loss)

    def after_update(self, training: "Fit") -> None:
        state = training.state
        if state.step % self._log_every == 0 and state.validated_at != state.step:
            self._log(training, None)

    def validated(self, training: "Fit", loss: float) -> None:
        self._log(training, loss)

    def before_checkpoint(self, training: "Fit") -> None:
        self._note_gradient_norm(training)
        self._table.sync()

    def _note_gradient_norm(self, training: "Fit") -> None:
        # After a resume there may be a row before there is an update.
        if training.state.update is not None:
            self._gradient_norm = training.state.update.gradient_norm

    def _log(self, training: "Fit", valid_loss: float | None) -> None:
        self._note_gradient_norm(training)
        if not self._losses and valid_loss is None:
            return
        state = training.state
        row: dict[str, Any] = {
            "step": state.step,
            "epoch": state.epochs,
            "tokens": state.tokens,
            "seconds": state.seconds,
            "lr": training.loop.optimizer.param_groups[0]["lr"],
        }
        if self._losses:
            loss, seconds = sum(self._losses) / len(self._losses), state.training_seconds - self._training_seconds
            speed = (state.tokens - self._tokens) / seconds if seconds else math.nan
            row |= {"train_loss": loss, "train_perplexity": exp(loss), "tokens_per_second": speed}
            self._losses.clear()
            self._tokens, self._training_seconds = state.tokens, state.training_seconds
            if self._gradient_norm is not None:
                row["gradient_norm"] = float(self._gradient_norm)
        if valid_loss is not None:
            row |= {"valid_loss": valid_loss, "valid_perplexity": exp(valid_loss)}
        if state.step == self._last_step:
            self._table.update_last(row)
        else:
            self._table.add(row)
            self._rows += 1
        self._last_step = state.step
        training.callbacks.logged({key: float(value) for key, value in row.items() if key != "step"}, state.step)
        facts: dict[str, Fact] = {key: row[key] for key in ("train_loss", "train_perplexity") if key in row}
        facts["seconds_left"] = remaining_seconds(state.progress, state.seconds)
        facts |= {key: row[key] for key in ("tokens_per_second",) if key in row}
        if math.isfinite(state.best_loss):
            facts["best_valid_perplexity"] = exp(state.best_loss)
        training.callbacks.progressed("fit", state.progress, facts | {"lr": row["lr"]})

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self._rows,
            "losses": list(self._losses),
            "gradient_norm": None if self._gradient_norm is None else float(self._gradient_norm),
            "tokens": self._tokens,
            "training_seconds": self._training_seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._rows, self._tokens = int(state["rows"]), int(state["tokens"])
        self._losses = [float(loss) for loss in state["losses"]]
        self._gradient_norm = None if state["gradient_norm"] is None else float(state["gradient_norm"])
        self._training_seconds = float(state["training_seconds"])
