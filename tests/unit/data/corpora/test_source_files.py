"""Ready splits are recognized by the names that corpora use; names that almost are splits stop the run."""

import json
import os
from pathlib import Path

import pytest

from torch_linguist.data import TextCorpus
from torch_linguist.data.corpora.source_files import find_source_files, split_of
from torch_linguist.errors import DataError


def fill(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{name} {number}\n" for number in range(4))
        path.write_text(json.dumps({"text": text}) + "\n" if ".json" in name else text)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("ptb.train.txt", "train"),
        ("PTB.VALID.TXT", "valid"),
        ("train-00000-of-00002.parquet", "train"),
        ("data/validation.jsonl", "valid"),
        ("test/pos/1.txt", "test"),
        ("dev_1.csv.gz", "valid"),
        ("testing.txt", "test"),
        ("trained.txt", None),
        ("latest.txt", None),
        ("train_test.txt", None),
    ],
)
def test_split_of_a_name(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    "names",
    [
        ["ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"],
        ["TRAIN.txt", "Dev.txt", "Test.txt"],
        ["train-00000-of-00001.jsonl", "val-00000-of-00001.jsonl", "test-00000-of-00001.jsonl"],
        ["train/a/1.txt", "validation/a/1.txt", "test/b/1.txt"],
        ["train.json", "valid.json", "test.json"],
    ],
)
@pytest.mark.parametrize("pattern", ["", "**/*"])
def test_ready_splits_stay_apart(names: list[str], pattern: str, tmp_path: Path) -> None:
    fill(tmp_path, [*names, "README.txt", ".hidden/train.txt", "._train.txt"])
    corpus = TextCorpus(str(tmp_path / pattern))
    for split, name in zip(("train", "valid", "test"), names, strict=True):
        texts = [document.text for document in corpus.documents(split)]
        assert texts
        assert all(line.startswith(name) for line in "".join(texts).splitlines())
        assert name in corpus.sources()[split]
    if not pattern:
        assert any("README.txt" in note for note in corpus.notes())


@pytest.mark.parametrize(("held_out", "missing"), [("test", "valid"), ("dev", "test")])
def test_a_missing_split_comes_from_train(held_out: str, missing: str, tmp_path: Path) -> None:
    fill(tmp_path, ["train.txt", f"{held_out}.txt"])
    corpus = TextCorpus(str(tmp_path))
    texts = {split: "".join(document.text for document in corpus.documents(split)) for split in corpus.splits()}
    assert texts[missing] == "train.txt 3\n"
    assert texts["train"] == "train.txt 0\ntrain.txt 1\ntrain.txt 2\n"
    assert all(line.startswith(held_out) for line in texts["valid" if missing == "test" else "test"].splitlines())
    assert any(f"no {missing} among the ready splits" in note for note in corpus.notes())


@pytest.mark.parametrize(
    "names", [["test.txt", "a.txt", "b.txt"], ["train.txt", "other.txt"], ["valid.txt", "test.txt"]]
)
def test_names_that_are_not_enough_stop(names: list[str], tmp_path: Path) -> None:
    fill(tmp_path, names)
    with pytest.raises(DataError, match=r"looks like the ready split .*data.ready_splits=false"):
        find_source_files(tmp_path)
    assert len(find_source_files(tmp_path, ready_splits=False).files) == len(names)


def test_one_format_is_read_and_the_rest_is_named(tmp_path: Path) -> None:
    fill(tmp_path, ["a.txt", "b.txt", "c.txt", "notes.jsonl"])
    (tmp_path / "empty.txt").touch()
    source = find_source_files(tmp_path)
    assert [file.name for file in source.files] == ["a.txt", "b.txt", "c.txt"]
    assert "1 file is left out (empty): empty.txt" in source.notes
    assert "1 file is left out (another format): notes.jsonl" in source.notes


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_a_folder_is_left_out_and_named(tmp_path: Path) -> None:
    fill(tmp_path, ["a.txt"])
    os.mkfifo(tmp_path / "pipe.txt")
    source = find_source_files(tmp_path)
    assert [file.name for file in source.files] == ["a.txt"]
    assert source.notes == ["1 file is left out (no regular file): pipe.txt"]
