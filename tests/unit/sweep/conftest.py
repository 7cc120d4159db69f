"""A small program in the place of `tl-train`: it leaves what a run leaves, in milliseconds."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torch_linguist.cli import grid, grid_run

STAND_IN = """
import csv, json, math, os, signal, sys, time
from pathlib import Path
values = dict(line.split("=", 1) for line in sys.argv[1:] if "=" in line)
name = values["name"].strip('"')
folder = Path(values["output_dir"].strip(chr(34))) / name
orders = json.loads(os.environ.get("STAND_IN", "{}"))
with open(folder.parent / "trace", "a") as trace:
    trace.write(name + ("+" if "resume" in values else "") + chr(10))
order = orders.get(name, "")
if order == "kill": os.kill(os.getpid(), signal.SIGKILL)
if order == "fail": sys.exit("error: nothing good")
folder.mkdir(exist_ok=True)
(folder / "config.yaml").touch()
lr, seed = float(values.get("optim.lr", 0.003)), int(values.get("seed", 1))
loss = 3 + abs(math.log10(lr) + 2.5) + 0.01 * seed ** 2
if values.get("model") == "gru": loss += 0.5
with open(folder / "metrics.csv", "w") as file:
    file.write("step,train_loss,valid_loss" + chr(10))
    for step in range(1, 6):
        file.write(f"{step},{loss + 1 / step},{loss + 1 / step - 0.2}" + chr(10))
        file.flush()
if order.startswith("wait"):
    (folder / "ready").touch()
    while not (folder.parent / order).exists(): time.sleep(0.02)
if order == "forever":
    (folder / "ready").touch()
    time.sleep(60)
summary = {"status": "finished", "seed": seed, "parameters": 10, "lr": lr, "weight_decay": 0.0,
           "train": {"tokens": 5}, "valid": {"loss": loss, "perplexity": math.exp(loss)},
           "test": {"perplexity": math.exp(loss)}}
(folder / "summary.json").write_text(json.dumps(summary))
"""

Grid = Callable[..., int]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which `tl-grid` makes its runs by the stand-in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STAND_IN", raising=False)
    monkeypatch.setattr(grid_run, "PROGRAM", (sys.executable, "-c", STAND_IN))
    return tmp_path


@pytest.fixture
def run_grid_command(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Grid:
    """`run_grid_command(*arguments, orders={...}, page=False)`: the command in this process; its exit code.

    The figures of the page take longer than all runs, so they are drawn only on demand.
    """

    def run(*arguments: str, orders: dict[str, Any] | None = None, page: bool = False) -> int:
        monkeypatch.setenv("STAND_IN", json.dumps(orders or {}))
        with monkeypatch.context() as patch:
            if not page:
                patch.setattr("torch_linguist.sweep.page.write_sweep_page", lambda folder, *_: folder)
            return grid.main(list(arguments))

    return run


@pytest.fixture
def stand_in() -> str:
    """The program, for tests that start the command as a process."""
    return STAND_IN
