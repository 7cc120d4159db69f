"""Checkpoints in shards, with one process that holds the only part; test_processes.py, an integration test, has two."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch._C._distributed_c10d import HashStore

from torch_linguist.checkpoint import load_model, read_checkpoint
from torch_linguist.checkpoint.shards import gathered_on_disk, has_shards, remove_unused_shards, without_shards
from torch_linguist.checkpoint.storage import checkpoint_content, copied_weights, load_weights, write_checkpoint
from torch_linguist.distributed.sharding import shard, whole
from torch_linguist.distributed.stored_shards import StoredTensor
from torch_linguist.errors import TrainingError
from torch_linguist.model import LanguageModel
from torch_linguist.trainer.callbacks.checkpointing import newest_state

ModelBuilder = Callable[..., LanguageModel]
Content = dict[str, Any]


@pytest.fixture
def sharded(build_model: ModelBuilder) -> Iterator[LanguageModel]:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    model = build_model("lstm", tied=True)
    shard(torch.nn.Sequential(model), torch.device("cpu"))
    yield model
    dist.destroy_process_group()


def save(model: LanguageModel, path: Path, step: int, *previous: Path) -> None:
    moments = [{"mean": next(model.parameters()).detach()}]
    content = checkpoint_content(model, {"step": step, "moments": moments})
    write_checkpoint(path, without_shards(content, path.parent, step), previous)


def test_shards_come_back_whole_or_in_parts(sharded: LanguageModel, build_model: ModelBuilder, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save(sharded, path, 7)
    expected = build_model("lstm", tied=True).state_dict()
    content = read_checkpoint(path)
    for name, weight in expected.items():
        assert torch.equal(content["weights"][name], weight)
    assert torch.equal(content["progress"]["moments"][0]["mean"], expected["embedding.weight"])
    assert content["weights"]["output.weight"] is content["weights"]["embedding.weight"]
    assert (tmp_path / "shards-7" / ".metadata").is_file()

    parts = read_checkpoint(path, parts=True)
    assert all(isinstance(value, StoredTensor) for value in parts["weights"].values())
    with torch.no_grad():
        for weight in sharded.parameters():
            weight.zero_()
    load_weights(sharded, parts, path)
    for name, weight in sharded.named_parameters():
        assert has_shards([weight])
        assert torch.equal(whole(weight), expected[name])
    assert all(torch.equal(weight, expected[name]) for name, weight in load_model(path).state_dict().items())


def test_a_content_without_shards_is_what_it_was(build_model: ModelBuilder, tmp_path: Path) -> None:
    content = checkpoint_content(build_model("gru"), {"step": 3})
    assert without_shards(content, tmp_path, 3) is content
    written: list[Content] = []
    gathered_on_disk(content, tmp_path / "best.pt", written.append)
    assert written == [content]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["altered", "missing", "folder"])
def test_damaged_shards_leave_the_state_before(
    damage: str, sharded: LanguageModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    for step in (4, 8):
        save(sharded, last, step, previous)
    (file,) = (tmp_path / "shards-8").glob("*.distcp")
    if damage == "altered":
        file.write_bytes(file.read_bytes().replace(b"\0", b"\1", 1))
    elif damage == "missing":
        file.unlink()
    else:
        (tmp_path / "shards-8").rename(tmp_path / "elsewhere")
    found = newest_state(tmp_path)
    assert found is not None
    assert (found[0], found[1]["progress"]["step"]) == (previous, 4)
    assert "last.pt: " in caplog.text or "shards-8: is missing" in caplog.text
    assert "trying the one before it" in caplog.text


def test_only_shards_that_no_file_names_are_deleted(sharded: LanguageModel, tmp_path: Path) -> None:
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"

    def folders() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir() if path.is_dir())

    (tmp_path / "shards-of-mine").mkdir()
    for step in (1, 2, 2, 3):
        save(sharded, last, step, previous)
    assert folders() == ["shards-1", "shards-2", "shards-2-2", "shards-3", "shards-of-mine"]
    remove_unused_shards(tmp_path, [last, previous])
    assert folders() == ["shards-2-2", "shards-3", "shards-of-mine"]
    previous.write_bytes(b"damaged")
    (tmp_path / "shards-9").mkdir()
    remove_unused_shards(tmp_path, [last, previous])
    assert folders() == ["shards-2-2", "shards-3", "shards-9", "shards-of-mine"]


def test_the_best_model_becomes_one_file(sharded: LanguageModel, build_model: ModelBuilder, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    held = checkpoint_content(sharded, {"step": 3}) | {"weights": copied_weights(sharded)}
    with torch.no_grad():
        for weight in sharded.parameters():
            weight.zero_()
    gathered_on_disk(held, path, lambda content: write_checkpoint(path, content))
    assert [entry.name for entry in tmp_path.iterdir()] == ["best.pt"]
    for name, weight in build_model("lstm", tied=True).state_dict().items():
        assert torch.equal(load_model(path).state_dict()[name], weight)


@pytest.mark.parametrize(
    "change",
    [
        lambda shards: shards | {"folder": "../elsewhere"},
        lambda shards: shards | {"folder": "/tmp/shards-7"},
        lambda shards: shards | {"checksums": {"../last.pt": None}},
        lambda shards: shards | {"checksums": {}},
        lambda shards: (
            shards | {"tensors": {name: tensor | {"shape": [1 << 40]} for name, tensor in shards["tensors"].items()}}
        ),
        lambda shards: shards | {"tensors": {}},
        lambda shards: shards | {"places": {"weights": [["nowhere", "else"]]}},
        lambda shards: [],
    ],
)
def test_a_strangers_description_leads_nowhere_else(
    change: Callable[[Content], Content], sharded: LanguageModel, tmp_path: Path
) -> None:
    path = tmp_path / "last.pt"
    save(sharded, path, 7)
    content = torch.load(path, weights_only=True)
    write_checkpoint(path, content | {"shards": change(content["shards"])})
    with pytest.raises(TrainingError, match=r"last\.pt|shards-7"):
        read_checkpoint(path)
