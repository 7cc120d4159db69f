import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torch_linguist.errors import DataError
from torch_linguist.model.ngram import NGramModel
from torch_linguist.model.ngram.columns import DiskStore
from torch_linguist.model.ngram.workspace import PREFIX, Progress, workspace

OPTIONS: dict[str, Any] = {"order": 4, "memory_limit_mib": 16, "min_count": [1, 1, 2], "entropy_threshold": 1e-8}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def stream() -> np.typing.NDArray[np.uint16]:
    return (np.random.default_rng(3).zipf(1.3, 150_000) % 500).astype(np.uint16)


def test_a_process_continues_after_the_last_step_of_a_stopped_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = stream()
    expected = NGramModel(500, 4, min_count=[1, 1, 2], entropy_threshold=1e-8)
    expected.fit_counts(ids, eos_id=0)
    finish, done = DiskStore.finish, []

    def stopping(store: DiskStore, step: str, facts: dict[str, Any] | None = None) -> None:
        finish(store, step, facts)
        done.append(step)
        if allowed == len(done):
            raise KeyboardInterrupt

    monkeypatch.setattr(DiskStore, "finish", stopping)
    allowed = 1
    while allowed:
        model = NGramModel(500, **OPTIONS)
        try:
            model.fit_counts(ids, eos_id=0)
            break
        except KeyboardInterrupt:
            allowed += 1
            assert len(list(folder.glob(f"{PREFIX}*"))) == 1
    assert len(done) == len(set(done)) == allowed - 1 > 8
    for (name, left), (_, right) in zip(expected.state_dict().items(), model.state_dict().items(), strict=True):
        assert torch.equal(left, right), name
    assert not list(folder.iterdir())


def test_two_processes_with_one_task_have_folders_of_their_own(folder: Path) -> None:
    with workspace("same", 16, 1000) as first, workspace("same", 16, 1000) as second:
        assert first.folder != second.folder
        assert first.folder.stat().st_mode & 0o77 == 0
    assert not list(folder.iterdir())


def test_a_full_disk_is_one_line_and_leaves_nothing(folder: Path) -> None:
    message = r"No space left.*up to 3\.0 GiB: free some space, or set TMPDIR"
    with pytest.raises(DataError, match=message), workspace("full", 16, 3 << 30):
        raise OSError(28, "No space left on device")
    assert not list(folder.iterdir())


def test_the_size_is_announced_and_abandoned_files_are_deleted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, young = folder / f"{PREFIX}old", folder / f"{PREFIX}young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (time.time() - 30 * 24 * 3600,) * 2)
    with caplog.at_level(logging.INFO, "torch_linguist.model.ngram"), workspace("new", 16, 5 << 30):
        assert "up to 5.0 GiB of temporary files in" in caplog.text
    assert [path.name for path in folder.iterdir()] == [young.name]
    with caplog.at_level(logging.WARNING, "torch_linguist.model.ngram"), workspace("new", 16, 1 << 60):
        assert caplog.records[-1].levelname == "WARNING"


def test_progress_is_reported_at_intervals(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("merging", 4)
    with caplog.at_level(logging.INFO, "torch_linguist.model.ngram"):
        for seconds in (5.0, 12.0, 13.0, 30.0):
            now[0] = seconds
            progress.advance(1)
    assert [record.getMessage() for record in caplog.records] == [
        "merging: 50%, about 12 s left",
        "merging: 100%, about 0 s left",
    ]
