"""A run is repeatable from its folder alone, also one that a clock ended."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import write_tale

from torch_linguist.checkpoint import read_checkpoint
from torch_linguist.cli import train
from torch_linguist.errors import TrainingError
from torch_linguist.trainer.callbacks.recorded_progress import RecordedProgress, read_recorded_progress

SMALL = ["model=rnn", "model.embedding_dim=8", "model.hidden_size=8", "model.output=full", "model.dropout=0.2"]
QUICK = ["experiment=debug", "lr_find.steps=12", "grid.weight_decay=[0.1]", "stages=[lr_find,grid,fit]"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    return write_tale(folder)


def weights(folder: Path) -> dict[str, Any]:
    return {name: read_checkpoint(folder / "checkpoints" / f"{name}.pt") for name in ("best", "last")}


def test_a_run_that_a_clock_ended_is_repeated_by_the_command_it_holds(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    limits = ["trainer.max_steps=null", "trainer.max_minutes=0.01", "trainer.eval_every=null", "schedule=onecycle"]
    assert train.main(["data=text", "data.path=tale.txt", *SMALL, *QUICK, *limits, "name=first", "seed=5"]) == 0
    first = workplace / "outputs" / "first"
    summary = json.loads((first / "summary.json").read_text())
    command = shlex.split(summary["command"])
    assert command == ["tl-train", "--config-dir", "outputs/first"]
    assert train.main(command[1:]) == 0
    again = workplace / "outputs" / "first-2"
    one, other = weights(first), weights(again)
    for name in ("best", "last"):
        assert one[name]["progress"]["step"] == other[name]["progress"]["step"]
        assert one[name]["weights"].keys() == other[name]["weights"].keys()
        assert all(torch.equal(one[name]["weights"][key], other[name]["weights"][key]) for key in one[name]["weights"])
    repeated = json.loads((again / "summary.json").read_text())
    assert [repeated[key] for key in ("lr", "weight_decay", "valid", "test", "seed", "precision")] == [
        summary[key] for key in ("lr", "weight_decay", "valid", "test", "seed", "precision")
    ]
    assert (again / "pace.csv").read_bytes() == (first / "pace.csv").read_bytes()
    capsys.readouterr()
    # With a key of one's own it is a base to start from, and goes by its own limits.
    assert (
        train.main(["--config-dir", "outputs/first", "trainer.max_minutes=null", "trainer.max_steps=3", "--cfg"]) == 0
    )
    printed = capsys.readouterr().out
    assert "max_steps: 3" in printed
    assert "seed: 5" in printed
    assert train.main(["--config-dir", "outputs/first", "model=lstm"]) == 2
    assert "model=lstm: the run in outputs/first keeps model=rnn" in capsys.readouterr().err
    assert train.main(["--config-dir", "outputs/first", "--config-dir", "outputs/first-2"]) == 2


def test_a_pace_is_read_or_named(tmp_path: Path) -> None:
    assert read_recorded_progress(tmp_path) is None
    (tmp_path / "pace.csv").write_text("step,progress\n1,0.0\n2,0.1\n")
    (tmp_path / "metrics.csv").write_text("step,valid_loss\n1,\n2,3.5\n")
    pace = read_recorded_progress(tmp_path)
    assert pace == RecordedProgress([0.0, 0.1], frozenset({2}))
    assert [pace.at(step) for step in range(3)] == [0.0, 0.1, 1.0]
    for damaged in (
        "step,progress\n2,0.1\n",
        "step,progress\n1,nan\n",
        "step,progress\n1,2\n",
        "x\n1\n",
        "step,progress\n1\n",
    ):
        (tmp_path / "pace.csv").write_text(damaged)
        with pytest.raises(TrainingError, match=r"pace\.csv: is damaged"):
            read_recorded_progress(tmp_path)
