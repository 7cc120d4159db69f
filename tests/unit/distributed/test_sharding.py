"""Shards in one process, and what does not work with them; test_processes.py, an integration test, runs several."""

from collections.abc import Callable
from typing import Any

import pytest

from torch_linguist.distributed import sharding
from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel
from torch_linguist.optim import Muon
from torch_linguist.trainer import TrainerSettings, TrainingContext, context


def test_without_shards_nothing_is_gathered(build_model: Callable[..., LanguageModel]) -> None:
    model = build_model("lstm", tied=True)
    before = list(model.parameters())
    with sharding.whole_weights(model):
        assert all(left is right for left, right in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("other", [{"average": "ema"}, {"freeze": 3}, {"compile": True}])
def test_shards_do_not_work_with_everything(other: dict[str, Any]) -> None:
    (name,) = other
    with pytest.raises(ValueError, match=rf"trainer\.shard=true: does not work with trainer\.{name}="):
        TrainerSettings(max_steps=1, shard=True, **other)
    TrainerSettings(max_steps=1, shard=True, compile=False)


def test_muon_needs_whole_matrices(
    make_context: Callable[..., TrainingContext],
    build_model: Callable[..., LanguageModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context, "world_size", lambda: 2)
    training = make_context(make_optimizer=Muon, shard=True)
    with pytest.raises(ConfigError, match=r"trainer\.shard=true: optim=muon needs whole matrices; set optim="):
        training.prepare_training(build_model("gru"), 0.1, 0.0)
