"""The range test sees what learning changes, not what batches differ by, and calls noise what is noise."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from torch_linguist.model import LanguageModel
from torch_linguist.pipeline.range_test import RangeTest, range_test
from torch_linguist.pipeline.short_training import NOISE, Trial, tied_with_best
from torch_linguist.pipeline.stages import Grid, LRFind
from torch_linguist.trainer import TrainingContext

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]


def curve(losses: np.ndarray, smoothing: float = 0.9) -> RangeTest:
    """A range test with these losses, smoothed as the range test does."""
    steps = len(losses)
    weights = smoothing ** np.arange(steps)
    smoothed = [(weights[: n + 1] * losses[: n + 1][::-1]).sum() / weights[: n + 1].sum() for n in range(steps)]
    return RangeTest(np.geomspace(1e-5, 1, steps), losses, np.array(smoothed), 6.6, steps, smoothing)


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_differences_between_batches_are_taken_out(
    family: str, make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(batch_size=2)
    model = build_model(family, context.corpus.tokenizer.vocab_size)
    # So low a rate changes nothing; only the batches differ.
    test = range_test(model, context, 1e-12, 1e-11, 20, table=tmp_path / "curve.csv")
    with (tmp_path / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert np.ptp([float(row["batch_loss"]) for row in rows]) > 1e-3
    assert np.ptp(test.losses) < 1e-5
    assert test.losses[0] == pytest.approx(float(rows[0]["batch_loss"]), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_a_curve_of_noise_has_no_suggestion(seed: int) -> None:
    noisy = curve(6.6 + 0.01 * np.random.default_rng(seed).normal(size=80))
    for method in ("valley", "steep", "minimum", "slide"):
        found = noisy.with_suggestion(method)
        assert found.suggestion is None
        assert found.reason.endswith(": noise") or found.reason == "the loss never fell"


def test_the_suggestion_comes_from_where_the_loss_falls() -> None:
    source = np.random.default_rng(1)
    # Flat for 40 points, then 20 down by 0.4 nats, then up; the noise is what a batch of 16 x 64 tokens leaves.
    losses = 6.6 + np.concatenate([np.zeros(40), -np.linspace(0, 0.4, 20), np.linspace(-0.4, 4, 20)])
    found = curve(losses + 0.0005 * source.normal(size=80)).with_suggestion("valley")
    assert found.fall == pytest.approx(0.3, abs=0.1)
    assert found.noise < 0.01
    assert 36 <= found.begin <= 44
    assert found.suggestion is not None
    assert found.rates[44] <= found.suggestion <= found.rates[62]


def trial(lr: float, weight_decay: float, loss: float, status: str = "finished") -> Trial:
    return Trial(lr, weight_decay, 10, loss, loss, 1.0, status)


def test_trials_within_noise_tie() -> None:
    trials = [
        trial(1e-3, 0, 5.0 + NOISE / 2),
        trial(3e-3, 0, 5.0),
        trial(1e-2, 0, 5.0 + 2 * NOISE),
        trial(1.0, 0, 1.0, "diverged"),
    ]
    assert tied_with_best(trials) == trials[:2]
    assert tied_with_best(trials[3:]) == []


def test_a_tie_in_the_grid_goes_to_the_usual_weight_decay(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context()
    model = build_model("lstm", context.corpus.tokenizer.vocab_size)
    # Nothing is learned at such rates: all points tie, and the first rate is the finder's best.
    result = Grid(steps=3, eval_tokens=60).search(model, context, [1e-8, 1e-9], tmp_path / "grid.csv")
    assert result.best is not None
    assert [point.weight_decay for point in result.points] == 2 * [0.0, 0.25, 1.0]
    assert (result.tied, result.best.lr, result.best.weight_decay) == (6, 1e-8, 1.0)
    given = Grid(weight_decay=[0.0, 0.01, 0.1], steps=3, eval_tokens=60)
    result = given.search(model, context, [1e-8, 1e-9], tmp_path / "grid.csv")
    assert result.best is not None
    assert result.best.weight_decay == 0.1


@pytest.mark.parametrize(
    ("cost", "epochs", "given", "chosen"),
    [
        (0.02, None, None, 1.0),
        (0.06, None, None, 0.25),
        (0.3, None, None, 0.0),
        (0.1, 5, None, 0.0),
        (0.02, None, [0.0, 1.0], 0.0),
    ],
)
def test_a_short_grid_lets_the_usual_weight_decay_cost_something(
    make_context: ContextBuilder,
    build_model: ModelBuilder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cost: float,
    epochs: int | None,
    given: list[float] | None,
    chosen: float,
) -> None:
    def costly(model: LanguageModel, context: TrainingContext, lr: float, weight_decay: float, *_: object) -> Trial:
        return trial(lr, weight_decay, 5.0 + cost * weight_decay + (lr > 1e-8))

    monkeypatch.setattr("torch_linguist.pipeline.stages.grid.run_trial", costly)
    context = make_context()
    model = build_model("lstm", context.corpus.tokenizer.vocab_size)
    grid = Grid(weight_decay=given, steps=3, epochs=epochs)
    best = grid.search(model, context, [1e-7, 1e-8], tmp_path / "grid.csv").best
    assert best is not None
    assert (best.lr, best.weight_decay) == (1e-8, chosen)


def test_the_usual_weight_decay_remembers_a_pass_and_a_half(make_context: ContextBuilder) -> None:
    context = make_context()
    passes = 1.5
    updates = passes * len(context.corpus.train) / context.tokens_per_update
    decay = context.usual_weight_decay(lr := 0.5)
    assert (1 - lr * decay) ** updates == pytest.approx(math.exp(-1), rel=0.1)
    assert context.usual_weight_decay(1e-9) == 1.0


def test_a_tie_in_the_trials_goes_to_the_rate_nearest_to_the_default(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context()
    model = build_model("lstm", context.corpus.tokenizer.vocab_size)
    finder = LRFind(trial_steps=3, trial_factors=[0.1, 1.0, 10.0], default=3e-9, eval_tokens=60)
    made = RangeTest(np.array([1e-8]), np.array([5.0]), np.array([5.0]), 5.0, 10, suggestion=1e-8)
    found = finder.find(model, context, tmp_path, test=made)
    assert [one.lr for one in found.trials] == pytest.approx([1e-9, 1e-8, 1e-7])
    assert found.tied == 3
    assert found.lr == found.ranked[0] == pytest.approx(1e-9)
