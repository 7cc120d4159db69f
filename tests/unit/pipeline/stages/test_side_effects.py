"""The stages before the training leave no trace; and what they find."""

import csv
import functools
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torch_linguist.model import LanguageModel
from torch_linguist.optim import OneCycle
from torch_linguist.pipeline.short_training import run_trial, tied_with_best
from torch_linguist.pipeline.stages import Check, Grid, LRFind, Overfit
from torch_linguist.trainer import Fit, TrainingContext
from torch_linguist.trainer.randomness import own_randomness, random_state, restore_random_state, seed_everything

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]


def fingerprint(model: LanguageModel) -> list[Any]:
    """Everything that a stage might touch, comparable bit for bit."""
    version, keys, position, *rest = np.random.get_state()
    tensors = [tensor.clone() for tensor in model.state_dict().values()]
    gradients = [parameter.grad for parameter in model.parameters()]
    return [
        random.getstate(),
        (version, np.asarray(keys).tolist(), position, rest),
        torch.get_rng_state().tolist(),
        [tensor.tolist() for tensor in tensors],
        gradients,
        model.training,
        [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)],
    ]


FIND = LRFind(steps=12, trial_steps=3, eval_tokens=40)
STAGES: dict[str, Callable[[LanguageModel, TrainingContext, Path], object]] = {
    "check": lambda model, context, folder: Check().measure(model, context),
    "overfit": lambda model, context, folder: Overfit(max_steps=3).memorize(model, context, folder / "o.csv"),
    "range_test": lambda model, context, folder: FIND.range_test(model, context),
    "lr_find": lambda model, context, folder: FIND.find(model, context, folder),
    "trial": lambda model, context, folder: run_trial(model, context, 0.01, 0.1, 3, 40),
    "grid": lambda model, context, folder: Grid(weight_decay=[0.0, 0.1], steps=2, eval_tokens=40).search(
        model, context, [0.01], folder / "grid.csv"
    ),
}


@pytest.mark.parametrize("family", ["lstm", "transformer"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("training", [True, False])
def test_a_stage_leaves_everything_as_it_was(
    stage: str, family: str, training: bool, make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context()
    model = build_model(family, context.corpus.tokenizer.vocab_size, dropout=0.3).train(training)
    seed_everything(5)
    random.gauss(0, 1)  # Leaves a second number behind in Python's state,
    np.random.normal()  # and in NumPy's.
    before = fingerprint(model)
    STAGES[stage](model, context, tmp_path)
    assert fingerprint(model) == before


def test_own_randomness_restores_after_an_error() -> None:
    seed_everything(1)
    before = random_state()

    def interrupted() -> Iterator[None]:
        with own_randomness(9):
            yield
            random.random(), np.random.rand(), torch.rand(3)
            raise KeyboardInterrupt

    generator = interrupted()
    next(generator)
    inside = torch.rand(2)
    with pytest.raises(KeyboardInterrupt):
        next(generator)
    after = random_state()
    assert (after["python"], after["numpy"]) == (before["python"], before["numpy"])
    assert torch.equal(after["torch"], before["torch"])
    with own_randomness(9):
        assert torch.equal(torch.rand(2), inside)


def test_random_states_go_through_a_file(tmp_path: Path) -> None:
    seed_everything(4)
    random.gauss(0, 1), np.random.normal()
    torch.save(random_state(), tmp_path / "state.pt")
    expected = random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand(), torch.rand(2).tolist()
    seed_everything(5)
    restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (
        random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand(), torch.rand(2).tolist()
    ) == expected  # fmt: skip


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_finding_a_rate_first_gives_bit_equal_weights(
    family: str, make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(max_steps=6, eval_every=3, eval_tokens=40, schedule=OneCycle())
    models = []
    for name in ("found", "given"):
        folder = tmp_path / name
        folder.mkdir()
        seed_everything(8)
        model = build_model(family, context.corpus.tokenizer.vocab_size, dropout=0.2)
        if name == "found":
            result = FIND.find(model, context, folder)
            Grid(steps=2, eval_tokens=40).search(model, context, result.ranked, folder / "grid.csv")
        Fit(model, context, 0.01, 0.0, folder).run()
        models.append(model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_trial_is_the_same_whenever_it_runs(make_context: ContextBuilder, build_model: ModelBuilder) -> None:
    context = make_context(schedule=OneCycle())
    model = build_model("gru", context.corpus.tokenizer.vocab_size, dropout=0.2)
    first = run_trial(model, context, 0.01, 0.0, 4, 60)
    torch.rand(7)
    run_trial(model, context, 0.1, 0.5, 3, 60)
    again = run_trial(model, context, 0.01, 0.0, 4, 60)
    assert (first.train_loss, first.valid_loss, first.steps) == (again.train_loss, again.valid_loss, 4)


def test_a_trial_that_diverges_is_a_result(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context(gradient_clip=None, make_optimizer=torch.optim.SGD)
    model = build_model("rnn", context.corpus.tokenizer.vocab_size, nonlinearity="relu")
    trial = run_trial(model, context, 1e15, 0.0, 20, 40)
    assert (trial.status, trial.valid_loss) == ("diverged", math.inf)
    result = Grid(steps=20, weight_decay=[0.0]).search(model, context, [1e15, 1e-3], tmp_path / "grid.csv")
    assert [point.status for point in result.points] == ["diverged", "finished"]
    assert result.best is not None
    assert result.best.lr == 1e-3
    with (tmp_path / "grid.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["status"], rows[0]["valid_loss"]) == ("diverged", "inf")
    assert float(rows[1]["valid_perplexity"]) == pytest.approx(math.exp(float(rows[1]["valid_loss"])))


def test_the_grid_tries_every_point_of_the_best_rates(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context()
    model = build_model("lstm", context.corpus.tokenizer.vocab_size)
    settings = Grid(steps=3, learning_rates=2, weight_decay=[0.0, 0.1, 0.2], eval_tokens=60)
    result = settings.search(model, context, [0.02, 0.01, 0.5], tmp_path / "grid.csv")
    assert [(point.lr, point.weight_decay) for point in result.points] == [
        (lr, decay) for lr in (0.02, 0.01) for decay in (0.0, 0.1, 0.2)
    ]
    assert result.best in tied_with_best(result.points)


def test_the_range_test_raises_the_rate_by_a_constant_factor(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context()
    model = build_model("lstm", context.corpus.tokenizer.vocab_size)
    settings = LRFind(start=1e-4, end=0.1, steps=31, smoothing=0.8)
    test = settings.range_test(model, context, tmp_path / "curve.csv")
    np.testing.assert_allclose(test.rates, np.geomspace(1e-4, 0.1, 31))
    weights = 0.8 ** np.arange(31)
    for count in (1, 2, 17, 31):  # An exponential mean over what there is so far.
        expected = (weights[:count] * test.losses[:count][::-1]).sum() / weights[:count].sum()
        assert test.smoothed[count - 1] == pytest.approx(expected)
    assert test.losses[0] == pytest.approx(math.log(model.vocab_size), rel=0.05)
    assert test.suggestion is not None
    assert 1e-4 < test.suggestion < 0.1
    rows = (tmp_path / "curve.csv").read_text().splitlines()
    assert rows[0] == "step,lr,batch_loss,loss,smoothed"
    assert len(rows) == 32


def test_a_rate_that_explodes_ends_the_range_test(make_context: ContextBuilder, build_model: ModelBuilder) -> None:
    context = make_context(gradient_clip=None, make_optimizer=torch.optim.SGD)
    model = build_model("rnn", context.corpus.tokenizer.vocab_size, nonlinearity="relu")
    test = LRFind(start=1e9, end=1e12, steps=20).range_test(model, context)
    assert len(test.rates) < 20
    assert test.suggestion is None
    assert test.reason


def test_the_finder_continues_if_the_best_trial_is_at_an_edge(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context()
    model = build_model("lstm", context.corpus.tokenizer.vocab_size)
    # The suggestion of so low a range is far too low, so the best of the trials is always the highest.
    settings = LRFind(start=1e-6, end=1e-5, steps=10, trial_steps=60, trial_factors=[10.0, 30.0])
    result = settings.find(model, context, tmp_path)
    rates = [trial.lr for trial in result.trials]
    assert len(rates) == 5
    assert rates[2:] == pytest.approx([rates[1] * 3, rates[1] * 9, rates[1] * 27])
    assert result.lr == max(rates) == result.ranked[0]
    losses = {trial.lr: trial.valid_loss for trial in result.trials}
    assert result.ranked == sorted(losses, key=losses.__getitem__)


def test_check_passes_the_untrained_and_catches_the_trained(
    make_context: ContextBuilder, build_model: ModelBuilder
) -> None:
    context = make_context()
    model = build_model("lstm", context.corpus.tokenizer.vocab_size)
    result = Check(batches=3).measure(model, context)
    assert (result.passed, result.tokens) == (True, 96)
    assert result.expected == pytest.approx(math.log(model.vocab_size))
    with torch.no_grad():
        model.get_parameter("output.bias")[: model.vocab_size // 2] = 30.0
    assert not Check().measure(model, context).passed


@pytest.mark.parametrize("family", ["rnn", "lstm", "gru", "transformer"])
def test_overfit_learns_a_batch_by_heart(
    family: str, make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    context = make_context()
    # Dropout would keep it from learning anything by heart, so the stage turns it off.
    model = build_model(family, context.corpus.tokenizer.vocab_size, dropout=0.6, embedding_dim=32)
    result = Overfit(max_steps=300, target=0.2, lr=0.01, batch_size=2).memorize(model, context, tmp_path / "o.csv")
    assert result.passed
    assert result.loss <= 0.2
    assert result.tokens == 32
    assert result.first_loss == pytest.approx(math.log(model.vocab_size), rel=0.1)
    assert len((tmp_path / "o.csv").read_text().splitlines()) == result.steps + 1


def test_overfit_has_an_optimizer_of_its_own(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    # Its learning rate is one of AdamW; plain SGD would not move at it, and say that the model cannot learn.
    context = make_context(make_optimizer=functools.partial(torch.optim.SGD, momentum=0.0))
    model = build_model("lstm", context.corpus.tokenizer.vocab_size, embedding_dim=32)
    settings = Overfit(max_steps=300, target=0.3, lr=0.01, batch_size=2)
    assert settings.memorize(model, context, tmp_path / "o.csv").passed
