"""Run folders that no two runs share, and files that are whole."""

import json
import math
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.runs.csv_table import Table
from torch_linguist.runs.files import write_json, write_text
from torch_linguist.runs.folders import create_run_folder


def make_many(output_dir: Path, count: int) -> list[str]:
    return [str(create_run_folder(output_dir, None, "lstm-sotu")) for _ in range(count)]


def test_threads_and_processes_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        folders = [folder for made in threads.map(lambda _: make_many(tmp_path / "o", 5), range(4)) for folder in made]
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        for made in processes.starmap(make_many, [(tmp_path / "o", 5)] * 2):
            folders += made
    assert len(set(folders)) == len(folders) == 30
    assert sorted(folders) == sorted(str(path) for path in (tmp_path / "o").iterdir())


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    names = [create_run_folder(tmp_path, "mine", "x").name for _ in range(3)]
    assert names == ["mine", "mine-2", "mine-3"]


def test_a_run_without_a_name_has_the_date(tmp_path: Path) -> None:
    stem, date, time = create_run_folder(tmp_path, None, "gru").name.split("-")
    assert (stem, len(date), len(time)) == ("gru", 8, 6)


@pytest.mark.parametrize("name", ["", " ", "a/b", "../up", ".", "..", "/root", "a/"])
def test_a_name_that_is_no_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name="):
        create_run_folder(tmp_path, name, "x")
    assert not list(tmp_path.iterdir())


def test_an_output_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(LinguistError, match=r"output_dir=.*cannot be written"):
            create_run_folder(tmp_path / place, None, "x")


def test_json_knows_no_infinity(tmp_path: Path) -> None:
    write_json(tmp_path / "s.json", {"a": math.inf, "b": [math.nan, 1.5], "c": {"d": (-math.inf, "é")}, "e": None})
    text = (tmp_path / "s.json").read_text(encoding="utf-8")
    content = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert content == {"a": None, "b": [None, 1.5], "c": {"d": [None, "é"]}, "e": None}


def test_a_text_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "t", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "t", "new \ud800")
    assert (tmp_path / "t").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_others_may_read_what_a_run_writes(tmp_path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    write_text(tmp_path / "t", "text")
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_table_is_whole_after_each_row(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", ["step", "loss", "note"])
    table.add({"step": 1, "loss": 0.1 + 0.2})
    assert (tmp_path / "t.csv").read_text().splitlines() == ["step,loss,note", "1,0.30000000000000004,"]
    with pytest.raises(KeyError, match="los"):
        table.add({"step": 2, "los": 1.0})
    Table(tmp_path / "t.csv", ["step", "loss", "note"], append=True).add({"step": 2, "note": "a, b"})
    assert (tmp_path / "t.csv").read_text().splitlines()[2:] == ['2,,"a, b"']
    Table(tmp_path / "t.csv", ["step"])
    assert (tmp_path / "t.csv").read_text().splitlines() == ["step"]
