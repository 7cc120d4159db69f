"""Callbacks: objects that are called with what happens in a run, and that may act on the training.

Reports (terminal, TensorBoard), validation, early stopping, checkpoints, weight averages and logging are callbacks. A
callback of your own is a class with the methods it needs:

    class StopWhenGood(Callback):
        def __init__(self, loss: float) -> None:
            self.loss, self.times = loss, 0

        def validated(self, training: Fit, loss: float) -> None:
            self.times += loss < self.loss
            if self.times == 3:
                training.end(f"three validation losses below {self.loss}")

        def state_dict(self) -> dict[str, Any]:
            return {"times": self.times}

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            self.times = int(state["times"])

    train(model, corpus, max_epochs=10, callbacks=[StopWhenGood(4.5)])
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from torch_linguist.errors import TrainingError

if TYPE_CHECKING:
    from torch_linguist.model import LanguageModel
    from torch_linguist.trainer.fit import Fit

Fact = str | int | float


class Callback:
    """Base class of callbacks. Every method does nothing; a subclass overrides those it needs.

    Example:
        >>> class Printer(Callback):
        ...     def validated(self, training, loss):
        ...         print("validated")
        >>> network = LSTM(corpus.tokenizer.vocab_size, embedding_dim=8, hidden_size=8)
        >>> options = {"max_steps": 1, "batch_size": 2, "sequence_length": 10, "device": "cpu"}
        >>> _ = train(network, corpus, callbacks=[Printer()], **options)
        validated
    """

    # What happens in a run, for reports.

    def header(self, facts: Mapping[str, Mapping[str, Fact]]) -> None:
        """The run begins; `facts` describe corpus, tokenizer, model and training."""

    def stage_started(self, stage: str, about: str) -> None:
        """A stage begins; `about` describes it in a few words."""

    def progressed(self, stage: str, fraction: float, facts: Mapping[str, Fact]) -> None:
        """A stage has reached a fraction from 0 to 1; `facts` are worth showing live (loss, tokens per second)."""

    def stage_finished(self, stage: str, verdict: str, seconds: float) -> None:
        """A stage has ended; `verdict` is its result in one line."""

    def model_ready(self, model: "LanguageModel", tokens: Sequence[str]) -> None:
        """The model is about to be trained; `tokens` are its vocabulary."""

    def logged(self, scalars: Mapping[str, float], step: int) -> None:
        """A row of `metrics.csv` was written (loss, learning rate, gradient norm, validation loss)."""

    def sampled(self, samples: Sequence[tuple[str, str]], step: int) -> None:
        """Continuations were sampled; `samples` are pairs of prompt and text."""

    def profiled(self, table: Path, step: int) -> None:
        """The updates up to `step` were profiled; `table` is `profile.csv` (see `Profiling`)."""

    def finished(
        self,
        model: "LanguageModel",
        tokens: Sequence[str],
        hyperparameters: Mapping[str, Fact],
        metrics: Mapping[str, float],
        step: int,
    ) -> None:
        """The best model was scored."""

    def run_ended(self, folder: Path, artifacts: Mapping[str, str]) -> None:
        """The run has ended, whatever its status; `artifacts` are the files that it left, relative to the folder."""

    def noted(self, message: str) -> None:
        """A message for the user, in one line."""

    def close(self) -> None:
        """The run is over, also after an error: release files and other resources."""

    # What happens in a training. The callback may read and change it through `training`.

    def training_started(self, training: "Fit") -> None:
        """The training begins or continues; a saved state has been restored."""

    def before_update(self, training: "Fit") -> None:
        """An update is about to be made."""

    def after_update(self, training: "Fit") -> None:
        """An update was made; it is described by `training.state.update`."""

    def loss_read(self, training: "Fit", loss: float) -> None:
        """The loss of an update, which is finite, was fetched from the device, perhaps some updates later."""

    def rolled_back(self, training: "Fit", saved: Mapping[str, Any]) -> None:
        """Weights and optimizer were restored from a checkpoint; `saved` is the training's state in it."""

    def before_validation(self, training: "Fit") -> None:
        """The validation loss is about to be measured."""

    def validated(self, training: "Fit", loss: float) -> None:
        """The validation loss was measured, in nats per token; `training.state` takes it into account."""

    def before_checkpoint(self, training: "Fit") -> None:
        """A checkpoint is about to be written: what it relies on must be on disk."""

    def training_ended(self, training: "Fit") -> None:
        """The training has ended without an error."""

    def training_failed(self, training: "Fit") -> None:
        """The training is about to end with a `TrainingError`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a checkpoint keeps, as plain types and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state_dict`; called before `training_started`."""


class CallbackList(Callback):
    """Several callbacks as one. Each call goes to all of them in order.

    Args:
        callbacks: callbacks to call; the members of another list are taken one by one.

    Example:
        >>> len(list(CallbackList([Callback(), Callback()])))
        2
    """

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._callbacks: list[Callback] = []
        for callback in callbacks:
            self._callbacks.extend(callback if isinstance(callback, CallbackList) else [callback])

    def __iter__(self) -> Iterator[Callback]:
        return iter(self._callbacks)

    def add(self, callback: Callback) -> None:
        """Append a callback."""
        self._callbacks.append(callback)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all callbacks that have one, by name.

        Raises:
            TrainingError: a state holds something other than plain types and tensors.
        """
        states = {name: callback.state_dict() for name, callback in self._named()}
        for name, state in states.items():
            if not _is_plain(state):
                raise TrainingError(f"callback {name}: state_dict() must hold plain types and tensors only")
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the states of all callbacks; one that has none in `state` stays as it is."""
        for name, callback in self._named():
            if name in state:
                callback.load_state_dict(state[name])

    def _named(self) -> Iterator[tuple[str, Callback]]:
        """Yield each callback with the name of its class; a second one of the class is numbered."""
        counts: dict[str, int] = {}
        for callback in self._callbacks:
            name = type(callback).__name__
            counts[name] = counts.get(name, 0) + 1
            yield name if counts[name] == 1 else f"{name}-{counts[name]}", callback


def _fan_out(name: str) -> Callable[..., None]:
    def call(self: CallbackList, *args: Any, **kwargs: Any) -> None:
        for callback in self:
            getattr(callback, name)(*args, **kwargs)

    return call


for _name, _ in inspect.getmembers(Callback, inspect.isfunction):
    if _name not in vars(CallbackList):
        setattr(CallbackList, _name, _fan_out(_name))


def _is_plain(value: Any) -> bool:
    """Return whether a value can be loaded from a checkpoint without running code."""
    if isinstance(value, Mapping):
        return all(type(key) in (str, int) and _is_plain(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str) or isinstance(value, Tensor)
