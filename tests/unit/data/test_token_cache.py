import errno
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

import torch_linguist.data.cache as cache
import torch_linguist.data.encoding as encoding
from torch_linguist.data import InMemoryCorpus, TokenizedCorpus, WordTokenizerTrainer, default_cache_dir, prepare
from torch_linguist.errors import DataError

ROOT = Path(__file__).resolve().parents[3]
CORPUS = InMemoryCorpus({"train": ["a b a\nb c\n", "a c"], "valid": ["a"], "test": ["b d"]})
TRAINER = WordTokenizerTrainer(min_frequency=1)

# Run in processes of their own: a corpus that waits for a signal, tells how often it is read, or kills the process.
SCRIPT = """
import logging, os, signal, sys, time
from pathlib import Path
from torch_linguist.data import InMemoryCorpus, WordTokenizerTrainer, prepare

class Slow(InMemoryCorpus):
    def documents(self, split):
        yield from super().documents(split)
        if split == "test" and sys.argv[3] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)

folder, ready = Path(sys.argv[1]), Path(sys.argv[2])
corpus = Slow({"train": ["a b a\\nb c\\n", "a c"], "valid": ["a"], "test": ["b d"]})
ready.touch()
while not (ready.parent / "go").exists():
    time.sleep(0.005)
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
tokenized = prepare(corpus, WordTokenizerTrainer(min_frequency=1), folder)
print("tokens", tokenized.train.ids.tolist())
"""


def start(folder: Path, ready: Path, end: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(folder), str(ready), end]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.endswith(".lock"))


def equal(first: TokenizedCorpus, second: TokenizedCorpus) -> bool:
    return all(
        np.array_equal(first.streams[split].ids, second.streams[split].ids)
        and first.streams[split].metadata == second.streams[split].metadata
        for split in first.streams
    )


def test_the_second_time_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(CORPUS, TRAINER, tmp_path)

    def read(*_: object) -> NoReturn:
        raise AssertionError("the corpus was read again")

    monkeypatch.setattr(InMemoryCorpus, "documents", read)
    second = prepare(CORPUS, TRAINER, tmp_path)
    assert equal(first, second)
    assert entries(tmp_path) == [first.folder.name]
    assert isinstance(second.train.ids, np.memmap)


def test_another_corpus_or_tokenizer_has_another_folder(tmp_path: Path) -> None:
    other = InMemoryCorpus({"train": ["a b"], "valid": ["a"], "test": ["b d"]})
    dropping = InMemoryCorpus({"train": ["a b"], "valid": ["a"], "test": ["b d"]}, blank_lines="drop")
    prints = [
        prepare(corpus, trainer, tmp_path).fingerprint
        for corpus in (CORPUS, other, dropping)
        for trainer in (TRAINER, WordTokenizerTrainer(min_frequency=1, lowercase=True))
    ]
    assert len(set(prints)) == 6
    assert len(entries(tmp_path)) == 6


def test_names_that_are_no_folder_names(tmp_path: Path) -> None:
    corpus = InMemoryCorpus({"train": ["a a"], "valid": ["a"], "test": ["a"]}, name="../my books/vol. 1")
    assert prepare(corpus, TRAINER, tmp_path).folder.parent == tmp_path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.mark.parametrize("name", ["train.ids", "valid.lines", "test.documents", "tokenizer.json", "token_counts"])
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_a_damaged_file_is_noticed_and_rebuilt(
    name: str, damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = prepare(CORPUS, TRAINER, tmp_path).folder
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    damage(folder / name)
    with caplog.at_level(logging.WARNING, logger="torch_linguist.data"):
        prepare(CORPUS, TRAINER, tmp_path)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole
    assert any(
        "damaged token cache" in record.getMessage() and name in record.getMessage() for record in caplog.records
    )
    assert entries(tmp_path) == [folder.name]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"fingerprint": "x", "files": {}}'])
def test_a_damaged_manifest_is_noticed_and_rebuilt(content: str, tmp_path: Path) -> None:
    folder = prepare(CORPUS, TRAINER, tmp_path).folder
    whole = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(content)
    prepare(CORPUS, TRAINER, tmp_path)
    assert json.loads((folder / "manifest.json").read_text()) == whole


def test_large_files_are_read_only_where_they_were_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepare(CORPUS, TRAINER, tmp_path)
    ids = whole.folder / "train.ids"
    content, untouched = ids.read_bytes(), ids.stat().st_mtime_ns
    monkeypatch.setattr(cache, "CHECKSUM_LIMIT", 0)
    flip(ids)
    os.utime(ids, ns=(untouched, untouched))  # As a fault of the disk would leave it.
    prepare(CORPUS, TRAINER, tmp_path)
    assert ids.read_bytes() != content
    prepare(CORPUS, TRAINER, tmp_path, verify=True)
    assert ids.read_bytes() == content
    for damage in (flip, truncate):
        damage(ids)
        prepare(CORPUS, TRAINER, tmp_path)
        assert ids.read_bytes() == content


def test_two_processes_build_one_cache(tmp_path: Path) -> None:
    processes = [start(tmp_path / "cache", tmp_path / f"ready{number}", "live") for number in range(2)]
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"ready{number}").exists() for number in range(2)) and time.monotonic() < deadline:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0][-1] == outputs[1][-1]
    assert outputs[0][-1].startswith("tokens [")
    # Only one of them made the streams, the other waited for it.
    assert sorted(len(lines) for lines in outputs) == [1, 4]
    assert len(entries(tmp_path / "cache")) == 1


def test_a_killed_build_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    process = start(tmp_path / "cache", tmp_path / "ready", "die")
    process.communicate(timeout=60)
    assert process.returncode == -9
    (left_over,) = entries(tmp_path / "cache")
    assert ".tmp-" in left_over
    rebuilt = prepare(CORPUS, TRAINER, tmp_path / "cache")
    assert entries(tmp_path / "cache") == [rebuilt.folder.name]
    assert equal(rebuilt, prepare(CORPUS, TRAINER, tmp_path / "other"))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_build_that_breaks_off_is_cleared_away(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(encoding.HashedFile, "write", write)
    expected = DataError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        prepare(CORPUS, TRAINER, tmp_path)
    if isinstance(error, OSError):
        assert "the token cache cannot be written (No space left on device)" in str(caught.value)
        assert "TORCH_LINGUIST_CACHE" in str(caught.value)
    assert entries(tmp_path) == []


def test_a_cache_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="the token cache cannot be written") as caught:
        prepare(CORPUS, TRAINER, tmp_path / "file" / "cache")
    assert "\n" not in str(caught.value)


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_LINGUIST_CACHE", "~/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert default_cache_dir() == Path.home() / "own"
    monkeypatch.delenv("TORCH_LINGUIST_CACHE")
    assert default_cache_dir() == Path("/shared/torch_linguist")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache/torch_linguist"
