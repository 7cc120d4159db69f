"""Stage `fit`: the long training, with validation, early stopping, checkpoints and curves."""

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from torch_linguist.errors import TrainingError
from torch_linguist.evaluation import mean_nll
from torch_linguist.evaluation.scoring import exp
from torch_linguist.model import LanguageModel
from torch_linguist.trainer.checkpoint import load_weights, read_checkpoint, save_checkpoint
from torch_linguist.trainer.events import Fact, Observer
from torch_linguist.trainer.limits import Spent, progress, remaining_seconds
from torch_linguist.trainer.optimizers import set_learning_rate
from torch_linguist.trainer.pace import Pace, PaceTable
from torch_linguist.trainer.randomness import random_state, restore_random_state, seed_everything
from torch_linguist.trainer.setup import Setup
from torch_linguist.trainer.table import Table

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

VALIDATIONS = 10
"""How often a training validates where `eval_every` is not set."""

VALIDATION_SHARE = 0.15
"""Most time that those validations may take of a training that `max_minutes` limits, relative to the updates."""

Sampler = Callable[[LanguageModel], Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class FitResult:
    """What the training came to.

    Attributes:
        status: `finished` or `interrupted`.
        reason: why it ended, in a few words.
        steps: updates done.
        epochs: passes over the training split.
        tokens: training tokens.
        seconds: wall clock from the first update, validation included.
        tokens_per_second: over the updates alone.
        best_loss: lowest validation loss, nats per token.
        best_step: the update after which it was reached.
    """

    status: str
    reason: str
    steps: int
    epochs: float
    tokens: int
    seconds: float
    tokens_per_second: float
    best_loss: float
    best_step: int


class Fit:
    """One long training; `run` carries it out.

    Args:
        model: is trained in place.
        setup: corpus, optimizer, schedule and settings.
        lr: peak learning rate.
        weight_decay: of the weight matrices.
        folder: gets `metrics.csv` and `checkpoints/`.
        observer: is told what happens.
        sampler: gives sample continuations; None for none. It must leave the random states as they are.
        stop: asked after each update whether the training should end now.
        resume: a `last.pt` to go on from; None starts anew.
        pace: of a training that a clock limited and that this one repeats; None goes by the settings.
    """

    def __init__(
        self,
        model: LanguageModel,
        setup: Setup,
        lr: float,
        weight_decay: float,
        folder: Path,
        observer: Observer | None = None,
        sampler: Sampler | None = None,
        stop: Callable[[], bool] = lambda: False,
        resume: Path | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.model, self.setup, self.lr, self.weight_decay = model, setup, lr, weight_decay
        self.observer, self.sampler, self.stop, self.pace = observer or Observer(), sampler, stop, pace
        self.best_path = folder / "checkpoints" / "best.pt"
        self.last_path = folder / "checkpoints" / "last.pt"
        self.schedule = setup.fresh_schedule()
        self.loop = setup.loop(model, lr, weight_decay)
        self.best_loss, self.best_step, self.validations, self.waited = math.inf, 0, 0, 0
        self.validated_at = -1
        self.next_validation = 1 / VALIDATIONS
        self.validation_seconds, self.validation_ended = 0.0, 0.0
        self.seconds_before, self.training_seconds = 0.0, 0.0
        self.pending: list[Tensor] = []
        self.losses: list[float] = []
        self.pending_tokens, self.pending_seconds = 0, 0.0
        seed_everything(setup.seed)
        if resume is not None:
            self._resume(resume)
            drop_rows_after(folder / "metrics.csv", self.loop.step)
            drop_rows_after(folder / "pace.csv", self.loop.step)
        self.table = Table(folder / "metrics.csv", COLUMNS, append=resume is not None)
        timed = setup.settings.max_minutes is not None or pace is not None
        self.paces = PaceTable(folder / "pace.csv", append=resume is not None) if timed else None
        self.begin = self.last_save = time.perf_counter()

    def run(self) -> FitResult:
        """Trains until a limit, the patience or a request to stop ends it.

        Raises:
            TrainingError: a loss was not finite; the checkpoints are those of the last good validation.
        """
        settings = self.setup.settings
        status, reason = "finished", "reached its limit"
        # A resumed training may have come to its end already.
        while not self._is_out_of_patience() and (done := self._progress()) < 1:
            self._update(done)
            if self._is_due():
                self._validate()
            elif time.perf_counter() - self.last_save > 60 * settings.checkpoint_minutes:
                self._log()
                self._save(self.last_path)
            elif self.loop.step % settings.log_every == 0:
                self._log()
            if self.stop():
                status, reason = "interrupted", "interrupted"
                break
        if status == "finished" and self._is_out_of_patience():
            reason = f"no better validation loss in {self.waited} validations"
        if self.validated_at != self.loop.step:
            if status == "finished" or not self.validations:
                self._validate()
            else:
                self._log()
                self._save(self.last_path)
        return self._result(status, reason)

    def _update(self, done: float) -> None:
        begin = time.perf_counter()
        tokens = self.loop.tokens
        if self.paces:
            self.paces.add(self.loop.step + 1, done)
        set_learning_rate(self.loop.optimizer, self.lr * self.schedule.factor(done))
        self.pending.append(self.loop.update())
        seconds = time.perf_counter() - begin
        self.pending_seconds += seconds
        self.training_seconds += seconds
        self.pending_tokens += self.loop.tokens - tokens

    def _spent(self) -> Spent:
        seconds = self.seconds_before + time.perf_counter() - self.begin
        return Spent(self.loop.step, self.loop.batches.epoch, self.loop.tokens, seconds)

    def _progress(self) -> float:
        if self.pace is not None:
            return self.pace.at(self.loop.step)
        return progress(self._spent(), self.setup.settings)

    def _is_out_of_patience(self) -> bool:
        patience = self.setup.settings.patience
        return patience is not None and self.waited >= patience

    def _is_due(self) -> bool:
        if self.pace is not None:
            return self.loop.step in self.pace.validated
        every = self.setup.settings.eval_every
        if every is not None:
            return self.loop.step % every == 0
        if self._progress() < self.next_validation:
            return False
        # Under a limit of time, validations that turn out slow are rarer; other limits keep them at fixed updates.
        waited = time.perf_counter() - self.validation_ended
        return self.setup.settings.max_minutes is None or waited >= self.validation_seconds / VALIDATION_SHARE

    def _read_losses(self) -> None:
        """Fetches the losses from the device; the first one that is not finite ends the training."""
        for index, tensor in enumerate(self.pending):
            loss = float(tensor)
            if not math.isfinite(loss):
                self._fail(f"the training loss is {loss}", self.loop.step - len(self.pending) + index + 1)
            self.losses.append(loss)
        self.pending.clear()

    def _fail(self, what: str, step: int) -> None:
        kept = f"{self.best_path} keeps step {self.best_step}" if self.best_path.is_file() else "no checkpoint yet"
        raise TrainingError(f"step {step}: {what} ({kept}); lower optim.lr={self.lr} or trainer.gradient_clip")

    def _log(self, valid_loss: float | None = None) -> None:
        self._read_losses()
        if self.paces:
            self.paces.flush()
        if not self.losses and valid_loss is None:
            return
        spent = self._spent()
        row: dict[str, Any] = {
            "step": spent.steps,
            "epoch": spent.epochs,
            "tokens": spent.tokens,
            "seconds": spent.seconds,
            "lr": self.loop.optimizer.param_groups[0]["lr"],
        }
        if self.losses:
            row["train_loss"] = sum(self.losses) / len(self.losses)
            row["train_perplexity"] = exp(row["train_loss"])
            row["tokens_per_second"] = self.pending_tokens / self.pending_seconds
            self.losses.clear()
            self.pending_tokens, self.pending_seconds = 0, 0.0
            if self.loop.gradient_norm is not None:
                row["gradient_norm"] = float(self.loop.gradient_norm)
        if valid_loss is not None:
            row |= {"valid_loss": valid_loss, "valid_perplexity": exp(valid_loss)}
        self.table.add(row)
        self.observer.logged({key: float(value) for key, value in row.items() if key != "step"}, spent.steps)
        done = self._progress()
        facts: dict[str, Fact] = {key: row[key] for key in ("train_loss", "train_perplexity") if key in row}
        facts["seconds_left"] = remaining_seconds(done, spent.seconds)
        facts |= {key: row[key] for key in ("tokens_per_second",) if key in row}
        if math.isfinite(self.best_loss):
            facts["best_valid_perplexity"] = exp(self.best_loss)
        facts["lr"] = row["lr"]
        self.observer.progressed("fit", done, facts)

    def _validate(self) -> None:
        settings, score = self.setup.settings, self.setup.score
        begin = time.perf_counter()
        # A loss that is not finite must be met before the weights it spoiled are saved.
        self._read_losses()
        loss = mean_nll(
            self.model,
            self.setup.corpus.valid,
            settings.eval_tokens,
            chunk_length=score.chunk_length,
            stride=score.stride,
        )
        self.validation_ended = time.perf_counter()
        self.validation_seconds = self.validation_ended - begin
        self.next_validation = (math.floor(self._progress() * VALIDATIONS) + 1) / VALIDATIONS
        if not math.isfinite(loss):
            self._fail(f"the validation loss is {loss}", self.loop.step)
        self.validations += 1
        self.validated_at = self.loop.step
        self.schedule.observe(loss)
        self.waited += 1
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.waited = loss, self.loop.step, 0
        self._log(valid_loss=loss)
        if self.waited == 0:
            self._save(self.best_path, full=False)
        self._save(self.last_path)
        if self.sampler and settings.sample_every and self.validations % settings.sample_every == 0:
            self.observer.sampled(self.sampler(self.model), self.loop.step)

    def _save(self, path: Path, full: bool = True) -> None:
        spent = self._spent()
        content: dict[str, Any] = {
            "step": spent.steps,
            "tokens": spent.tokens,
            "epochs": spent.epochs,
            "seconds": spent.seconds,
            "training_seconds": self.training_seconds,
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "validations": self.validations,
            "next_validation": self.next_validation,
            "validated_at": self.validated_at,
            "waited": self.waited,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
        }
        if full:
            content |= {
                "loop": self.loop.state_dict(),
                "schedule": self.schedule.state_dict(),
                "random": random_state(),
            }
        save_checkpoint(path, self.model, content)
        self.last_save = time.perf_counter()

    def _resume(self, path: Path) -> None:
        content = read_checkpoint(path)
        saved = content["progress"]
        if "loop" not in saved:
            raise TrainingError(f"{path}: holds a model but not its training; resume from last.pt")
        load_weights(self.model, content, path)
        try:
            self.loop.load_state_dict(saved["loop"])
        except (KeyError, TypeError) as error:
            raise TrainingError(f"{path}: its training is not whole; start a new run") from error
        self.schedule.load_state_dict(saved["schedule"])
        self.seconds_before = float(saved["seconds"])
        self.training_seconds = float(saved["training_seconds"])
        self.best_loss, self.best_step = float(saved["best_loss"]), int(saved["best_step"])
        self.validations, self.waited = int(saved["validations"]), int(saved["waited"])
        self.next_validation = float(saved["next_validation"])
        self.validated_at = int(saved["validated_at"])
        restore_random_state(saved["random"])

    def _result(self, status: str, reason: str) -> FitResult:
        spent = self._spent()
        return FitResult(
            status=status,
            reason=reason,
            steps=spent.steps,
            epochs=spent.epochs,
            tokens=spent.tokens,
            seconds=spent.seconds,
            tokens_per_second=spent.tokens / self.training_seconds if self.training_seconds else 0.0,
            best_loss=self.best_loss,
            best_step=self.best_step,
        )


def drop_rows_after(path: Path, step: int) -> None:
    """Removes from a `metrics.csv` the rows of updates that a resumed training will do again."""
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    kept = rows[:1] + [row for row in rows[1:] if row and int(row[0]) <= step]
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(kept)
    temporary.replace(path)
