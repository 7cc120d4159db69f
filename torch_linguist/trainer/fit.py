"""The long training: updates, and callbacks around them."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch_linguist.checkpoint.model_building import naming_damage
from torch_linguist.checkpoint.storage import differing_arguments, load_weights, read_checkpoint
from torch_linguist.distributed import processes
from torch_linguist.distributed.sharding import put_whole_weights, whole_weights
from torch_linguist.errors import TrainingError
from torch_linguist.model import LanguageModel
from torch_linguist.optim.optimizers import set_learning_rate
from torch_linguist.runs.platform import keep_freed_memory
from torch_linguist.trainer.budget import Budget
from torch_linguist.trainer.callback import Callback
from torch_linguist.trainer.callbacks.checkpointing import BEST
from torch_linguist.trainer.callbacks.defaults import training_callbacks
from torch_linguist.trainer.callbacks.distillation import Distillation
from torch_linguist.trainer.callbacks.recorded_progress import RecordedProgress
from torch_linguist.trainer.callbacks.samples import Sampler
from torch_linguist.trainer.callbacks.snapshots import cycle_progress
from torch_linguist.trainer.compilation import compiled_step
from torch_linguist.trainer.context import TrainingContext
from torch_linguist.trainer.randomness import restore_shared_random_state, seed_everything, shared_random_state
from torch_linguist.trainer.state import TrainingState
from torch_linguist.trainer.validation import validation_loss


@dataclass(frozen=True)
class FitResult:
    """Result of a training.

    Attributes:
        status: `finished` or `interrupted`.
        reason: why the training ended, in a few words.
        steps: updates done.
        epochs: passes over the training split.
        tokens: training tokens read.
        seconds: wall-clock seconds since the first update, including validations.
        tokens_per_second: training tokens per second, counting the time of updates alone.
        best_loss: lowest validation loss in nats per token.
        best_step: update after which `best_loss` was measured.
        checkpoint_seconds: seconds spent on writing checkpoints.
        compiled: whether the training step was compiled.

    Example:
        >>> network = LSTM(corpus.tokenizer.vocab_size, embedding_dim=8, hidden_size=8)
        >>> train(network, corpus, max_tokens=100, batch_size=2, sequence_length=10, device="cpu").tokens
        100
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
    checkpoint_seconds: float = 0.0
    compiled: bool = False


class Fit:
    """One long training, carried out by `run`.

    Args:
        model: model to train, modified in place.
        context: corpus, optimizer, schedule and settings.
        lr: peak learning rate.
        weight_decay: weight decay of the weight matrices.
        folder: run folder for `metrics.csv`, `checkpoints/` and the batches of updates that were not finite.
        callbacks: callbacks beside those of every training; see `Callback`.
        sampler: function that samples continuations; None for none.
        stop: called after each update; the training ends if it returns True.
        resume: checkpoint to continue from, such as `last.pt`; None for a new training.
        recorded_progress: recorded progress of the time-limited training to repeat; None follows the settings.

    Attributes:
        state: progress of the training.
        loop: loop that makes the updates.
        schedule: learning-rate schedule.
        callbacks: all callbacks of the training.
        evaluated_model: model that is validated and kept as the best one; a callback may replace it.
        resumed_from: checkpoint that the training continued from; None for a new training.
        status: `finished` or `interrupted`, once the training has ended.
    """

    def __init__(
        self,
        model: LanguageModel,
        context: TrainingContext,
        lr: float,
        weight_decay: float,
        folder: Path,
        callbacks: Iterable[Callback] = (),
        sampler: Sampler | None = None,
        stop: Callable[[], bool] = lambda: False,
        resume: Path | None = None,
        recorded_progress: RecordedProgress | None = None,
    ) -> None:
        self.model, self.context, self.lr, self.weight_decay, self.folder = model, context, lr, weight_decay, folder
        self.evaluated_model = model
        self.status, self.reason = "finished", ""
        self.best_path = folder / "checkpoints" / BEST
        self.resumed_from = resume
        self.schedule = context.fresh_schedule()
        further = list(callbacks)
        self.callbacks = training_callbacks(
            model, folder, context.settings, context.checkpoint, sampler, recorded_progress, further
        )
        self._own_callbacks = [callback for callback in self.callbacks if callback not in further]
        self._stop, self._recorded = stop, recorded_progress
        distillation = next((callback for callback in self.callbacks if isinstance(callback, Distillation)), None)
        self._compiled = None if distillation else compiled_step(model, context, self.callbacks)
        nll = distillation.nll if distillation else self._compiled
        window_nll = self._compiled.window_nll if self._compiled else None
        self.loop = context.prepare_training(model, lr, weight_decay, nll=nll, window_nll=window_nll)
        self._budget = Budget(context.settings)
        self._started = 0.0
        seed_everything(context.seed)
        saved = {} if resume is None else self._resume(resume)
        self._budget.start(self.state, saved.get("max_minutes"))

    @property
    def state(self) -> TrainingState:
        return self.loop.state

    def run(self) -> FitResult:
        """Train until a limit, a callback or a request to stop ends the training.

        Raises:
            TrainingError: a loss was not finite, or a checkpoint could not be written. The checkpoints on disk are
                those of the last validation without a fault.
        """
        if self.loop.device.type == "cpu":
            keep_freed_memory()
        self._started = time.perf_counter() - self.state.seconds
        self._measure_progress()
        try:
            self.callbacks.training_started(self)
            while not self.reason and self.state.progress < 1:
                self.callbacks.before_update(self)
                self._update()
                self.callbacks.after_update(self)
                self._measure_progress()
                if self._stop():
                    self.status = self.reason = "interrupted"
            self.end("reached its limit")
            self.callbacks.training_ended(self)
            put_whole_weights(self.model)
        finally:
            self.loop.close()
            for callback in self._own_callbacks:
                callback.close()
        return self._result()

    def end(self, reason: str) -> None:
        """End the training after the current update. The first reason counts.

        Args:
            reason: why it ends, in a few words.
        """
        self.reason = self.reason or reason

    def fail(self, fault: str, step: int) -> NoReturn:
        """End the training with an error; the best weights so far are on disk afterwards.

        Args:
            fault: what is wrong, in a few words.
            step: update in which it happened.

        Raises:
            TrainingError: always.
        """
        self.callbacks.training_failed(self)
        kept = (
            f"{self.best_path} keeps step {self.state.best_step}" if self.best_path.is_file() else "no checkpoint yet"
        )
        raise TrainingError(f"step {step}: {fault} ({kept}); lower optim.lr={self.lr} or trainer.gradient_clip")

    def validate(self) -> None:
        """Measure the validation loss and call the callbacks with it."""
        state, before = self.state, self.state.overhead_seconds
        with self.overhead():
            loss = self.validation_loss()
        state.validations += 1
        state.validated_at = state.step
        self.schedule.observe(loss)
        if loss < state.best_loss:
            state.best_loss, state.best_step = loss, state.step
        with self.overhead(), whole_weights(self.model):
            self.callbacks.validated(self, loss)
        self._budget.validation_seconds = state.overhead_seconds - before

    def validation_loss(self) -> float:
        """Return the current validation loss in nats per token, without counting it as a validation.

        Raises:
            TrainingError: the loss is not finite.
        """
        self.callbacks.before_validation(self)
        loss = validation_loss(self.evaluated_model, self.context, self.context.settings.eval_tokens)
        if not math.isfinite(loss):
            self.fail(f"the validation loss is {loss}", self.state.step)
        return loss

    @contextmanager
    def overhead(self) -> Iterator[None]:
        """Leave the time that the block takes out of the training time."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.state.overhead_seconds += time.perf_counter() - begin
            self.state.seconds = time.perf_counter() - self._started

    def counters(self) -> dict[str, int | float]:
        """Return how far the training has come and with which rates, as plain numbers."""
        return self.state.counters() | {"lr": self.lr, "weight_decay": self.weight_decay}

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the weights that an exact continuation needs, as plain types and tensors."""
        return (
            self.counters()
            | self.loop.state_dict()
            | {
                "schedule": self.schedule.state_dict(),
                "random": shared_random_state(self.loop.device, self.loop.generator),
                "max_minutes": self.context.settings.max_minutes,
                "callbacks": self.callbacks.state_dict(),
            }
        )

    def _update(self) -> None:
        progress = cycle_progress(self.state.progress, self.context.settings.snapshots or 1)
        set_learning_rate(self.loop.optimizer, self.lr * self.schedule.factor(progress))
        self.loop.update()
        self._measure_progress()

    def _measure_progress(self) -> None:
        self.state.seconds = time.perf_counter() - self._started
        if self._recorded is not None:
            self.state.progress = self._recorded.at(self.state.step)
        else:
            self._budget.update(self.state)

    def _resume(self, path: Path) -> dict[str, Any]:
        """Restore the weights and the state of a checkpoint; return the state."""
        content = read_checkpoint(path, parts=True)
        with naming_damage(path):
            saved: dict[str, Any] = content["progress"]
            if "loop" in saved:
                raise TrainingError(
                    f"{path}: torch-linguist 0.1 wrote this training state, which this version cannot continue; finish "
                    "the run with 0.1 or start a new one (best.pt can still be scored, sampled and exported)"
                )
            if "optimizer" not in saved:
                raise TrainingError(f"{path}: holds a model but not its training; resume from last.pt")
            if differing := differing_arguments(self.model, content):
                raise TrainingError(
                    f"{path}: is the training of another model: {', '.join(differing)}; leave these as they were, or "
                    "start a new run"
                )
            load_weights(self.model, content, path)
            self.loop.load_state_dict(saved)
            self.schedule.load_state_dict(saved["schedule"])
            self.callbacks.load_state_dict(saved["callbacks"])
            seed = self.context.seed + self.state.step
            before = restore_shared_random_state(saved["random"], seed, self.loop.device, self.loop.generator)
        if before != processes.world_size():
            self.callbacks.noted(
                f"continuing with {processes.world_size()} processes instead of {before}: the data continues where it "
                "was; sums differ in their last digits, and dropout draws other masks"
            )
        return saved

    def _result(self) -> FitResult:
        state = self.state
        return FitResult(
            status=self.status,
            reason=self.reason,
            steps=state.step,
            epochs=state.epochs,
            tokens=state.tokens,
            seconds=time.perf_counter() - self._started,
            tokens_per_second=state.tokens / state.training_seconds if state.training_seconds else 0.0,
            best_loss=state.best_loss,
            best_step=state.best_step,
            checkpoint_seconds=state.checkpoint_seconds,
            compiled=self._compiled is not None and self._compiled.compiled,
        )
