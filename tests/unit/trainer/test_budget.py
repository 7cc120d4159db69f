"""How much of a training is done, by each limit; and the settings' own checks."""

import itertools
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel
from torch_linguist.optim import Linear
from torch_linguist.trainer import (
    Callback,
    Fit,
    FitResult,
    TrainerSettings,
    TrainingContext,
)
from torch_linguist.trainer.budget import Budget, remaining_seconds
from torch_linguist.trainer.state import TrainingState


def progress(state: TrainingState, **limits: Any) -> float:
    Budget(TrainerSettings(**limits)).update(state)
    return state.progress


@pytest.mark.parametrize(
    ("limits", "share"),
    [
        ({"max_steps": 40}, 0.25),
        ({"max_epochs": 2}, 0.75),
        ({"max_tokens": 10_000}, 0.1),
        ({"max_minutes": 2}, 0.5),
        ({"max_steps": 40, "max_minutes": 2, "max_epochs": 100}, 0.5),
        ({"max_steps": 5}, 1.0),
    ],
)
def test_the_nearest_limit_counts(limits: dict[str, float], share: float) -> None:
    state = TrainingState(step=10, epochs=1.5, tokens=1000, seconds=60)
    assert progress(state, **limits) == pytest.approx(share, abs=1e-9)


def test_an_epoch_ends_with_its_last_batch() -> None:
    assert progress(TrainingState(step=3, epochs=sum([1 / 3] * 3)), max_epochs=1) == 1
    assert progress(TrainingState(step=2, epochs=2 / 3), max_epochs=1) < 1


class Clock(Callback):
    """Lets time pass: for an update, for a validation, for a checkpoint."""

    def __init__(self, update: Callable[[int], float], validation: float, checkpoint: float = 0.0) -> None:
        self.now, self._update, self._validation, self._checkpoint = 1000.0, update, validation, checkpoint
        self.began = self.now
        self.progress: list[float] = []
        self.validations = 0

    def before_update(self, training: Fit) -> None:
        self.progress.append(training.state.progress)
        self.now += self._update(len(self.progress))

    def before_validation(self, training: Fit) -> None:
        self.now += self._validation
        self.validations += 1

    def before_checkpoint(self, training: Fit) -> None:
        self.now += self._checkpoint


def timed_fit(
    clock: Clock,
    context: TrainingContext,
    model: LanguageModel,
    folder: Path,
    patch: pytest.MonkeyPatch,
    resume: Path | None = None,
) -> FitResult:
    patch.setattr(time, "perf_counter", lambda: clock.now)
    patch.setattr(time, "monotonic", lambda: clock.now)
    return Fit(model, context, 0.01, 0.0, folder, [clock], resume=resume).run()


@pytest.mark.parametrize(
    ("eval_every", "validation"), [(None, 0.0), (None, 0.3), (None, 1.0), (None, 4.0), (20, 0.0), (20, 0.3), (20, 1.0)]
)
def test_validations_do_not_move_a_timed_schedule(
    eval_every: int | None,
    validation: float,
    make_context: Callable[..., TrainingContext],
    build_model: Callable[..., LanguageModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(lambda step: 0.15 if step % 3 else 0.1, validation)
    context = make_context(max_steps=None, max_minutes=0.5, eval_every=eval_every, eval_tokens=20, schedule=Linear())
    timed_fit(clock, context, build_model("rnn", 50), tmp_path, monkeypatch)
    # It ends with the clock, the last validation included, of which a tenth of the time is reserved.
    assert 29 < clock.now - clock.began < 30.2 + max(0.0, validation - 3)
    moves = [after - before for before, after in itertools.pairwise(clock.progress)]
    ordinary = statistics.median(moves)
    assert min(moves) > 0
    assert max(moves) < 2.5 * ordinary
    # Progress follows the updates: in the last tenth of them it goes through the last tenth.
    count = len(clock.progress)
    for tenth in range(1, 10):
        assert clock.progress[count * tenth // 10] == pytest.approx(tenth / 10, abs=0.07)


@pytest.mark.parametrize(
    ("validation", "checkpoint", "count"), [(0.1, 0.0, 10), (0.3, 0.0, 5), (0.7, 0.0, 3), (0.1, 0.4, 10)]
)
def test_validations_keep_to_their_share_of_a_timed_training(
    validation: float,
    checkpoint: float,
    count: int,
    make_context: Callable[..., TrainingContext],
    build_model: Callable[..., LanguageModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(lambda step: 0.1, validation, checkpoint)
    context = make_context(max_steps=None, max_minutes=0.5, eval_tokens=20)
    timed_fit(clock, context, build_model("rnn", 50), tmp_path, monkeypatch)
    assert clock.validations == pytest.approx(count, abs=1)
    assert (clock.validations - 1) * validation <= 0.05 * 30


def test_a_validation_that_outlasts_the_limit_ends_the_training(
    make_context: Callable[..., TrainingContext],
    build_model: Callable[..., LanguageModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(lambda step: 0.5, 50.0)
    context = make_context(max_steps=None, max_minutes=0.5, eval_every=20, eval_tokens=20)
    result = timed_fit(clock, context, build_model("rnn", 50), tmp_path, monkeypatch)
    assert (result.steps, result.seconds) == (20, 60)


def test_a_longer_time_limit_continues_where_the_schedule_would_be(
    make_context: Callable[..., TrainingContext],
    build_model: Callable[..., LanguageModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(minutes: float, resume: Path | None = None) -> Clock:
        clock = Clock(lambda step: 0.1, 0.0)
        context = make_context(max_steps=None, max_minutes=minutes, eval_every=1000, eval_tokens=20)
        timed_fit(clock, context, build_model("rnn", 50), tmp_path, monkeypatch, resume=resume)
        return clock

    run(0.1)
    resumed = run(0.2, tmp_path / "checkpoints" / "last.pt")
    assert resumed.progress[0] == pytest.approx(0.5, abs=0.01)
    assert len(resumed.progress) == pytest.approx(60, abs=1)


def test_time_left() -> None:
    assert remaining_seconds(0.25, 10) == 30
    assert remaining_seconds(1, 10) == 0
    assert math.isinf(remaining_seconds(0, 10))


@pytest.mark.parametrize(
    ("kind", "options", "names"),
    [
        (TrainerSettings, {}, "max_epochs, max_steps, max_tokens, max_minutes"),
        (TrainerSettings, {"max_steps": 0}, "trainer.max_steps=0"),
        (TrainerSettings, {"max_steps": 1, "batch_size": 0}, "trainer.batch_size=0"),
        (TrainerSettings, {"max_steps": 1, "sequence_length": -3}, "trainer.sequence_length=-3"),
        (TrainerSettings, {"max_steps": 1, "gradient_clip": 0}, "trainer.gradient_clip=0"),
        (TrainerSettings, {"max_steps": 1, "accumulate": 0}, "trainer.accumulate=0"),
        (TrainerSettings, {"max_steps": 1, "patience": 0}, "trainer.patience=0"),
        (TrainerSettings, {"max_steps": 1, "sample_every": -1}, "trainer.sample_every=-1"),
        (TrainerSettings, {"max_minutes": math.nan}, "trainer.max_minutes=nan"),
        (TrainerSettings, {"max_steps": 1, "precision": "fp16"}, "trainer.precision=fp16: .*bf16"),
        (TrainerSettings, {"max_steps": 1, "batches": "window"}, "trainer.batches=window: .*windows"),
    ],
)
def test_wrong_settings_are_named(kind: Any, options: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError, match=names) as caught:
        kind(**options)
    assert "\n" not in str(caught.value)
