"""A run folder is data: what it lacks or has damaged is named, and nothing in it is executed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from torch_linguist.checkpoint import save_checkpoint
from torch_linguist.checkpoint.loaded_run import load_run
from torch_linguist.data import TokenizedCorpus
from torch_linguist.errors import LinguistError
from torch_linguist.model import LanguageModel

ModelBuilder = Callable[..., LanguageModel]


@pytest.fixture
def folder(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "checkpoints" / "best.pt", build_model("gru", tiny_corpus.tokenizer.vocab_size), {})
    tiny_corpus.tokenizer.save(tmp_path / "tokenizer.json")
    (tmp_path / "summary.json").write_text(json.dumps({"status": "finished"}))
    return tmp_path


@pytest.mark.parametrize("kind", [str, Path])
def test_a_run_is_loaded(kind: Callable[[Path], str | Path], folder: Path) -> None:
    loaded = load_run(kind(folder))
    assert (loaded.folder, loaded.summary) == (folder, {"status": "finished"})
    assert not loaded.model.training
    assert loaded.model.vocab_size == loaded.tokenizer.vocab_size


def test_a_run_that_goes_on_has_no_summary_yet(folder: Path) -> None:
    (folder / "summary.json").unlink()
    assert load_run(folder).summary == {}


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(LinguistError, match="no such run folder"):
        load_run(folder / "nowhere")
    (folder / "checkpoints" / "best.pt").rename(folder / "kept")
    with pytest.raises(LinguistError, match=r"best\.pt: no such checkpoint"):
        load_run(folder)
    (folder / "kept").rename(folder / "checkpoints" / "best.pt")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(LinguistError, match=r"has no tokenizer\.json"):
        load_run(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "summary.json", "checkpoints/best.pt"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_what_is_damaged_is_named(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(LinguistError, match=Path(name).name.partition(".")[0]) as caught:
        load_run(folder)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_run_is_named(folder: Path, build_model: ModelBuilder) -> None:
    save_checkpoint(folder / "checkpoints" / "best.pt", build_model("gru", 7), {})
    with pytest.raises(LinguistError, match=r"tokenizer\.json has \d+ types, the checkpoint 7"):
        load_run(folder)
