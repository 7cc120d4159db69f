"""Callbacks: each call reaches all of them, a user's own acts on the training, and its state outlasts a stop."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from torch_linguist.checkpoint import read_checkpoint
from torch_linguist.errors import TrainingError
from torch_linguist.model import LanguageModel
from torch_linguist.trainer import Callback, CallbackList, Fit, TrainingContext, train

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]


class Recorder(Callback):
    """Records the names of the calls it receives."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name in HOOKS:
            object.__getattribute__(self, "calls").append(name)
        return object.__getattribute__(self, name)


HOOKS = {name for name, _ in inspect.getmembers(Callback, inspect.isfunction)} - {"state_dict", "load_state_dict"}


class StopWhenGood(Callback):
    """The example in the documentation of callbacks."""

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


class CountUpdates(Callback):
    def __init__(self) -> None:
        self.updates = 0

    def after_update(self, training: Fit) -> None:
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = int(state["updates"])


def test_a_list_calls_every_callback_in_order() -> None:
    first, second = Recorder(), Recorder()
    callbacks = CallbackList([first, CallbackList([second])])
    order: list[int] = []

    class Order(Callback):
        def __init__(self, number: int) -> None:
            self.number = number

        def noted(self, message: str) -> None:
            order.append(self.number)

    callbacks.add(Order(1))
    callbacks.add(Order(2))
    arguments: dict[str, Any] = {"model": None, "tokens": [], "hyperparameters": {}, "metrics": {}, "step": 1}
    for name in sorted(HOOKS):
        hook = getattr(callbacks, name)
        if name == "finished":
            hook(**arguments)
        else:
            hook(*[None] * (len(inspect.signature(getattr(Callback, name)).parameters) - 1))
    assert first.calls == second.calls == sorted(HOOKS)
    assert order == [1, 2]


def test_the_calls_of_a_training_come_in_order(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    recorder = Recorder()
    Fit(
        build_model("lstm", 50), make_context(max_steps=2, eval_every=2, log_every=1), 0.01, 0.0, tmp_path, [recorder]
    ).run()
    own = [name for name in recorder.calls if name not in ("logged", "progressed", "loss_read")]
    assert own == [
        "training_started",
        "before_update",
        "after_update",
        "before_update",
        "before_validation",
        "validated",
        "after_update",
        "before_checkpoint",
        "training_ended",
    ]
    assert recorder.calls.count("loss_read") == 2


def test_a_callback_of_a_user_ends_a_training(
    tmp_path: Path, make_context: ContextBuilder, build_model: ModelBuilder
) -> None:
    corpus = make_context().corpus
    result = train(
        build_model("lstm", corpus.tokenizer.vocab_size), corpus, callbacks=[StopWhenGood(100.0)], folder=tmp_path,
        max_steps=50, eval_every=2, eval_tokens=40, batch_size=4, sequence_length=8, device="cpu", precision="fp32",
    )  # fmt: skip
    assert (result.steps, result.status) == (6, "finished")
    assert result.reason == "three validation losses below 100.0"


@pytest.mark.parametrize("cut", [3, 4])
def test_the_state_of_a_callback_outlasts_a_stop(
    cut: int, make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(max_steps=12, eval_every=2, eval_tokens=40)
    last = tmp_path / "checkpoints" / "last.pt"

    def fit(callbacks: list[Callback], **options: Any) -> Fit:
        return Fit(build_model("lstm", 50), context, 0.01, 0.0, tmp_path, callbacks, **options)

    calls = iter(range(100))
    fit([StopWhenGood(100.0), CountUpdates()], stop=lambda: next(calls) == cut - 1).run()
    saved = read_checkpoint(last)["progress"]["callbacks"]
    assert (saved["StopWhenGood"], saved["CountUpdates"]) == ({"times": cut // 2}, {"updates": cut})
    counter = CountUpdates()
    result = fit([StopWhenGood(100.0), counter], resume=last).run()
    assert (result.steps, counter.updates) == (6, 6)


def test_two_callbacks_of_a_class_keep_their_own_state() -> None:
    one, other, fresh = StopWhenGood(1.0), StopWhenGood(2.0), StopWhenGood(3.0)
    one.times, other.times, fresh.times = 1, 2, 7
    state = CallbackList([one, other]).state_dict()
    again = [StopWhenGood(1.0), StopWhenGood(2.0), fresh]
    CallbackList(again).load_state_dict(state)
    assert [callback.times for callback in again] == [1, 2, 7]


def test_a_state_that_a_checkpoint_cannot_hold_is_refused() -> None:
    class Odd(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"folder": [Path("here")]}

    with pytest.raises(TrainingError, match=r"callback Odd: .*plain types"):
        CallbackList([Odd()]).state_dict()
