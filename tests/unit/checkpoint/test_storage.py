"""Checkpoints: whole or not there, plain types alone, and no class of a stranger's."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torch_linguist.checkpoint import load_model, read_checkpoint, save_checkpoint
from torch_linguist.errors import TrainingError
from torch_linguist.model import LSTM, LanguageModel
from torch_linguist.trainer.randomness import random_state

ModelBuilder = Callable[..., LanguageModel]
CASES = [("lstm", {}), ("gru", {"tied": True}), ("transformer", {"output": "adaptive", "cutoffs": (5, 20)})]


@pytest.fixture
def checkpoint(tmp_path: Path, build_model: ModelBuilder) -> Path:
    path = tmp_path / "best.pt"
    save_checkpoint(path, build_model("lstm", 20), {"step": 3})
    return path


def rewritten(path: Path, **changes: Any) -> Path:
    """The checkpoint with other entries; None takes one away."""
    content = torch.load(path, weights_only=True) | changes
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


@pytest.mark.parametrize(("family", "options"), CASES)
def test_a_model_comes_back(family: str, options: dict[str, Any], tmp_path: Path, build_model: ModelBuilder) -> None:
    model = build_model(family, **options).train()
    model.prepare_vocabulary(torch.arange(50))
    progress = {"step": 3, "loss": 1.5, "random": random_state(), "carried": [torch.ones(2)], "none": None}
    save_checkpoint(tmp_path / "deep" / "best.pt", model, progress)
    content = torch.load(tmp_path / "deep" / "best.pt", weights_only=True)
    assert content["progress"]["step"] == 3
    again = load_model(tmp_path / "deep" / "best.pt")
    assert type(again) is type(model)
    assert not again.training
    assert again.num_parameters() == model.num_parameters()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_others_may_read_what_a_run_leaves(checkpoint: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert checkpoint.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_failing_write_leaves_the_old_one(
    checkpoint: Path, build_model: ModelBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = checkpoint.read_bytes()

    def half(content: Any, file: Any) -> None:
        file.write(b"half of a")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(checkpoint, build_model("lstm", 20), {"step": 4})
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ["best.pt"]


def test_there_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"best\.pt: no such checkpoint"):
        load_model(tmp_path / "best.pt")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_truncated_file_is_named(checkpoint: Path, share: float) -> None:
    content = checkpoint.read_bytes()
    path = checkpoint.with_name("cut.pt")
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(TrainingError, match=r"cut\.pt: ") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not a checkpoint", b"PK\x03\x04" + b"x" * 50, b"\x80\x04."])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_of_another_kind_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"best\.pt: ") as caught:
        load_model(tmp_path / "best.pt")
    assert "\n" not in str(caught.value)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "done"),))

    torch.save({"format": 1, "model": Evil()}, tmp_path / "best.pt")
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        load_model(tmp_path / "best.pt")
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("target", ["os.system", "torch.nn.Linear", "torch_linguistic.Model", "LSTM", ""])
def test_a_class_of_a_stranger_is_refused(target: str, checkpoint: Path) -> None:
    rewritten(checkpoint, model={"target": target, "arguments": {}})
    with pytest.raises(TrainingError, match="outside torch_linguist"):
        load_model(checkpoint)


@pytest.mark.parametrize(
    "model",
    [
        {"target": "torch_linguist.data.TokenStream", "arguments": {}},
        {"target": "torch_linguist.checkpoint.storage.os.system", "arguments": {}},
        {"target": "torch_linguist.model.base.nn.Linear", "arguments": {}},
        {"target": "torch_linguist.model.LSMT", "arguments": {}},
        {"target": "torch_linguist.nowhere.LSTM", "arguments": {}},
        {"target": "torch_linguist.model.LSTM", "arguments": {"vocab_size": 20, "no_such": 1}},
        {"target": "torch_linguist.model.LSTM", "arguments": {"vocab_size": 21}},
        {"target": "torch_linguist.model.LSTM"},
        {},
        None,
        "LSTM",
    ],
    ids=str,
)
def test_a_checkpoint_that_does_not_fit_is_named(model: Any, checkpoint: Path) -> None:
    rewritten(checkpoint, model=model)
    with pytest.raises(TrainingError, match=r"best\.pt: ") as caught:
        load_model(checkpoint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("found", [None, 0, 2, "1"])
def test_another_format_is_named(found: Any, checkpoint: Path) -> None:
    with pytest.raises(TrainingError, match="is not 1; it was written by another version"):
        read_checkpoint(rewritten(checkpoint, format=found))


class Stranger(LSTM):
    """A person's own model."""


def test_a_model_of_ones_own_loads_where_it_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    save_checkpoint(path, Stranger(20, 8, 8), {})
    with pytest.raises(TrainingError, match="outside torch_linguist"):
        load_model(path)
    assert isinstance(load_model(path, trusted=[f"{__name__}."]), Stranger)
