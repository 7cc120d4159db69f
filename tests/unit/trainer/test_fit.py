"""The long training: validation, early stopping, checkpoints, curves, and what a broken loss does."""

import csv
import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from torch_linguist.checkpoint import load_model, read_checkpoint
from torch_linguist.errors import TrainingError
from torch_linguist.evaluation import mean_nll
from torch_linguist.model import LanguageModel
from torch_linguist.optim import Linear
from torch_linguist.trainer import Callback, Fit, TrainingContext, train
from torch_linguist.trainer.callback import Fact

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def model_for(
    context: TrainingContext, build_model: ModelBuilder, family: str = "lstm", **options: Any
) -> LanguageModel:
    return build_model(family, context.corpus.tokenizer.vocab_size, **options)


class Watcher(Callback):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.fractions: list[float] = []
        self.facts: list[set[str]] = []
        self.logs: list[int] = []

    def progressed(self, stage: str, fraction: float, facts: Mapping[str, Fact]) -> None:
        self.fractions.append(fraction)
        self.facts.append(set(facts))

    def logged(self, scalars: Mapping[str, float], step: int) -> None:
        self.logs.append(step)


@pytest.mark.parametrize("family", ["rnn", "lstm", "gru", "transformer"])
def test_a_training_learns_and_keeps_its_books(
    family: str, make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(max_steps=60, eval_every=20, log_every=10, schedule=Linear(warmup=0.1))
    model = model_for(context, build_model, family)
    watcher = Watcher()
    before = mean_nll(model, context.corpus.valid)
    result = Fit(model, context, 0.03, 0.01, tmp_path, [watcher]).run()
    assert result.best_loss < before - 0.5
    assert (result.status, result.steps, result.tokens) == ("finished", 60, 60 * 32)
    assert result.epochs == pytest.approx(60 * 32 / len(context.corpus.train), rel=0.01)
    rows = rows_of(tmp_path)
    header = "step,epoch,tokens,seconds,lr,train_loss,train_perplexity,gradient_norm,tokens_per_second"
    assert list(rows[0]) == [*header.split(","), "valid_loss", "valid_perplexity"]
    assert [int(row["step"]) for row in rows if row["train_loss"]] == [10, 20, 30, 40, 50, 60]
    assert [int(row["step"]) for row in rows if row["valid_loss"]] == [20, 40, 60]
    for row in rows:
        assert int(row["tokens"]) == 32 * int(row["step"])
        for split in ("train", "valid"):
            if row[f"{split}_loss"]:
                assert float(row[f"{split}_perplexity"]) == pytest.approx(math.exp(float(row[f"{split}_loss"])))
        # The rate of the update just done, whose progress was that of the updates before it.
        assert float(row["lr"]) == pytest.approx(0.03 * context.schedule.factor((int(row["step"]) - 1) / 60))
    best = min(float(row["valid_loss"]) for row in rows if row["valid_loss"])
    assert result.best_loss == best
    kept = load_model(tmp_path / "checkpoints" / "best.pt")
    assert mean_nll(kept, context.corpus.valid) == pytest.approx(best, abs=1e-6)
    assert read_checkpoint(tmp_path / "checkpoints" / "best.pt")["progress"]["step"] == result.best_step
    assert watcher.fractions == sorted(watcher.fractions)
    assert watcher.fractions[-1] == 1
    assert {"train_loss", "tokens_per_second", "seconds_left"} <= watcher.facts[0]
    assert set(watcher.logs) == {10, 20, 30, 40, 50, 60}


def test_the_logged_loss_is_the_mean_since_the_last_line(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    for every in (1, 7):
        (tmp_path / str(every)).mkdir()
        context = make_context(max_steps=21, eval_every=100, log_every=every)
        Fit(model_for(context, build_model), context, 0.01, 0.0, tmp_path / str(every)).run()
    single = [float(row["train_loss"]) for row in rows_of(tmp_path / "1") if row["train_loss"]]
    grouped = [float(row["train_loss"]) for row in rows_of(tmp_path / "7") if row["train_loss"]]
    assert grouped == pytest.approx([sum(single[at : at + 7]) / 7 for at in (0, 7, 14)], rel=1e-6)


def test_an_update_has_one_row_even_where_the_last_validation_follows(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    """The last update is one that is logged, but not one that is validated on the way."""
    for limit in (30, 40):
        context = make_context(max_steps=limit, eval_every=25, log_every=10)
        resume = None if limit == 30 else tmp_path / "checkpoints" / "last.pt"
        Fit(model_for(context, build_model), context, 0.01, 0.0, tmp_path, resume=resume).run()
        rows = rows_of(tmp_path)
        steps = [int(row["step"]) for row in rows]
        assert steps == [10, 20, 25, 30, 40][: 4 if limit == 30 else 5]
        validated = [step for step, row in zip(steps, rows, strict=True) if row["valid_loss"]]
        assert validated == ([25, 30] if limit == 30 else [25, 30, 40])
        assert all(row["train_loss"] for row in rows)


def test_a_training_stopped_after_a_row_and_resumed_to_end_there_has_one_row_for_it(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(max_steps=100, eval_every=25, log_every=10)
    calls = iter(range(1, 100))
    stopped = Fit(model_for(context, build_model), context, 0.01, 0.0, tmp_path, stop=lambda: next(calls) == 30).run()
    assert (stopped.status, stopped.steps) == ("interrupted", 30)
    before = rows_of(tmp_path)
    assert (before[-1]["step"], before[-1]["valid_loss"]) == ("30", "")
    context = make_context(max_steps=30, eval_every=25, log_every=10)
    Fit(
        model_for(context, build_model), context, 0.01, 0.0, tmp_path, resume=tmp_path / "checkpoints" / "last.pt"
    ).run()
    after = rows_of(tmp_path)
    assert after[:-1] == before[:-1]
    assert after[-1]["valid_loss"]
    assert [after[-1][name] for name in ("step", "train_loss")] == [before[-1][name] for name in ("step", "train_loss")]


@pytest.mark.parametrize(
    ("limits", "steps"), [({"max_tokens": 320}, 10), ({"max_epochs": 0.05}, None), ({"max_steps": 3}, 3)]
)
def test_limits_end_the_training(
    limits: dict[str, Any], steps: int | None, make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(**limits)
    result = Fit(model_for(context, build_model), context, 0.01, 0.0, tmp_path).run()
    if steps is None:
        per_epoch = context.batches(model_for(context, build_model)).batches_per_epoch
        steps = math.ceil(0.05 * per_epoch)
    assert result.steps == steps
    assert rows_of(tmp_path)[-1]["valid_loss"]


def test_without_eval_every_it_validates_ten_times(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(max_steps=40, eval_tokens=50)
    Fit(model_for(context, build_model), context, 0.01, 0.0, tmp_path).run()
    assert [int(row["step"]) for row in rows_of(tmp_path) if row["valid_loss"]] == list(range(4, 41, 4))


def test_patience_ends_a_training_that_gets_no_better(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(max_steps=100, eval_every=2, patience=3)
    # So small a rate moves no weight: every validation equals the first.
    result = Fit(model_for(context, build_model), context, 1e-30, 0.0, tmp_path).run()
    assert (result.status, result.steps, result.best_step) == ("finished", 8, 2)
    assert "3 validations" in result.reason


def test_a_request_to_stop_saves_and_says_interrupted(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(max_steps=100, eval_every=4)
    calls = iter(range(100))
    result = Fit(model_for(context, build_model), context, 0.01, 0.0, tmp_path, stop=lambda: next(calls) == 5).run()
    assert (result.status, result.steps, result.best_step) == ("interrupted", 6, 4)
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["progress"]["step"] == 6


def test_a_stop_before_any_validation_still_leaves_a_best_model(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(max_steps=100, eval_every=50)
    result = Fit(model_for(context, build_model), context, 0.01, 0.0, tmp_path, stop=lambda: True).run()
    assert (result.steps, result.best_step) == (1, 1)
    load_model(tmp_path / "checkpoints" / "best.pt")


@pytest.mark.parametrize(("log_every", "eval_every"), [(1, 4), (10, 4), (100, 100)])
def test_a_loss_that_is_not_finite_names_its_step(
    log_every: int, eval_every: int, make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(max_steps=100, log_every=log_every, eval_every=eval_every)
    model = model_for(context, build_model)
    fit, nll = Fit(model, context, 0.01, 0.0, tmp_path), model.nll

    def poisoned(tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        values, new_state = nll(tokens, targets, state)
        return values * math.nan if model.training and fit.state.step == 6 else values, new_state

    model.nll = poisoned  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"step 7: the training loss is nan.*optim\.lr=0\.01") as caught:
        fit.run()
    assert "\n" not in str(caught.value)
    if eval_every == 4:
        assert read_checkpoint(tmp_path / "checkpoints" / "best.pt")["progress"]["step"] == 4
        assert mean_nll(load_model(tmp_path / "checkpoints" / "best.pt"), context.corpus.valid) > 0
        assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["progress"]["step"] == 4
    else:
        assert not (tmp_path / "checkpoints").exists()


def test_weights_that_are_spoiled_are_never_saved(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(max_steps=100, eval_every=4)
    fit = Fit(model_for(context, build_model), context, 0.01, 0.0, tmp_path)
    update = fit.loop.update

    def spoiled() -> Tensor:
        loss = update()
        if fit.state.step == 8:  # The loss is still fine: the update after it was not.
            with torch.no_grad():
                next(fit.model.parameters()).fill_(math.nan)
        return loss

    fit.loop.update = spoiled  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="step 8: the validation loss is nan"):
        fit.run()
    for name in ("best", "last"):
        weights = read_checkpoint(tmp_path / "checkpoints" / f"{name}.pt")["weights"]
        assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_rate_past_all_reason_ends_in_one_line(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(max_steps=60, gradient_clip=None, eval_every=1000)
    context = dataclasses.replace(context, make_optimizer=torch.optim.SGD)
    with pytest.raises(TrainingError, match=r"step \d+: the training loss is (nan|inf)"):
        Fit(model_for(context, build_model, "rnn", nonlinearity="relu"), context, 1e12, 0.0, tmp_path).run()


def test_validation_takes_part_of_the_split(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(max_steps=2, eval_every=2, eval_tokens=33)
    model = model_for(context, build_model)
    result = Fit(model, context, 0.01, 0.0, tmp_path).run()
    assert result.best_loss == pytest.approx(mean_nll(model, context.corpus.valid, 33), abs=1e-9)
    assert result.best_loss != pytest.approx(mean_nll(model, context.corpus.valid), abs=1e-6)


def test_train_leaves_the_weights_of_the_best_validation(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    corpus = make_context().corpus
    model = build_model("lstm", corpus.tokenizer.vocab_size)
    # A rate that jumps up in the end, so that the last weights are not the best ones.

    class Jump(Linear):
        def factor(self, progress: float) -> float:
            return 1.0 if progress < 0.8 else 200.0

    folder = tmp_path / "new" / "run"
    result = train(
        model, corpus, lr=0.02, schedule=Jump(), folder=folder, max_steps=50, eval_every=10, batch_size=4,
        sequence_length=8, device="cpu", precision="fp32",
    )  # fmt: skip
    assert result.best_step == 40
    assert mean_nll(model, corpus.valid) == pytest.approx(result.best_loss, abs=1e-6)
    assert [row["step"] for row in rows_of(folder) if row["valid_loss"]] == ["10", "20", "30", "40", "50"]
