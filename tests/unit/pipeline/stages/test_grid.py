"""The grid stage where it is stopped, goes on or halves; the finder's points and its outcome without a suggestion."""

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.model import LanguageModel
from torch_linguist.optim import optimizers
from torch_linguist.pipeline.grid_table import COLUMNS
from torch_linguist.pipeline.halving import Halving
from torch_linguist.pipeline.short_training import Trial, run_trial
from torch_linguist.pipeline.stages import Grid, LRFind
from torch_linguist.trainer import TrainingContext, loop

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]
GRID = Grid(steps=4, weight_decay=[0.0, 0.1], eval_tokens=40)
RATES = [0.01, 0.03]


def timeless(points: list[Trial]) -> list[Trial]:
    return [replace(point, seconds=0.0) for point in points]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def model(build_model: ModelBuilder, make_context: ContextBuilder) -> LanguageModel:
    return build_model("gru", make_context().corpus.tokenizer.vocab_size, dropout=0.2)


def test_wherever_it_was_cut_the_grid_goes_on_to_the_same_end(
    make_context: ContextBuilder, model: LanguageModel, tmp_path: Path
) -> None:
    context, table = make_context(), tmp_path / "grid.csv"
    whole = GRID.search(model, context, RATES, table)
    content = table.read_bytes()
    assert [row["parameters"] for row in rows_of(table)] == [str(model.num_parameters())] * 4
    ends = [index for index, byte in enumerate(content) if byte == ord("\n")]
    for cut, kept in ((0, 0), (ends[0] - 5, 0), (ends[1] + 1, 1), (ends[3] - 4, 2), (len(content), 4)):
        table.write_bytes(content[:cut])
        again = GRID.search(model, context, RATES, table, resume=True)
        assert again.resumed == kept
        assert timeless(again.points) == timeless(whole.points)
        assert [row["point"] for row in rows_of(table)] == ["0", "1", "2", "3"]
    assert GRID.search(model, context, RATES, table).resumed == 0


@pytest.mark.parametrize(
    ("old", "new"), [("0.01", "0.02"), ("\n1,", "\n0,"), ("finished", "good"), ("status", "state"), ("\n2,", "\n7,")]
)
def test_rows_of_another_grid_are_refused(
    old: str, new: str, make_context: ContextBuilder, model: LanguageModel, tmp_path: Path
) -> None:
    table = tmp_path / "grid.csv"
    GRID.search(model, make_context(), RATES, table)
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(LinguistError, match=r"grid.csv, line \d: does not belong to this grid; remove the file"):
        GRID.search(model, make_context(), RATES, table, resume=True)


def test_a_look_on_the_way_changes_nothing_in_the_training(make_context: ContextBuilder, model: LanguageModel) -> None:
    context, looks = make_context(), list[tuple[int, float]]()
    plain = run_trial(model, context, 0.01, 0.0, 12, 40)

    def satisfied(step: int, loss: float) -> bool:
        looks.append((step, loss))
        return True

    looked = run_trial(model, context, 0.01, 0.0, 12, 40, rungs=(3, 6), satisfied=satisfied)
    assert replace(looked, seconds=0.0, rungs=()) == replace(plain, seconds=0.0)
    assert list(looked.rungs) == looks
    assert [step for step, _ in looks] == [3, 6]
    stopped = run_trial(model, context, 0.01, 0.0, 12, 40, rungs=(3, 6), satisfied=lambda step, loss: step < 6)
    assert (stopped.status, stopped.steps, stopped.valid_loss) == ("stopped", 6, looks[1][1])


def test_halving_lets_the_best_share_go_on() -> None:
    halving = Halving(3, 90)
    assert list(halving.losses) == [10, 30]
    # By hand: the first of a rung always goes on, afterwards the best third, rounded up, of all so far.
    assert [halving.goes_on(10, loss) for loss in (5.0, 4.0, 6.0, 4.5, 3.0, 3.5, 9.0)] == [
        True, True, False, True, True, True, False,
    ]  # fmt: skip
    assert list(Halving(2, 12).losses) == []


def test_losing_points_are_rows_that_were_stopped_and_never_the_best(
    make_context: ContextBuilder, model: LanguageModel, tmp_path: Path
) -> None:
    context, table = make_context(), tmp_path / "grid.csv"
    settings = Grid(steps=20, weight_decay=[0.0, 0.1], learning_rates=3, eval_tokens=60, halving=2)
    whole = settings.search(model, context, [0.02, 1e-5, 1e-6], table)
    assert [point.status for point in whole.points] == ["finished", "finished", *["stopped"] * 4]
    assert whole.best is not None
    assert whole.best.lr == 0.02
    assert [point.steps for point in whole.points[2:]] == [10] * 4
    # Gone on with after three points, the rungs that were seen before decide as they would have.
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:4]))
    again = settings.search(model, context, [0.02, 1e-5, 1e-6], table, resume=True)
    assert timeless(again.points) == timeless(whole.points)
    with pytest.raises(ConfigError, match=r"grid.halving=1: must be null or at least 2"):
        Grid(halving=1)


def test_a_point_that_diverges_says_where(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(gradient_clip=None, make_optimizer=torch.optim.SGD)
    model = build_model("rnn", context.corpus.tokenizer.vocab_size, nonlinearity="relu")
    settings = Grid(steps=20, weight_decay=[0.0], eval_tokens=40)
    settings.search(model, context, [1e15], tmp_path / "grid.csv")
    (row,) = rows_of(tmp_path / "grid.csv")
    assert tuple(row) == COLUMNS
    assert row["status"] == "diverged"
    assert row["error"] in (
        f"the training loss is {value} at update {row['steps']}" for value in ("nan", "inf")
    )  # fmt: skip


def test_a_point_of_the_test_is_an_update_of_all_its_batches(
    make_context: ContextBuilder, model: LanguageModel
) -> None:
    # The same tokens an update, divided otherwise: the same curve, though four times as many batches were read.
    settings = LRFind(steps=12)
    whole = settings.range_test(model_without_dropout(model), make_context(batch_size=4, batches="windows"))
    parts = settings.range_test(
        model_without_dropout(model), make_context(batch_size=1, accumulate=4, batches="windows")
    )
    assert len(parts.rates) == len(whole.rates) == 12
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=1e-4)


def model_without_dropout(model: LanguageModel) -> LanguageModel:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def test_an_update_that_is_skipped_is_no_point(
    make_context: ContextBuilder, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(on_nan="skip")
    settings = LRFind(start=1e-4, end=1e-2, steps=10)
    calls = [0]
    real = optimizers.clip_gradients

    def spoilt(parameters: list[torch.nn.Parameter], limit: float | None) -> torch.Tensor:
        calls[0] += 1
        return torch.tensor(math.nan) if calls[0] in (3, 4) else real(parameters, limit)

    monkeypatch.setattr(loop, "clip_gradients", spoilt)
    test = settings.range_test(model, context)
    assert calls[0] == 12
    np.testing.assert_allclose(test.rates, np.geomspace(1e-4, 1e-2, 10))


def test_data_shorter_than_the_test_are_cycled(make_context: ContextBuilder, model: LanguageModel) -> None:
    context = make_context(batch_size=16, sequence_length=64)
    batches = len(context.corpus.train) // (16 * 64)
    test = LRFind(start=1e-5, end=1e-4, steps=60).range_test(model, context)
    assert batches < 10
    assert len(test.rates) == 60


def test_without_a_suggestion_the_default_is_taken_and_nothing_tried(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(gradient_clip=None, make_optimizer=torch.optim.SGD)
    model = build_model("rnn", context.corpus.tokenizer.vocab_size, nonlinearity="relu")
    settings = LRFind(start=1e9, end=1e12, steps=20, default=0.123)
    result = settings.find(model, context, tmp_path)
    assert (result.lr, result.ranked, result.trials) == (0.123, [0.123], [])
    assert result.test.suggestion is None
    assert result.test.reason


def test_points_can_be_as_long_as_several_passes(
    make_context: Callable[..., TrainingContext], build_model: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    context = make_context()
    grid = Grid(epochs=0.5, weight_decay=[0.1], learning_rates=1, eval_tokens=40)
    model = build_model("lstm", context.corpus.tokenizer.vocab_size)
    result = grid.search(model, context, [0.01], tmp_path / "grid.csv")
    expected = math.ceil(0.5 * len(context.corpus.train) / (4 * 8))
    assert [point.steps for point in result.points] == [expected]
    # Rows of another length are not continued.
    with pytest.raises(LinguistError, match="does not belong to this grid"):
        Grid(weight_decay=[0.1], learning_rates=1).search(model, context, [0.01], tmp_path / "grid.csv", resume=True)
