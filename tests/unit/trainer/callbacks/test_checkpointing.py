"""Checkpoints of a training: damage, full disks, tied weights."""

import csv
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_linguist.checkpoint import load_model, read_checkpoint
from torch_linguist.errors import TrainingError
from torch_linguist.model import LanguageModel
from torch_linguist.trainer import Fit, TrainingContext
from torch_linguist.trainer.callbacks.checkpointing import newest_state

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]
FitBuilder = Callable[..., Fit]


def flip(path: Path, share: float) -> None:
    """Turns one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_state_costs_the_updates_since_the_one_before(
    fit_of: FitBuilder,
    damage: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fit_of(tmp_path / "straight").run()
    calls = iter(range(100))
    fit_of(tmp_path / "run", stop=lambda: next(calls) == 9).run()
    checkpoints = tmp_path / "run" / "checkpoints"
    last = checkpoints / "last.pt"
    if damage == "flip":
        flip(last, 0.5)
    elif damage == "cut":
        last.write_bytes(last.read_bytes()[:-500])
    else:
        last.unlink()
    found = newest_state(checkpoints)
    assert found is not None
    assert (found[0].name, found[1]["progress"]["step"]) == ("previous.pt", 8)
    assert ("last.pt" in caplog.text) == (damage != "gone")
    fit_of(tmp_path / "run", resume=found[0]).run()
    one, other = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.pt")["weights"] for name in ("straight", "run")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    # The damaged one has not pushed the whole one out.
    for path in checkpoints.glob("*.pt"):
        read_checkpoint(path)


def test_every_flipped_bit_is_noticed(fit_of: FitBuilder, tmp_path: Path) -> None:
    fit_of(tmp_path, max_steps=2).run()
    path = tmp_path / "checkpoints" / "last.pt"
    with zipfile.ZipFile(path) as archive:
        assert archive.comment.startswith(b"sha256:")
    assert set(torch.load(path, weights_only=True)) == {"format", "model", "weights", "progress"}
    whole = path.read_bytes()
    for share in (0.0001, 0.1, 0.37, 0.62, 0.9, 0.99):
        flip(path, share)
        with pytest.raises(TrainingError, match=r"last\.pt: not a readable checkpoint"):
            read_checkpoint(path)
        path.write_bytes(whole)
    read_checkpoint(path)


def test_what_is_tied_is_stored_once(build_model: ModelBuilder, make_context: ContextBuilder, tmp_path: Path) -> None:
    sizes: dict[bool, list[int]] = {}
    for tied in (False, True):
        context = make_context(max_steps=2)
        folder = tmp_path / str(tied)
        folder.mkdir()
        model = build_model("lstm", context.corpus.tokenizer.vocab_size, tied=tied, embedding_dim=16)
        Fit(model, context, 0.01, 0.0, folder).run()
        sizes[tied] = [(folder / "checkpoints" / name).stat().st_size for name in ("best.pt", "last.pt")]
        again = load_model(folder / "checkpoints" / "best.pt")
        assert again.num_parameters() == model.num_parameters()
    matrix = 4 * 16 * make_context().corpus.tokenizer.vocab_size
    for without, shared in zip(sizes[False], sizes[True], strict=True):
        assert without - shared > 0.9 * matrix


def test_a_full_disk_ends_in_one_line_and_the_state_before_it_goes_on(
    fit_of: FitBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, count = torch.save, iter(range(100))

    def full(content: Any, file: Any) -> None:
        if next(count) >= 4:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        TrainingError, match=r"cannot be written \(No space left on device\).*tl-train resume="
    ) as caught:
        fit_of(tmp_path).run()
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    found = newest_state(tmp_path / "checkpoints")
    assert found is not None
    assert {path.suffix for path in (tmp_path / "checkpoints").iterdir()} == {".pt"}
    assert fit_of(tmp_path, resume=found[0]).run().steps == 12


def test_a_clock_that_jumps_changes_nothing(
    fit_of: FitBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = iter(range(10_000))
    monkeypatch.setattr(time, "time", lambda: 1e9 * (-1) ** next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e18) * (-1) ** next(jumps))
    fit = fit_of(tmp_path, every_steps=None, max_steps=12, max_minutes=5)
    result = fit.run()
    assert (result.steps, result.status) == (12, "finished")
    assert 0 < result.seconds < 60
    with (tmp_path / "metrics.csv").open(newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    assert seconds == sorted(seconds)
