"""Runs that are interrupted, watched by nobody, or taken up twice, as processes from a person's folder."""

import csv
import json
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import call, write_tale
from test_commands import GIVEN, SMALL, environment, run

from torch_linguist.checkpoint import read_checkpoint

pytestmark = pytest.mark.xdist_group("commands")

LINE = [
    "experiment=debug", "data=text", "data.path=tale.txt", *SMALL, "model.dropout=0.2", "trainer.max_steps=60",
    "trainer.eval_every=20", "trainer.eval_tokens=300", "checkpoint.every_steps=7", "stages=[check,overfit,grid,fit]",
    "optim.lr=0.01", "score.baseline_order=0", "sample.tokens=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    return write_tale(folder)


def begin(folder: Path, *arguments: str, **options: str) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "torch_linguist.cli.train", *LINE, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=folder, env=environment() | options, stdout=pipe, stderr=pipe, text=True)


def signal_at(process: "subprocess.Popen[str]", text: str, number: int) -> tuple[int, str]:
    """Sends a signal when the output says this; the exit code and what went to standard error."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def summary(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return content


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {key: value for key, value in row.items() if key not in ("seconds", "tokens_per_second")}
            for row in csv.DictReader(file)
        ]


def test_interrupted_twice_and_without_its_cache_a_run_ends_as_if_nothing_had_been(folder: Path) -> None:
    code, _, errors = call("train", *LINE, "name=straight", folder=folder)
    assert code == 0, errors
    cache = folder / "cache"
    own = {"TORCH_LINGUIST_CACHE": str(cache)}

    code, errors = signal_at(begin(folder, "name=cut", **own), "[overfit]", signal.SIGINT)
    cut = folder / "outputs" / "cut"
    assert (code, summary(cut)["status"], summary(cut)["signal"]) == (130, "interrupted", signal.SIGINT), errors
    assert "Traceback" not in errors
    assert list(json.loads((cut / "progress.json").read_text())["stages"]) == ["check"]

    process = begin(folder, "name=cut", "resume=auto", **own)
    code, errors = signal_at(process, "  step ", signal.SIGTERM)
    assert (code, summary(cut)["status"]) == (143, "interrupted"), errors
    assert summary(cut)["train"]["steps"] < 60
    assert summary(cut)["valid"]["tokens"] > 0
    shutil.rmtree(cache)

    code, output, errors = run("train", "resume=true", "name=cut", folder=folder)
    assert code == 0, errors
    for stage in ("check", "overfit", "grid"):
        assert f"[{stage}] " not in output
    straight = folder / "outputs" / "straight"
    for name in ("best.pt", "last.pt"):
        one, other = (read_checkpoint(place / "checkpoints" / name)["weights"] for place in (straight, cut))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert rows(cut / "metrics.csv") == rows(straight / "metrics.csv")
    for key in ("valid", "test", "lr", "weight_decay", "status"):
        assert summary(cut)[key] == summary(straight)[key]
    assert list(summary(cut)["stages"]) == list(summary(straight)["stages"])


def test_a_run_outlives_its_reader(folder: Path) -> None:
    process = begin(folder, "name=watched", *GIVEN)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()  # As `| head -1` does.
    told = process.stderr.read()
    assert (process.wait(), summary(folder / "outputs" / "watched")["status"]) == (0, "finished"), told
    assert told == "nobody reads the output any more; the run continues, see its folder\n"


def test_a_run_that_is_going_on_is_not_taken_up_twice(folder: Path) -> None:
    process = begin(folder, "name=owned", "trainer.max_steps=100000", *GIVEN)
    assert process.stdout is not None
    while "  step " not in process.stdout.readline():
        assert process.poll() is None
    code, _, errors = call("train", "resume=outputs/owned", folder=folder)
    assert (code, errors.count("\n")) == (1, 1), errors
    assert str(process.pid) in errors
    assert platform.node() in errors
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, "Traceback" in errors) == (143, False), errors


@pytest.mark.parametrize("place", ["/proc/outputs", "tale.txt/outputs"])
def test_a_place_where_nothing_can_be_written_is_named(folder: Path, place: str) -> None:
    if place.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("needs a file system that takes no folders: /proc")
    code, _, errors = call("train", *LINE, f"output_dir={place}", folder=folder)
    assert (code, errors.count("\n")) == (1, 1), errors
    assert place in errors


def test_a_full_disk_ends_in_a_line_and_leaves_nothing_half_written(folder: Path) -> None:
    small = folder / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", small], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        code, _, errors = run("train", *LINE, *GIVEN, "output_dir=small", "name=full", folder=folder)
        assert (code, "Traceback" in errors) == (1, False), errors
        assert "No space left" in errors.splitlines()[-1]
        for path in (small / "full" / "checkpoints").glob("*.pt"):
            assert read_checkpoint(path)["weights"]
    finally:
        subprocess.run(["umount", small], check=True)
