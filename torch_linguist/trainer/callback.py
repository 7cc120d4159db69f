"""What happens in a run, for those who watch it: the terminal, TensorBoard, a notebook."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch_linguist.model import LanguageModel

Fact = str | int | float


class Callback:
    """Watches a run. Every method does nothing here; a watcher overrides what it cares for."""

    def header(self, facts: Mapping[str, Mapping[str, Fact]]) -> None:
        """The run is about to begin: facts by subject (corpus, tokenizer, model, training)."""

    def stage_started(self, stage: str, about: str) -> None:
        """A stage begins; `about` says in a few words what it will do."""

    def progressed(self, stage: str, fraction: float, facts: Mapping[str, Fact]) -> None:
        """A stage has come so far (0 to 1); `facts` are worth showing live (loss, tokens per second)."""

    def stage_finished(self, stage: str, verdict: str, seconds: float) -> None:
        """A stage has ended; `verdict` is its result in one line."""

    def logged(self, scalars: Mapping[str, float], step: int) -> None:
        """Scalars of the long training at an update (loss, learning rate, gradient norm, validation loss)."""

    def sampled(self, samples: Sequence[tuple[str, str]], step: int) -> None:
        """Sample continuations, as pairs of prompt and text."""

    def model_ready(self, model: "LanguageModel", tokens: Sequence[str]) -> None:
        """The model that the long training will train, and its vocabulary."""

    def finished(
        self,
        model: "LanguageModel",
        tokens: Sequence[str],
        hyperparameters: Mapping[str, Fact],
        metrics: Mapping[str, float],
        step: int,
    ) -> None:
        """The long training has ended with this model and these scores."""

    def profiled(self, table: Path, step: int) -> None:
        """The updates up to this one were profiled; `table` is `profile.csv` (see `Profiling`)."""

    def saved(self, step: int) -> None:
        """A checkpoint is about to be written: what was told up to this update must outlast a crash."""

    def noted(self, message: str) -> None:
        """Something the user should know, in one line."""

    def close(self) -> None:
        """The run is over, well or not."""


class CallbackList(Callback):
    """Several observers as one.

    Args:
        observers: are told everything, in this order.
    """

    def __init__(self, observers: Sequence[Callback]) -> None:
        self._observers = list(observers)

    def add(self, observer: Callback) -> None:
        """One more observer, from now on."""
        self._observers.append(observer)

    def header(self, facts: Mapping[str, Mapping[str, Fact]]) -> None:
        for observer in self._observers:
            observer.header(facts)

    def stage_started(self, stage: str, about: str) -> None:
        for observer in self._observers:
            observer.stage_started(stage, about)

    def progressed(self, stage: str, fraction: float, facts: Mapping[str, Fact]) -> None:
        for observer in self._observers:
            observer.progressed(stage, fraction, facts)

    def stage_finished(self, stage: str, verdict: str, seconds: float) -> None:
        for observer in self._observers:
            observer.stage_finished(stage, verdict, seconds)

    def logged(self, scalars: Mapping[str, float], step: int) -> None:
        for observer in self._observers:
            observer.logged(scalars, step)

    def sampled(self, samples: Sequence[tuple[str, str]], step: int) -> None:
        for observer in self._observers:
            observer.sampled(samples, step)

    def model_ready(self, model: "LanguageModel", tokens: Sequence[str]) -> None:
        for observer in self._observers:
            observer.model_ready(model, tokens)

    def finished(
        self,
        model: "LanguageModel",
        tokens: Sequence[str],
        hyperparameters: Mapping[str, Fact],
        metrics: Mapping[str, float],
        step: int,
    ) -> None:
        for observer in self._observers:
            observer.finished(model, tokens, hyperparameters, metrics, step)

    def profiled(self, table: Path, step: int) -> None:
        for observer in self._observers:
            observer.profiled(table, step)

    def saved(self, step: int) -> None:
        for observer in self._observers:
            observer.saved(step)

    def noted(self, message: str) -> None:
        for observer in self._observers:
            observer.noted(message)

    def close(self) -> None:
        for observer in self._observers:
            observer.close()
