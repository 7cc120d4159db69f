"""Attributions: against brute force, and the completeness of the integral."""

import numpy as np
import pytest
import torch
from conftest import ModelBuilder

from torch_linguist.data import TokenizedCorpus
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.interpretation.attribution import (
    gradient_attribution,
    log_probability,
    mean_embedding,
    occlusion,
    occlusion_matrix,
)
from torch_linguist.evaluation.interpretation.contexts import target_nll
from torch_linguist.model import LSTM, LanguageModel, NGramModel
from torch_linguist.model.neural import NeuralLanguageModel

CONTEXT = np.array([0, 5, 9, 3, 17, 4, 8])


def log_prob(model: LanguageModel, context: list[int], target: int) -> float:
    """Straight from the logits of one pass."""
    with torch.no_grad():
        logits, _ = model(torch.tensor([context]), model.initial_state(1))
    return float(torch.log_softmax(logits[0, -1].double(), 0)[target])


@pytest.mark.parametrize("family", ["rnn", "lstm", "gru", "transformer"])
def test_occlusion_is_that_of_brute_force(build_model: ModelBuilder, family: str) -> None:
    model = build_model(family)
    found = occlusion(model, CONTEXT, 11)
    whole = log_prob(model, CONTEXT.tolist(), 11)
    for place in range(len(CONTEXT)):
        without = [*CONTEXT[:place].tolist(), *CONTEXT[place + 1 :].tolist()]
        assert found[place] == pytest.approx(whole - log_prob(model, without, 11), abs=1e-5)


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_the_matrix_holds_the_occlusion_of_each_prediction(build_model: ModelBuilder, family: str) -> None:
    model = build_model(family)
    matrix = occlusion_matrix(model, CONTEXT[1:], eos_id=0)
    for row in range(1, len(CONTEXT) - 1):
        single = occlusion(model, CONTEXT[: row + 1], int(CONTEXT[row + 1]))
        np.testing.assert_allclose(matrix[row, :row], single[1:], atol=1e-5)
        assert np.isnan(matrix[row, row:]).all()


def test_an_ngram_rests_on_nothing_beyond_its_order(tiny_corpus: TokenizedCorpus) -> None:
    model = NGramModel(tiny_corpus.tokenizer.vocab_size, order=3)
    model.fit_counts(tiny_corpus.train.ids, tiny_corpus.tokenizer.eos_id)
    ids = np.asarray(tiny_corpus.valid.ids[:20]).astype(np.int64)
    found = occlusion(model, ids[:19], int(ids[19]))
    assert (found[:-2] == 0).all()
    assert np.abs(found[-2:]).max() > 0
    matrix = occlusion_matrix(model, ids, tiny_corpus.tokenizer.eos_id)
    far = np.subtract.outer(np.arange(20), np.arange(20)) > 2
    assert np.nanmax(np.abs(matrix[far])) < 1e-12


@pytest.mark.parametrize("family", ["rnn", "lstm", "gru", "transformer"])
@pytest.mark.parametrize("output", ["full", "adaptive"])
def test_integrated_gradients_are_complete(build_model: ModelBuilder, family: str, output: str) -> None:
    model = build_model(family, output=output)
    assert isinstance(model, NeuralLanguageModel)
    counts = np.arange(1, 51)
    baseline = mean_embedding(model, counts)
    np.testing.assert_allclose(
        baseline, np.average(model.embedding.weight.detach(), axis=0, weights=counts), rtol=1e-4, atol=1e-6
    )
    found = gradient_attribution(model, CONTEXT, 11, baseline)
    start = log_probability(model, baseline.expand(1, len(CONTEXT), -1), 11).detach()
    expected = log_prob(model, CONTEXT.tolist(), 11) - float(start)
    assert found.difference == pytest.approx(expected, abs=1e-5)
    assert found.integrated.sum() == pytest.approx(expected, abs=2e-3)
    assert abs(found.delta) < 2e-3
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_input_x_gradient_is_that_of_finite_differences(build_model: ModelBuilder) -> None:
    model = build_model("lstm").double()
    assert isinstance(model, LSTM)
    found = gradient_attribution(model, CONTEXT, 11, mean_embedding(model, np.ones(50, np.int64)), steps=4)
    embedded = model.embedding(torch.from_numpy(CONTEXT))[None].detach()

    def scaled(place: int, factor: float) -> float:
        changed = embedded.clone()
        changed[0, place] *= factor
        with torch.no_grad():
            return float(log_probability(model, changed, 11))

    for place in range(len(CONTEXT)):
        slope = (scaled(place, 1 + 1e-5) - scaled(place, 1 - 1e-5)) / 2e-5
        assert found.input_x_gradient[place] == pytest.approx(slope, abs=1e-7)


def test_an_error_names_the_extra_without_captum(build_model: ModelBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_linguist.evaluation.interpretation.attribution.has_captum", lambda: False)
    model = build_model("lstm")
    assert isinstance(model, NeuralLanguageModel)
    with pytest.raises(LinguistError, match=r"torch-linguist\[analyze\]"):
        gradient_attribution(model, CONTEXT, 11, torch.zeros(16))


def test_too_short_contexts_are_refused(build_model: ModelBuilder) -> None:
    model = build_model("lstm")
    with pytest.raises(LinguistError, match="at least 2"):
        occlusion(model, CONTEXT[:1], 3)
    with pytest.raises(LinguistError, match="at least 2"):
        occlusion_matrix(model, CONTEXT[:1], 0)
    assert np.isfinite(target_nll(model, CONTEXT[None, :1], np.array([3]))).all()
