"""The lock of a run folder."""

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from torch_linguist.errors import LinguistError
from torch_linguist.runs.lock import is_locked, run_lock


def hold(folder: Path, held: Any, leave: Any) -> None:
    with run_lock(folder):
        held.set()
        leave.wait(60)


def test_a_run_belongs_to_one_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, leave = context.Event(), context.Event()
    child = context.Process(target=hold, args=(tmp_path, held, leave))
    child.start()
    assert held.wait(60)
    with pytest.raises(LinguistError, match=rf"is in use by process {child.pid} on \S+;"), run_lock(tmp_path):
        pass
    assert child.pid is not None
    child.kill()  # It cannot give the lock back; the kernel does.
    child.join()
    assert (tmp_path / ".owner.json").is_file()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / ".owner.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / ".owner.json").exists()


def test_is_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path), "a folder that no process ever locked"
    with run_lock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    with run_lock(tmp_path):
        pass
