"""Stage `fit`: the long training, with validation, early stopping, checkpoints and curves."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_linguist.checkpoint.model_building import naming_damage
from torch_linguist.checkpoint.storage import differing_arguments, load_weights, read_checkpoint
from torch_linguist.distributed import processes
from torch_linguist.errors import TrainingError
from torch_linguist.evaluation.scoring import exp
from torch_linguist.model import LanguageModel
from torch_linguist.optim.optimizers import load_optimizer, set_learning_rate
from torch_linguist.optim.weight_average import WeightAverage
from torch_linguist.trainer.budget import Spent, progress, remaining_seconds
from torch_linguist.trainer.callback import Callback, Fact
from torch_linguist.trainer.callbacks.checkpointing import Checkpointing, newest_state
from torch_linguist.trainer.callbacks.metrics_log import COLUMNS, MetricsLog, Update
from torch_linguist.trainer.callbacks.non_finite import save_faulty_batch
from torch_linguist.trainer.callbacks.profiling import Profiling
from torch_linguist.trainer.compilation import compiled_step
from torch_linguist.trainer.context import TrainingContext
from torch_linguist.trainer.fit_result import FitResult
from torch_linguist.trainer.randomness import random_state, restore_random_state, seed_everything
from torch_linguist.trainer.recorded_progress import RecordedProgress
from torch_linguist.trainer.validation import validation_loss

VALIDATIONS = 10
"""How often a training validates where `eval_every` is not set."""

VALIDATION_SHARE = 0.15
"""Most time that those validations may take of a training that `max_minutes` limits, relative to the updates."""

MOST_SKIPPED = 100
"""Updates in a row that `on_nan=skip` leaves out before it gives up."""

MOST_ROLLBACKS = 10
"""How often `on_nan=rollback` goes back before it gives up."""

Sampler = Callable[[LanguageModel], Sequence[tuple[str, str]]]


class Fit:
    """One long training; `run` carries it out.

    Args:
        model: is trained in place.
        context: corpus, optimizer, schedule and settings.
        lr: peak learning rate.
        weight_decay: of the weight matrices.
        folder: gets `metrics.csv`, `checkpoints/`, and the batches of updates that were not finite.
        observer: is told what happens.
        sampler: gives sample continuations; None for none. It must leave the random states as they are.
        stop: asked after each update whether the training should end now.
        resume: a `last.pt` (or the `previous.pt` before it) to go on from; None starts anew.
        recorded_progress: of a training that a clock limited and that this one repeats; None goes by the settings.
    """

    def __init__(
        self,
        model: LanguageModel,
        context: TrainingContext,
        lr: float,
        weight_decay: float,
        folder: Path,
        observer: Callback | None = None,
        sampler: Sampler | None = None,
        stop: Callable[[], bool] = lambda: False,
        resume: Path | None = None,
        recorded_progress: RecordedProgress | None = None,
    ) -> None:
        self.model, self.context, self.lr, self.weight_decay = model, context, lr, weight_decay
        self.folder, self.observer, self.sampler, self.stop = folder, observer or Callback(), sampler, stop
        self.recorded_progress = recorded_progress
        settings = context.settings
        self.checkpointing = Checkpointing(folder / "checkpoints", context.checkpoint)
        self.best_path, self.last_path = self.checkpointing.best_path, self.checkpointing.last_path
        self.schedule = context.fresh_schedule()
        self.step = compiled_step(model, context, self.observer)
        self.loop = context.loop(model, lr, weight_decay, nll=self.step)
        self.profiling = Profiling(folder, settings, self.observer)
        self.average = WeightAverage(model, settings.average, settings.average_decay) if settings.average else None
        self.best_loss, self.best_step, self.validations, self.waited = math.inf, 0, 0, 0
        self.validated_at = -1
        self.next_validation = 1 / VALIDATIONS
        self.validation_seconds, self.validation_ended = 0.0, 0.0
        self.seconds_before, self.training_seconds = 0.0, 0.0
        self.skipped, self.rollbacks = 0, 0
        seed_everything(context.seed)
        saved = None if resume is None else self._resume(resume)
        timed = settings.max_minutes is not None or recorded_progress is not None
        if saved is None:
            self.metrics_log = MetricsLog(folder, self.observer, timed, None)
        else:
            with naming_damage(resume or self.last_path):
                self.metrics_log = MetricsLog(
                    folder, self.observer, timed, self.loop.step, int(saved["journal"]["rows"])
                )
                self.metrics_log.load_state_dict(saved["journal"])
        self.begin = time.perf_counter()

    def run(self) -> FitResult:
        """Trains until a limit, the patience or a request to stop ends it.

        Raises:
            TrainingError: a loss was not finite, or a checkpoint could not be written; the checkpoints are those of
                the last good validation.
        """
        settings = self.context.settings
        status, reason = "finished", "reached its limit"
        if settings.on_nan == "rollback" and self.loop.step == 0:
            self._save()
        # A resumed training may have come to its end already.
        done = self._progress()
        while not self._is_out_of_patience() and done < 1:
            with self.profiling.update(self.loop.step, done):
                self._update(done)
            if self._is_due():
                self._validate()
            elif self.loop.step % settings.log_every == 0:
                self._log()
            done = self._progress()
            # At the end the state is written when the last validation is in it.
            if done < 1 and processes.broadcast_number(self.checkpointing.is_due(self.loop.step)):
                self._save()
            if self.stop():
                status, reason = "interrupted", "interrupted"
                break
        if status == "finished":
            if self._is_out_of_patience():
                reason = f"no better validation loss in {self.waited} validations"
            if self.validated_at != self.loop.step:
                self._validate()
        return self._end(status, reason)

    def _end(self, status: str, reason: str) -> FitResult:
        """Brings everything to the disk; leaves a model to score where there was no validation yet."""
        best_loss, best_step = self.best_loss, self.best_step
        if not self.validations:
            # No validation of the training itself: one that goes on later must know nothing of it.
            self._read_losses()
            best_loss, best_step = self._measure(), self.loop.step
            self.checkpointing.hold_best(
                self._judged(), self._books() | {"best_loss": best_loss, "best_step": best_step}
            )
        if not self.checkpointing.is_current(self.loop.step):
            self._save()
        spent = self._spent()
        return FitResult(
            status=status,
            reason=reason,
            steps=spent.steps,
            epochs=spent.epochs,
            tokens=spent.tokens,
            seconds=spent.seconds,
            tokens_per_second=spent.tokens / self.training_seconds if self.training_seconds else 0.0,
            best_loss=best_loss,
            best_step=best_step,
            checkpoint_seconds=self.checkpointing.seconds,
            compiled=self.step is not None and self.step.compiled,
        )

    def _update(self, done: float) -> None:
        begin = time.perf_counter()
        tokens = self.loop.tokens
        self.metrics_log.begins(self.loop.step + 1, done)
        set_learning_rate(self.loop.optimizer, self.lr * self.schedule.factor(done))
        loss = self.loop.update()
        if self.average is not None and not self.loop.skipped:
            self.average.update()
        seconds = time.perf_counter() - begin
        self.training_seconds += seconds
        self.metrics_log.add(self.loop, loss, self.loop.tokens - tokens, seconds)
        # Whoever goes on after a fault must meet it where it happened, not where the next row is due.
        if self.context.settings.on_nan != "stop":
            self._read_losses()

    def _spent(self) -> Spent:
        seconds = self.seconds_before + time.perf_counter() - self.begin
        return Spent(self.loop.step, self.loop.batches.epoch, self.loop.tokens, seconds)

    def _progress(self) -> float:
        if self.recorded_progress is not None:
            return self.recorded_progress.at(self.loop.step)
        return processes.broadcast_number(progress(self._spent(), self.context.settings))

    def _is_out_of_patience(self) -> bool:
        patience = self.context.settings.patience
        return patience is not None and self.waited >= patience

    def _is_due(self) -> bool:
        if self.recorded_progress is not None:
            return self.loop.step in self.recorded_progress.validated
        every = self.context.settings.eval_every
        if every is not None:
            return self.loop.step % every == 0
        if self._progress() < self.next_validation:
            return False
        # Under a limit of time, validations that turn out slow are rarer; other limits keep them at fixed updates.
        waited = time.perf_counter() - self.validation_ended
        affordable = waited >= self.validation_seconds / VALIDATION_SHARE
        return self.context.settings.max_minutes is None or bool(processes.broadcast_number(affordable))

    def _judged(self) -> LanguageModel:
        """The model that is validated and kept: that of the averaged weights where there is one."""
        return (self.average.model if self.average is not None else None) or self.model

    def _read_losses(self) -> None:
        """Fetches the losses from the device and deals with those that are not finite."""
        while (update := self.metrics_log.read()) is not None:
            what = update.fault()
            assert what is not None
            path = save_faulty_batch(self.folder, update.step, update.parts, update.loss, update.norm, update.lr)
            self._deal_with(f"{what} (its batch: {path})", update)
        if not self.loop.skipped:
            self.skipped = 0

    def _deal_with(self, what: str, update: Update) -> None:
        if update.skipped:
            self.skipped += 1
            if self.skipped > MOST_SKIPPED:
                self._fail(f"{what}, as in the {MOST_SKIPPED} updates before it", update.step)
            self.observer.noted(f"step {update.step}: {what}; the update is left out")
        elif self.context.settings.on_nan == "rollback":
            self._roll_back(what, update.step)
        else:
            self._fail(what, update.step)

    def _roll_back(self, what: str, step: int) -> None:
        """Takes the weights of the last checkpoint; the data and the count of updates go on."""
        self.rollbacks += 1
        found = newest_state(self.last_path.parent)
        if found is None or self.rollbacks > MOST_ROLLBACKS:
            self._fail(f"{what}, after {self.rollbacks - 1} rollbacks", step)
            return
        path, content = found
        saved = content["progress"]
        load_weights(self.model, content, path)
        load_optimizer(self.loop.optimizer, saved["loop"]["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        self.loop.forget()
        self.metrics_log.forget()
        self.observer.noted(f"step {step}: {what}; back to the weights of step {saved['step']}")

    def _fail(self, what: str, step: int) -> None:
        self.profiling.end(self.loop.step)
        self.checkpointing.write_best()
        kept = f"{self.best_path} keeps step {self.best_step}" if self.best_path.is_file() else "no checkpoint yet"
        raise TrainingError(f"step {step}: {what} ({kept}); lower optim.lr={self.lr} or trainer.gradient_clip")

    def _log(self, valid_loss: float | None = None) -> None:
        self._read_losses()
        spent = self._spent()
        row = self.metrics_log.log(spent, self.loop, valid_loss)
        if row is None:
            return
        done = self._progress()
        facts: dict[str, Fact] = {key: row[key] for key in ("train_loss", "train_perplexity") if key in row}
        facts["seconds_left"] = remaining_seconds(done, spent.seconds)
        facts |= {key: row[key] for key in ("tokens_per_second",) if key in row}
        if math.isfinite(self.best_loss):
            facts["best_valid_perplexity"] = exp(self.best_loss)
        facts["lr"] = row["lr"]
        self.observer.progressed("fit", done, facts)

    def _measure(self) -> float:
        """The validation loss as it is now, nats per token."""
        self.profiling.end(self.loop.step)
        loss = validation_loss(self._judged(), self.context, self.context.settings.eval_tokens)
        if not math.isfinite(loss):
            self._fail(f"the validation loss is {loss}", self.loop.step)
        return loss

    def _validate(self) -> None:
        settings = self.context.settings
        # A loss that is not finite must be met before the weights it spoiled are saved.
        self._read_losses()
        begin = time.perf_counter()
        loss = self._measure()
        self.validation_ended = time.perf_counter()
        self.validation_seconds = self.validation_ended - begin
        self.next_validation = (math.floor(self._progress() * VALIDATIONS) + 1) / VALIDATIONS
        self.validations += 1
        self.validated_at = self.loop.step
        self.checkpointing.outdate()
        self.schedule.observe(loss)
        self.waited += 1
        judged = self._judged()
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.waited = loss, self.loop.step, 0
        self._log(valid_loss=loss)
        if self.waited == 0:
            self.checkpointing.hold_best(judged, self._books())
        if self.average is not None:
            self.average.observe(loss)
        if processes.broadcast_number(self.checkpointing.can_afford(self._spent().seconds)):
            self._save()
        if self.sampler and settings.sample_every and self.validations % settings.sample_every == 0:
            self.observer.sampled(self.sampler(judged), self.loop.step)

    def _books(self) -> dict[str, Any]:
        """How far the training has come, in plain types."""
        spent = self._spent()
        return {
            "step": spent.steps,
            "tokens": spent.tokens,
            "epochs": spent.epochs,
            "seconds": spent.seconds,
            "training_seconds": self.training_seconds,
            "checkpoint_seconds": self.checkpointing.seconds,
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "validations": self.validations,
            "next_validation": self.next_validation,
            "validated_at": self.validated_at,
            "waited": self.waited,
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
        }

    def _save(self) -> None:
        """Writes everything that an exact continuation needs."""
        self.profiling.end(self.loop.step)
        self._read_losses()
        if not all(bool(torch.isfinite(weight).all()) for weight in self.model.parameters()):
            self._fail("the weights are not finite", self.loop.step)
        self.metrics_log.sync()
        self.observer.saved(self.loop.step)
        state = {
            "loop": self.loop.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": random_state() | {"processes": processes.gather_random_states(self.loop.device)},
            "journal": self.metrics_log.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }
        self.checkpointing.write(self.model, self._books() | state, self.loop.step)

    def _resume(self, path: Path) -> dict[str, Any]:
        """Takes up the state of a checkpoint and returns what it says of the training."""
        content = read_checkpoint(path)
        with naming_damage(path):
            saved: dict[str, Any] = content["progress"]
            self._take_up(content, saved, path)
        return saved

    def _take_up(self, content: dict[str, Any], saved: dict[str, Any], path: Path) -> None:
        if "loop" not in saved:
            raise TrainingError(f"{path}: holds a model but not its training; resume from last.pt")
        if differing := differing_arguments(self.model, content):
            raise TrainingError(
                f"{path}: its training is of another model: {', '.join(differing)}; leave these as they were, or start "
                "a new run"
            )
        load_weights(self.model, content, path)
        self.loop.load_state_dict(saved["loop"])
        self.schedule.load_state_dict(saved["schedule"])
        if self.average is not None and saved["average"] is not None:
            self.average.load_state_dict(saved["average"])
        self.seconds_before = float(saved["seconds"])
        self.training_seconds = float(saved["training_seconds"])
        self.best_loss, self.best_step = float(saved["best_loss"]), int(saved["best_step"])
        self.validations, self.waited = int(saved["validations"]), int(saved["waited"])
        self.next_validation = float(saved["next_validation"])
        self.validated_at = int(saved["validated_at"])
        self.skipped, self.rollbacks = int(saved["skipped"]), int(saved["rollbacks"])
        self.checkpointing.begin_at(self.loop.step, float(saved["checkpoint_seconds"]), path)
        restore_random_state(saved["random"])
        self._join(saved["random"].get("processes", []))

    def _join(self, states: list[dict[str, Tensor]]) -> None:
        """Takes up this process's own random numbers, and says where the training goes on with other processes."""
        processes.restore_random_states(states, self.context.seed + self.loop.step, self.loop.device)
        before = len(states) or 1
        if before != processes.world_size():
            self.observer.noted(
                f"going on with {processes.world_size()} processes instead of {before}: the data goes on where it was; "
                "sums differ in their last digits, and dropout draws other masks"
            )


__all__ = ["COLUMNS", "Fit", "FitResult", "Sampler"]
