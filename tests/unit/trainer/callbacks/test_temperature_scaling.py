"""Temperature scaling: the factor of the logits, the weights that take it up, and the model that is kept."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_linguist.checkpoint.storage import load_model, read_checkpoint
from torch_linguist.data import TokenizedCorpus
from torch_linguist.errors import ConfigError
from torch_linguist.evaluation import mean_nll
from torch_linguist.model import LanguageModel, Mixture
from torch_linguist.trainer import Callback, Fit, TrainerSettings, train
from torch_linguist.trainer.callbacks.temperature_scaling import MOST_STEPS, best_factor

FitBuilder = Callable[..., Fit]
ModelBuilder = Callable[..., LanguageModel]
V = 50

SCALED: list[tuple[str, dict[str, Any]]] = [
    ("transformer", {"tied": True}),
    ("transformer", {"tied": False}),
    ("transformer", {"output": "sampled", "cutoffs": [20]}),
    ("transformer", {"output_bias": False}),
    ("lstm", {"projection_size": 16, "tied": True}),
    ("gru", {"projection_size": 12, "tied": False}),
    ("rnn", {"tied": False, "output": "sampled", "cutoffs": [20]}),
]

NOT_SCALED: list[tuple[str, dict[str, Any]]] = [
    ("lstm", {"tied": True}),
    ("transformer", {"num_softmaxes": 2}),
    ("gru", {"output": "adaptive", "cutoffs": [20]}),
]


@pytest.mark.parametrize(("family", "options"), SCALED)
@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_all_logits_are_multiplied(
    family: str, options: dict[str, Any], factor: float, build_model: ModelBuilder
) -> None:
    model = build_model(family, V, **options).double()
    model.start_at_unigram(torch.arange(1, V + 1))  # Biases that are not zero.
    tokens, targets = torch.randint(V, (2, 3, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, _ = model(tokens, model.initial_state(3))
        assert model.scale_logits(factor)
        scaled, _ = model(tokens, model.initial_state(3))
        nll, _ = model.nll(tokens, targets, model.initial_state(3))
    torch.testing.assert_close(scaled, factor * logits)
    expected = -torch.log_softmax(factor * logits, -1).gather(2, targets[..., None]).squeeze(2)
    torch.testing.assert_close(nll, expected)


@pytest.mark.parametrize(("family", "options"), NOT_SCALED)
def test_a_model_without_such_weights_is_left_as_it_is(
    family: str, options: dict[str, Any], build_model: ModelBuilder
) -> None:
    model = build_model(family, V, **options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert not model.scale_logits(0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_softmaxes_of_an_adaptive_output_are_scaled_each(build_model: ModelBuilder) -> None:
    model = build_model("transformer", V, output="adaptive", cutoffs=[20, 35]).double()
    tokens = torch.randint(V, (2, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        head = slice(20)
        before, _ = model(tokens, model.initial_state(2))
        assert model.scale_logits(0.6)
        after, _ = model(tokens, model.initial_state(2))
    torch.testing.assert_close(after.exp().sum(-1), torch.ones(2, 8, dtype=torch.float64))
    # Within the head, differences of logits are multiplied.
    torch.testing.assert_close(after[..., head].diff(dim=-1), 0.6 * before[..., head].diff(dim=-1))


@given(st.floats(0.2, 5.0), st.floats(0.01, 100.0))
def test_the_lowest_point_of_a_parabola_is_found(lowest: float, curvature: float) -> None:
    factor, loss = best_factor(lambda tried: curvature * math.log(tried / lowest) ** 2)
    assert factor == pytest.approx(lowest, rel=1e-6)
    assert loss == pytest.approx(0, abs=1e-9 * curvature)


def test_the_search_ends_where_no_factor_is_best() -> None:
    tried: list[float] = []
    factor, _ = best_factor(lambda factor: tried.append(factor) or -factor)  # type: ignore[func-returns-value]
    assert factor == max(tried)
    assert len(tried) <= MOST_STEPS + 4


def test_a_model_that_fits_best_as_it_is_stays_as_it_is() -> None:
    assert best_factor(abs_log) == (1.0, 0.0)


def abs_log(factor: float) -> float:
    return abs(math.log(factor))


class Notes(Callback):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, message: str) -> None:
        self.notes.append(message)


def test_the_best_model_has_the_scale_that_suits_valid(fit_of: FitBuilder, tmp_path: Path) -> None:
    notes = Notes()
    options: dict[str, Any] = {"eval_tokens": None, "max_steps": 60, "callbacks": [notes]}
    # A training draws its random numbers from the moment it is built.
    plain = fit_of(tmp_path / "plain", **options)
    without = plain.run()
    scaled = fit_of(tmp_path / "scaled", temperature_scaling=True, **options)
    result = scaled.run()
    valid = plain.context.corpus.valid
    model = load_model(plain.best_path)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses, tried = {}, torch.linspace(0.5, 2.0, 151).tolist()
    for factor in tried:
        model.load_state_dict(weights)
        model.scale_logits(factor)
        losses[factor] = mean_nll(model, valid)
    assert min(losses.values()) < min(losses[tried[0]], losses[tried[-1]])
    assert result.best_loss == pytest.approx(min(losses.values()), abs=1e-4)
    assert result.best_loss < without.best_loss
    assert (result.best_step, result.steps) == (without.best_step, without.steps)
    kept = load_model(scaled.best_path)
    assert mean_nll(kept, valid) == pytest.approx(result.best_loss, abs=1e-6)
    assert read_checkpoint(scaled.best_path)["progress"]["best_loss"] == result.best_loss
    # The training itself is the same, and can be continued.
    last = [read_checkpoint(fit.best_path.with_name("last.pt"))["weights"] for fit in (plain, scaled)]
    assert all(torch.equal(tensor, last[1][name]) for name, tensor in last[0].items())
    assert sum("temperature scaling" in note for note in notes.notes) == 1


def test_scaling_again_changes_hardly_anything(fit_of: FitBuilder, tmp_path: Path) -> None:
    options: dict[str, Any] = {"eval_tokens": None, "max_steps": 40, "temperature_scaling": True}
    once = fit_of(tmp_path / "run", **options)
    loss = once.run().best_loss
    first = load_model(once.best_path).state_dict()
    fit_of(tmp_path / "run", resume=tmp_path / "run" / "checkpoints" / "last.pt", **options).run()
    again = load_model(once.best_path).state_dict()
    assert read_checkpoint(once.best_path)["progress"]["best_loss"] == pytest.approx(loss, abs=1e-5)
    for name, tensor in first.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-2, atol=1e-4)


def test_python_gets_the_scaled_model(tiny_corpus: TokenizedCorpus, build_model: ModelBuilder) -> None:
    model = build_model("transformer", tiny_corpus.tokenizer.vocab_size)
    sizes: dict[str, Any] = {"batch_size": 4, "sequence_length": 8, "device": "cpu", "precision": "fp32"}
    result = train(model, tiny_corpus, lr=0.02, max_steps=30, eval_tokens=None, temperature_scaling=True, **sizes)
    assert mean_nll(model, tiny_corpus.valid) == pytest.approx(result.best_loss, abs=1e-6)


def test_what_cannot_be_scaled_is_refused(tiny_corpus: TokenizedCorpus, build_model: ModelBuilder) -> None:
    model = build_model("lstm", tiny_corpus.tokenizer.vocab_size, tied=True)
    with pytest.raises(ConfigError, match=r"trainer\.temperature_scaling=true: no weights of this model"):
        train(model, tiny_corpus, max_steps=1, device="cpu", temperature_scaling=True)
    with pytest.raises(ConfigError, match=r"trainer\.temperature_scaling=true: not with trainer\.snapshots=3"):
        TrainerSettings(max_steps=1, temperature_scaling=True, snapshots=3)
    assert not Mixture([model, model]).scale_logits(2.0)
