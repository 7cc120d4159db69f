"""Adaptation at test time: against slow references, causal, and without a trace in the model."""

import copy
import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from torch_linguist.data import TokenizedCorpus, TokenStream
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation import stream_nll
from torch_linguist.evaluation.adaptation import continuous_cache
from torch_linguist.evaluation.adaptation.continuous_cache import CacheSettings, cached_nll, hidden_parts, tune_cache
from torch_linguist.evaluation.adaptation.dynamic_evaluation import (
    DynamicSettings,
    dynamic_nll,
    gradient_scale,
    tune_dynamic,
)
from torch_linguist.model import LanguageModel, NGramModel
from torch_linguist.model.outputs import sampled_softmax

ModelBuilder = Callable[..., LanguageModel]
V = 20


def random_stream(length: int, seed: int = 0) -> TokenStream:
    ids = np.random.default_rng(seed).integers(0, V, length).astype(np.uint16)
    edges = np.array([0, length], np.int64)
    return TokenStream("valid", ids, 0, 1, 1, 0, edges, edges)


@pytest.mark.parametrize("family", ["lstm", "gru", "transformer"])
def test_the_cache_equals_the_definition(
    family: str, build_model: ModelBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuous_cache, "CHUNK", 5)
    options = {"context_length": 64} if family == "transformer" else {}
    model, stream = build_model(family, V, output="adaptive", cutoffs=[7], **options), random_stream(33)
    settings = CacheSettings(size=9, theta=0.7, share=0.3)
    ids = [0, *stream.ids.tolist()]
    with torch.no_grad():
        hidden, _ = model.hidden(torch.tensor([ids[:-1]]), model.initial_state(1))
        logits, _ = model(torch.tensor([ids[:-1]]), model.initial_state(1))
    probabilities = torch.softmax(logits[0].double(), -1)
    expected = []
    for place, word in enumerate(ids[1:]):
        probability = float(probabilities[place, word])
        kept = range(max(0, place - settings.size), place)
        if kept:
            weights = [math.exp(settings.theta * float(hidden[0, place] @ hidden[0, one])) for one in kept]
            matching = sum(weight for weight, one in zip(weights, kept, strict=True) if ids[one + 1] == word)
            probability = 0.7 * probability + 0.3 * matching / sum(weights)
        expected.append(-math.log(probability))
    np.testing.assert_allclose(cached_nll(hidden_parts(model, stream), settings), expected, atol=1e-5)


def test_the_cache_is_tuned_to_the_least_loss(build_model: ModelBuilder) -> None:
    model = build_model("gru", V)
    period = np.tile(np.random.default_rng(1).integers(0, V, 11), 12)[:120].astype(np.uint16)
    edges = np.array([0, 120], np.int64)
    stream = TokenStream("valid", period, 0, 1, 1, 0, edges, edges)
    best, tried = tune_cache(hidden_parts(model, stream), size=50)
    losses = {settings: cached_nll(hidden_parts(model, stream), settings).mean() for settings, _ in tried}
    assert dict(tried) == pytest.approx(losses)
    assert losses[best] == min(losses.values())
    assert best.share > 0  # What repeats is worth remembering.
    plain = np.concatenate(list(stream_nll(model, stream)))
    np.testing.assert_allclose(cached_nll(hidden_parts(model, stream), CacheSettings(50, 1.0, 0.0)), plain, atol=1e-6)


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_dynamic_evaluation_scores_before_it_learns(family: str, build_model: ModelBuilder) -> None:
    model, stream = build_model(family, V, dropout=0.5), random_stream(40)
    before = copy.deepcopy(model.state_dict())
    scale = gradient_scale(model, random_stream(64, seed=1), segment=4)
    settings = DynamicSettings(0.05, 0.02, segment=4)
    found = dynamic_nll(model, stream, settings, scale)
    # The first segment is that of the unchanged model; a changed future changes nothing before it.
    plain = np.concatenate(list(stream_nll(model, stream, stride=4)))
    np.testing.assert_allclose(found[:4], plain[:4], atol=1e-6)
    assert np.abs(found[4:] - plain[4:]).max() > 1e-3
    ids = stream.ids.copy()
    ids[21:] = (ids[21:] + 1) % V
    other = TokenStream("valid", ids, 0, 1, 1, 0, stream.line_offsets, stream.document_offsets)
    np.testing.assert_array_equal(dynamic_nll(model, other, settings, scale)[:21], found[:21])
    still = dynamic_nll(model, stream, DynamicSettings(0.0, 0.1, segment=4), scale)
    if family == "lstm":  # The windows of a Transformer end elsewhere than those of `stream_nll`.
        np.testing.assert_allclose(still, plain, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_two_steps_by_hand(build_model: ModelBuilder) -> None:
    model, stream = build_model("rnn", V), random_stream(9)
    scale = [torch.rand_like(weight) + 0.1 for weight in model.parameters()]
    found = dynamic_nll(model, stream, DynamicSettings(0.03, 0.2, segment=3), scale)
    learner = copy.deepcopy(model)
    ids = torch.tensor([[0, *stream.ids.tolist()]])
    typical = torch.stack([rms.mean() for rms in scale]).mean()
    state = learner.initial_state(1)
    for start in (0, 3, 6):
        nll, state = learner.nll(ids[:, start : start + 3], ids[:, start + 1 : start + 4], state)
        state = [tensor.detach() for tensor in state]
        np.testing.assert_allclose(found[start : start + 3], nll[0].detach().numpy(), atol=1e-5)
        gradients = torch.autograd.grad(nll.mean(), list(learner.parameters()))
        with torch.no_grad():
            every = zip(learner.parameters(), model.parameters(), gradients, scale, strict=True)
            for weight, trained, gradient, rms in every:
                share = (0.2 * rms / typical).clamp(max=1)
                weight.add_(share * (trained - weight) - 0.03 * gradient / (rms + 1e-3))


@pytest.mark.parametrize("softmaxes", [1, 2])
def test_a_sampled_softmax_learns_from_its_sample_and_scores_exactly(
    build_model: ModelBuilder, softmaxes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled_softmax, "LIKELY", 3)
    options = {"tied": True, "dropout": 0.5, "num_softmaxes": softmaxes}
    model = build_model("lstm", V, output="sampled", cutoffs=[4], **options).double()
    stream = random_stream(24)
    scale = gradient_scale(model, random_stream(64, seed=1), segment=8)
    before = copy.deepcopy(model.state_dict())
    found = dynamic_nll(model, stream, DynamicSettings(0.05, 0.1, segment=8), scale)
    typical = torch.stack([rms.mean() for rms in scale]).mean()
    scorer, learner = copy.deepcopy(model), copy.deepcopy(model)
    learner.disable_dropout()
    learner.train()
    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor([[0, *stream.ids.tolist()]])
    state = learner.initial_state(1)
    last = torch.zeros(V, 1)
    for step, start in enumerate((0, 8, 16), 1):
        tokens, targets = ids[:, start : start + 8], ids[:, start + 1 : start + 9]
        scorer.load_state_dict(learner.state_dict())
        np.testing.assert_allclose(
            found[start : start + 8], scorer.nll(tokens, targets, state)[0][0].detach(), atol=1e-9
        )
        learner.draw_sample(targets, generator, learner.hidden(tokens, state)[0])
        nll, state = learner.nll(tokens, targets, [tensor.detach() for tensor in state])
        gradients = torch.autograd.grad(nll.mean(), list(learner.parameters()))
        with torch.no_grad():
            every = zip(learner.parameters(), model.parameters(), gradients, scale, strict=True)
            for weight, trained, gradient, rms in every:
                pull = 0.1 * rms / typical
                if weight is learner.get_parameter("embedding.weight"):
                    # A row outside the sample stays, and is pulled once for each step that it missed.
                    sampled = (gradient != 0).any(1, keepdim=True)
                    pull = torch.where(sampled, pull * (step - last), 0.0)
                    last = torch.where(sampled, float(step), last)
                weight.add_(pull.clamp(max=1) * (trained - weight) - 0.05 * gradient / (rms + 1e-3))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_gradients_of_a_sample_with_the_likely_types_near_the_exact_ones(
    build_model: ModelBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled = build_model("lstm", V, tied=True, output="sampled", cutoffs=[4]).double()
    full = build_model("lstm", V, tied=True, output="full").double()
    full.load_state_dict(sampled.state_dict(), strict=False)
    stream, train = random_stream(24), random_stream(64, seed=1)
    settings = DynamicSettings(0.05, 0.1, segment=8)
    expected = dynamic_nll(full, stream, settings, gradient_scale(full, train, segment=8))
    errors = []
    for likely in (0, V):
        monkeypatch.setattr(sampled_softmax, "LIKELY", likely)
        found = dynamic_nll(sampled, stream, settings, gradient_scale(sampled, train, segment=8))
        errors.append(float(np.abs(found - expected).max()))
    assert errors[0] > 1e-3 > 1e-9 > errors[1]
    exact = dataclasses.replace(settings, exact=True)
    scale = gradient_scale(sampled, train, segment=8, exact=True)
    np.testing.assert_allclose(dynamic_nll(sampled, stream, exact, scale), expected, atol=1e-9)


def test_a_transformer_reads_overlapping_segments(build_model: ModelBuilder) -> None:
    model, stream = build_model("transformer", V, context_length=16), random_stream(70)
    scale = gradient_scale(model, random_stream(64, seed=1), segment=64)
    still = dynamic_nll(model, stream, DynamicSettings(0.0, 0.0, segment=64), scale)
    # Half a context of new tokens at a time, as plain scoring reads.
    plain = np.concatenate(list(stream_nll(model, stream, stride=8)))
    np.testing.assert_allclose(still, plain, atol=1e-5)


def test_learning_from_a_text_that_repeats_pays(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    model = build_model("lstm", tiny_corpus.tokenizer.vocab_size)
    scale = gradient_scale(model, tiny_corpus.train, segment=16, max_tokens=320)
    best, tried = tune_dynamic(model, tiny_corpus.valid, scale, segment=16, max_tokens=320)
    plain = np.concatenate(list(stream_nll(model, tiny_corpus.valid, 320))).mean()
    assert dict(tried)[best] == min(dict(tried).values()) < plain


def test_what_cannot_adapt_is_named(build_model: ModelBuilder) -> None:
    with pytest.raises(LinguistError, match="--cache: a NGramModel has no hidden vectors"):
        cached_nll(hidden_parts(NGramModel(V, 2), random_stream(5)), CacheSettings(5, 1.0, 0.1))
    with pytest.raises(LinguistError, match="--dynamic: a NGramModel has no weights"):
        gradient_scale(NGramModel(V, 2), random_stream(5))
    with pytest.raises(LinguistError, match="must hold at least 1"):
        cached_nll(hidden_parts(build_model("gru", V), random_stream(5)), CacheSettings(0, 1.0, 0.1))
