"""What goes wrong in a training: losses that are not finite, damaged and full disks, clocks, two runs at once."""

import csv
import dataclasses
import json
import math
import multiprocessing
import os
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from torch_linguist.checkpoint import load_model, read_checkpoint
from torch_linguist.data import prepare
from torch_linguist.data.corpora.in_memory import InMemoryCorpus
from torch_linguist.errors import LinguistError, TrainingError
from torch_linguist.evaluation import mean_nll
from torch_linguist.model import LanguageModel
from torch_linguist.optim.weight_average import NOT_IMPROVED, WeightAverage
from torch_linguist.pipeline.progress import Progress
from torch_linguist.runs.csv_table import drop_rows_after
from torch_linguist.runs.lock import run_lock
from torch_linguist.trainer import Callback, CheckpointSettings, Fit, TrainingContext
from torch_linguist.trainer.callbacks.checkpointing import newest_state
from torch_linguist.trainer.callbacks.non_finite import SETTLED, LossWatch
from torch_linguist.trainer.interrupt import Interrupted, graceful_interrupt

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]


class Notes(Callback):
    """Keeps what it is told in words."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, message: str) -> None:
        self.notes.append(message)


def fit_of(
    folder: Path, make_context: ContextBuilder, build_model: ModelBuilder, every_steps: int | None = 2, **options: Any
) -> Fit:
    own = {key: options.pop(key) for key in ("callbacks", "resume", "stop") if key in options}
    context = make_context(**({"max_steps": 12, "eval_every": 4, "log_every": 3, "eval_tokens": 60} | options))
    context = dataclasses.replace(context, checkpoint=CheckpointSettings(every_steps=every_steps))
    folder.mkdir(exist_ok=True)
    return Fit(build_model("lstm", context.corpus.tokenizer.vocab_size, dropout=0.2), context, 0.02, 0.1, folder, **own)


def poison(fit: Fit, *steps: int) -> None:
    """Makes the loss of some updates infinite, and with it every gradient."""
    nll = fit.model.nll

    def poisoned(tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        values, new_state = nll(tokens, targets, state)
        return (values * math.inf if fit.model.training and fit.state.step + 1 in steps else values), new_state

    fit.model.nll = poisoned  # type: ignore[method-assign]


def flip(path: Path, share: float) -> None:
    """Turns one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 4
    path.write_bytes(content)


def finite(path: Path) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in read_checkpoint(path)["weights"].values())


def test_stop_names_the_step_and_keeps_the_batch(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    fit = fit_of(tmp_path, make_context, build_model, accumulate=2)
    poison(fit, 7)
    with pytest.raises(TrainingError, match=r"step 7: the training loss is inf .*faulty_batch_7\.pt") as caught:
        fit.run()
    assert "\n" not in str(caught.value)
    kept = torch.load(tmp_path / "faulty_batch_7.pt", weights_only=True)
    assert (kept["step"], kept["loss"], len(kept["batches"])) == (7, math.inf, 2)
    batches = fit.context.batches(fit.model)
    expected = [batches.next() for _ in range(14)][12]
    assert kept["batches"][0]["tokens"].equal(expected.tokens)
    assert finite(tmp_path / "checkpoints" / "last.pt")


def test_skip_leaves_the_update_out(make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path) -> None:
    notes = Notes()
    fit = fit_of(tmp_path, make_context, build_model, on_nan="skip", callbacks=[notes])
    poison(fit, 5, 6)
    before: dict[int, Tensor] = {}
    update = fit.loop.update

    def watched() -> Tensor:
        loss = update()
        before[fit.state.step] = next(fit.model.parameters()).detach().clone()
        return loss

    fit.loop.update = watched  # type: ignore[method-assign]
    result = fit.run()
    assert (result.status, result.steps, len(notes.notes)) == ("finished", 12, 2)
    assert "step 5: the training loss is inf" in notes.notes[0]
    assert torch.equal(before[4], before[5])
    assert torch.equal(before[5], before[6])
    assert not torch.equal(before[6], before[7])
    fit = fit_of(tmp_path / "endless", make_context, build_model, on_nan="skip", max_steps=200)
    poison(fit, *range(200))
    with pytest.raises(TrainingError, match=r"step 101: .* as in the 100 updates before it"):
        fit.run()


def test_rollback_takes_the_weights_of_the_last_checkpoint(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    notes = Notes()
    fit = fit_of(tmp_path, make_context, build_model, on_nan="rollback", callbacks=[notes])
    poison(fit, 1, 8)
    result = fit.run()
    assert (result.status, result.steps) == ("finished", 12)
    assert "back to the weights of step 0" in notes.notes[0]
    assert "step 8: " in notes.notes[1]
    assert "back to the weights of step 6" in notes.notes[1]
    assert finite(tmp_path / "checkpoints" / "last.pt")


def test_a_jump_is_told_once() -> None:
    watch = LossWatch()
    told = [watch.jump(loss) for loss in [5.0] * SETTLED + [9.0, 9.5, 5.0]]
    assert told[:SETTLED] == [None] * SETTLED
    assert told[SETTLED] == "the training loss jumped to 9, its running mean was 5"
    assert told[SETTLED + 1 :] == [None, None]


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_state_costs_the_updates_since_the_one_before(
    damage: str,
    make_context: ContextBuilder,
    build_model: ModelBuilder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fit_of(tmp_path / "straight", make_context, build_model).run()
    calls = iter(range(100))
    fit_of(tmp_path / "run", make_context, build_model, stop=lambda: next(calls) == 9).run()
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
    fit_of(tmp_path / "run", make_context, build_model, resume=found[0]).run()
    one, other = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.pt")["weights"] for name in ("straight", "run")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    # The damaged one has not pushed the whole one out.
    for path in checkpoints.glob("*.pt"):
        read_checkpoint(path)


def test_every_flipped_bit_is_noticed(make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path) -> None:
    fit_of(tmp_path, make_context, build_model, max_steps=2).run()
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
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        fit_of(tmp_path, make_context, build_model).run()
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    found = newest_state(tmp_path / "checkpoints")
    assert found is not None
    assert {path.suffix for path in (tmp_path / "checkpoints").iterdir()} == {".pt"}
    assert fit_of(tmp_path, make_context, build_model, resume=found[0]).run().steps == 12


def test_a_clock_that_jumps_changes_nothing(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = iter(range(10_000))
    monkeypatch.setattr(time, "time", lambda: 1e9 * (-1) ** next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e18) * (-1) ** next(jumps))
    fit = fit_of(tmp_path, make_context, build_model, every_steps=None, max_steps=12, max_minutes=5)
    result = fit.run()
    assert (result.steps, result.status) == (12, "finished")
    assert 0 < result.seconds < 60
    with (tmp_path / "metrics.csv").open(newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    assert seconds == sorted(seconds)


def test_a_row_that_was_cut_off_goes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,loss\r\n1,5.0\r\n2,4.0\r\n10,3.0\r\n2")
    drop_rows_after(path, 2)
    assert path.read_bytes() == b"step,loss\r\n1,5.0\r\n2,4.0\r\n"
    path.write_bytes(b"step,lo")
    drop_rows_after(path, 2)
    assert not path.exists()


def hold(folder: Path, held: Any, leave: Any) -> None:
    with run_lock(folder):
        held.set()
        leave.wait(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_belongs_to_one_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held, leave = context.Event(), context.Event()
    child = context.Process(target=hold, args=(tmp_path, held, leave))
    child.start()
    assert held.wait(60)
    with pytest.raises(LinguistError, match=rf"process {child.pid} on \S+ is at work in this run"), run_lock(tmp_path):
        pass
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)  # It cannot give the lock back; the kernel does.
    child.join()
    assert (tmp_path / ".owner.json").is_file()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / ".owner.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / ".owner.json").exists()


def test_the_first_signal_asks_and_the_second_ends(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with graceful_interrupt() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGINT)
        assert caught.value.signal_number == signal.SIGINT
    assert signal.getsignal(signal.SIGTERM) is before
    assert "once more stops at once" in capfd.readouterr().err
    with graceful_interrupt() as stop, pytest.raises(Interrupted), stop.ending_at_once():
        os.kill(os.getpid(), signal.SIGTERM)


def test_another_text_is_refused_with_what_differs(
    make_context: ContextBuilder, source_corpus: InMemoryCorpus, own_cache: Path, tmp_path: Path
) -> None:
    corpus = make_context().corpus
    Progress(tmp_path, Callback(), {}, resume=False).begin(corpus, [])
    Progress(tmp_path, Callback(), {}, resume=True).begin(corpus, ["trainer.max_steps: 5 → 9"])
    assert json.loads((tmp_path / "progress.json").read_text())["changes"] == ["trainer.max_steps: 5 → 9"]
    texts = {"train": ["a b c\n" * 50], "valid": ["a b\n"], "test": ["a\n"]}
    other = prepare(InMemoryCorpus(texts, name="other", tokenized=True), None, own_cache, tokenizer=corpus.tokenizer)
    with pytest.raises(LinguistError, match=r"has changed .*train tokens: \d+ then, 200 now"):
        Progress(tmp_path, Callback(), {}, resume=True).begin(other, [])


def test_averages_are_those_of_the_formulas(build_model: ModelBuilder) -> None:
    model = build_model("gru", tied=True, embedding_dim=16)
    ema, mean = WeightAverage(model, "ema", 0.9), WeightAverage(model, "asgd", 0.9)
    history: list[Tensor] = []
    for _ in range(NOT_IMPROVED + 1):
        mean.observe(3.0)
    mean.update()
    assert mean.model is None
    mean.observe(3.5)  # Worse than the best of those before the last five.
    expected = torch.zeros(0)
    for step in range(12):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight))
        ema.update()
        mean.update()
        now = torch.cat([weight.detach().double().flatten() for weight in model.parameters()])
        history.append(now)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = now if step == 0 else decay * expected + (1 - decay) * now
    for average, reference in ((ema, expected), (mean, torch.stack(history).mean(0))):
        assert average.model is not None
        found = torch.cat([weight.double().flatten() for weight in average.model.parameters()])
        torch.testing.assert_close(found, reference, rtol=1e-5, atol=1e-5)


def test_the_average_is_what_is_validated_and_kept(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    fit = fit_of(tmp_path, make_context, build_model, average="ema", average_decay=0.5)
    result = fit.run()
    best = load_model(tmp_path / "checkpoints" / "best.pt")
    assert mean_nll(best, fit.context.corpus.valid, 60) == pytest.approx(result.best_loss, abs=1e-6)
    kept = read_checkpoint(tmp_path / "checkpoints" / "last.pt")["weights"]
    assert not torch.equal(kept["embedding.weight"], best.state_dict()["embedding.weight"])
