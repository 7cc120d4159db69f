"""Files of a stranger's run that are not what they seem: pipes, archives that unpack to gigabytes, forgeries."""

import json
import os
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_linguist.checkpoint.loaded_run import load_run
from torch_linguist.checkpoint.storage import load_model, save_checkpoint
from torch_linguist.data import (
    BPETokenizerTrainer,
    ByteTokenizerTrainer,
    CharTokenizerTrainer,
    InMemoryCorpus,
    TokenizedCorpus,
    Tokenizer,
    TokenizerTrainer,
    UnigramTokenizerTrainer,
    WordTokenizerTrainer,
    prepare,
)
from torch_linguist.data.tokenizers.structure import check_structure
from torch_linguist.data.tokenizers.transforms import TRANSFORMS
from torch_linguist.errors import DataError, LinguistError, TrainingError
from torch_linguist.model import LSTM
from torch_linguist.runs.safe_reading import read_json, read_small_text

OURS: dict[str, TokenizerTrainer] = {
    "word, punctuation": WordTokenizerTrainer(split="punctuation", min_frequency=1),
    "word, whitespace": WordTokenizerTrainer(split="whitespace", min_frequency=1, lowercase=True),
    "word, all transforms": WordTokenizerTrainer(min_frequency=1, transforms=TRANSFORMS),
    "bpe": BPETokenizerTrainer(vocab_size=300),
    "unigram": UnigramTokenizerTrainer(vocab_size=300, transforms=["strip_accents"]),
    "char": CharTokenizerTrainer(lowercase=True),
    "byte": ByteTokenizerTrainer(transforms=["nfc", "digits"]),
}


@pytest.fixture
def run(tiny_corpus: TokenizedCorpus, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    model = LSTM(tiny_corpus.tokenizer.vocab_size, embedding_dim=8, hidden_size=8, num_layers=1, output="full")
    save_checkpoint(folder / "checkpoints" / "best.pt", model, {})
    tiny_corpus.tokenizer.save(folder / "tokenizer.json")
    (folder / "config.yaml").write_text("choices: {}\n")
    (folder / "summary.json").write_text('{"status": "finished"}')
    return folder


@pytest.mark.parametrize("name", OURS)
def test_what_the_package_writes_is_accepted(name: str, source_corpus: InMemoryCorpus) -> None:
    check_structure(OURS[name].train(source_corpus).to_json())


def truncated(content: dict[str, Any]) -> None:
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}


def padded(content: dict[str, Any]) -> None:
    content["padding"] = {
        "strategy": {"Fixed": 1000}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<eos>",
    }  # fmt: skip


def deleting(content: dict[str, Any]) -> None:
    content["normalizer"] = {"type": "Replace", "pattern": {"Regex": "[a-y]+"}, "content": ""}


def deleting_in_a_chain(content: dict[str, Any]) -> None:
    content["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Lowercase"}, {"type": "Replace", "pattern": {"String": " the "}, "content": " "}],
    }


def splitting_slowly(content: dict[str, Any]) -> None:
    pattern = {"Regex": "(a+)+$"}
    content["pre_tokenizer"] = {"type": "Split", "pattern": pattern, "behavior": "Removed", "invert": True}


def swallowing(content: dict[str, Any]) -> None:
    content["added_tokens"] = [
        {"id": 1, "content": "<unk>", "single_word": False, "lstrip": True, "rstrip": True, "normalized": False,
         "special": False},
    ]  # fmt: skip


@pytest.mark.parametrize("forge", [truncated, padded, deleting, deleting_in_a_chain, splitting_slowly, swallowing])
def test_a_forged_tokenizer_is_refused(
    forge: Callable[[dict[str, Any]], None], run: Path, tiny_corpus: TokenizedCorpus
) -> None:
    content = json.loads(tiny_corpus.tokenizer.to_json())
    forge(content)
    (run / "tokenizer.json").write_text(json.dumps(content))
    Tokenizer.load(run / "tokenizer.json")  # The library itself takes it.
    with pytest.raises(LinguistError, match=r"run/tokenizer\.json: its .* is not what torch-linguist writes"):
        load_run(run)


def test_a_tokenizer_of_another_kind_that_was_trained_here_is_accepted(
    run: Path, tiny_corpus: TokenizedCorpus, source_corpus: InMemoryCorpus, own_cache: Path
) -> None:
    content = json.loads(tiny_corpus.tokenizer.to_json())
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "zebra"}, "content": "horse"}
    own = Tokenizer.from_json(json.dumps(content))
    with pytest.raises(DataError):
        check_structure(own.to_json())
    own.save(run / "tokenizer.json")
    with pytest.raises(LinguistError):
        load_run(run)
    prepare(source_corpus, None, own_cache, tokenizer=own)
    assert load_run(run).tokenizer.to_json() == own.to_json()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        before = Path.cwd()
        os.chdir(path.parent)  # The name of a socket is at most some hundred bytes long.
        try:
            made.bind(path.name)
        finally:
            os.chdir(before)


@pytest.mark.parametrize("make", [make_fifo, make_socket])
@pytest.mark.parametrize("name", ["summary.json", "tokenizer.json", "checkpoints/best.pt", "more"])
def test_a_pipe_or_socket_in_place_of_a_file_is_refused(make: Callable[[Path], None], name: str, run: Path) -> None:
    (run / name).unlink(missing_ok=True)
    make(run / name)
    with pytest.raises(LinguistError, match=f"{name} is a pipe, socket or device"):
        load_run(run)


def test_a_pipe_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "summary.json")
    for read in (read_small_text, read_json):
        with pytest.raises(LinguistError, match="is no regular file"):
            read(tmp_path / "summary.json")


def test_an_archive_that_unpacks_to_gigabytes_is_refused(run: Path) -> None:
    path = run / "checkpoints" / "best.pt"
    bomb = run / "bomb.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            content = b"\0" * 2**28 if entry.filename.endswith("data/0") else source.read(entry)
            target.writestr(entry.filename, content)
    assert bomb.stat().st_size < 2**20
    shutil.move(bomb, path)
    with pytest.raises(LinguistError, match=r"best\.pt: unpacks to more than torch-linguist ever writes"):
        load_run(run)


@pytest.mark.parametrize(("value", "complaint"), [("nan", "'embedding.weight' holds values"), ("inf", "not finite")])
def test_weights_that_are_no_numbers_are_refused(run: Path, value: str, complaint: str) -> None:
    path = run / "checkpoints" / "best.pt"
    content = torch.load(path, weights_only=True)
    content["weights"]["embedding.weight"][3, 2] = float(value)
    torch.save(content, path)
    with pytest.raises(TrainingError, match=rf"best\.pt: .*{complaint}"):
        load_model(path)
