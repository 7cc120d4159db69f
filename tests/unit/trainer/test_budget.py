"""How much of a training is done, by each limit; and the settings' own checks."""

import math
from typing import Any

import pytest

from torch_linguist.errors import ConfigError
from torch_linguist.trainer import (
    TrainerSettings,
)
from torch_linguist.trainer.budget import progress, remaining_seconds
from torch_linguist.trainer.state import TrainingState


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
    spent = TrainingState(step=10, epochs=1.5, tokens=1000, seconds=60)
    assert progress(spent, TrainerSettings(**limits)) == pytest.approx(share, abs=1e-9)  # type: ignore[arg-type]


def test_an_epoch_ends_with_its_last_batch() -> None:
    done = sum([1 / 3] * 3)
    assert progress(TrainingState(step=3, epochs=done), TrainerSettings(max_epochs=1)) == 1
    assert progress(TrainingState(step=2, epochs=2 / 3), TrainerSettings(max_epochs=1)) < 1


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
