import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.errors import ConfigError
from torch_linguist.model import LSTM, LanguageModel, Transformer
from torch_linguist.model.mixture import Mixture, fit_weights, mixture_nll
from torch_linguist.model.ngram import NGramModel

VOCAB = 11


def ngram(order: int) -> NGramModel:
    model = NGramModel(VOCAB, order)
    model.fit_counts(np.random.default_rng(order).zipf(1.5, 300) % VOCAB, eos_id=0)
    return model


def components() -> list[LanguageModel]:
    torch.manual_seed(0)
    return [
        LSTM(VOCAB, embedding_dim=8, hidden_size=8, num_layers=2, dropout=0.0).eval(),
        ngram(3),
        Transformer(VOCAB, embedding_dim=8, num_layers=1, num_heads=2, dropout=0.0).eval(),
        ngram(1),
    ]


def test_it_is_the_weighted_mean_and_carries_every_state() -> None:
    parts, weights = components(), [0.4, 0.3, 0.2, 0.1]
    model = Mixture(parts, weights)
    tokens = torch.randint(VOCAB, (3, 12), generator=torch.Generator().manual_seed(1))
    targets = torch.randint(VOCAB, (3, 12), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = sum(
            weight * part(tokens, part.initial_state(3))[0].double().softmax(-1)
            for weight, part in zip(weights, parts, strict=True)
        )
        assert isinstance(expected, torch.Tensor)
        logits, _ = model(tokens, model.initial_state(3))
        assert torch.allclose(logits.exp().double(), expected, atol=1e-6)
        state, nll = model.initial_state(3), []
        for begin in (0, 5):
            stop = 5 if begin == 0 else 12
            part, state = model.nll(tokens[:, begin:stop], targets[:, begin:stop], state)
            nll.append(part)
    assert torch.allclose(torch.cat(nll, 1).double(), -expected.gather(-1, targets[..., None])[..., 0].log(), atol=1e-5)
    assert model.context_length == parts[2].context_length
    assert model.weights == pytest.approx(weights)


def test_it_scripts() -> None:
    model = Mixture(components()[:2])
    tokens = torch.randint(VOCAB, (2, 6))
    scripted = torch.jit.script(model)
    expected, _ = model(tokens, model.initial_state(2))
    logits, _ = scripted(tokens, model.initial_state(2))
    assert torch.allclose(logits, expected)


def test_a_weight_of_zero_leaves_a_component_out() -> None:
    first, second = ngram(2), ngram(4)
    model = Mixture([first, second], [0.0, 1.0])
    tokens = torch.randint(VOCAB, (1, 20))
    logits, _ = model(tokens, model.initial_state(1))
    assert torch.allclose(logits, second(tokens, second.initial_state(1))[0])
    nll, _ = model.nll(tokens[:, :-1], tokens[:, 1:], model.initial_state(1))
    assert torch.isfinite(nll).all()


def test_two_components_get_the_weight_that_a_search_finds() -> None:
    generator = torch.Generator().manual_seed(3)
    nll = torch.rand((2, 500), generator=generator, dtype=torch.float64) * 8
    grid = np.linspace(0.001, 0.999, 999)
    losses = [float(mixture_nll(nll, [share, 1 - share]).mean()) for share in grid]
    weights = fit_weights(nll, tolerance=1e-13, max_iterations=10_000)
    assert weights[0] == pytest.approx(float(grid[int(np.argmin(losses))]), abs=2e-3)
    assert float(mixture_nll(nll, weights).mean()) <= min(losses) + 1e-9


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.lists(st.floats(0, 2000), min_size=4, max_size=4), min_size=1, max_size=4))
def test_fitted_weights_never_lose_to_a_component(rows: list[list[float]]) -> None:
    nll = torch.tensor(rows, dtype=torch.float64)
    weights = fit_weights(nll)
    assert sum(weights) == pytest.approx(1)
    mixed = float(mixture_nll(nll, weights).mean())
    assert math.isfinite(mixed)
    # Each round of EM gains at most what the tolerance allows to be missed in the slow tail.
    assert mixed <= float(nll.mean(dim=1).min()) + 0.05


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        Mixture([])
    with pytest.raises(ConfigError, match="vocabularies of"):
        Mixture([ngram(2), NGramModel(5)])
    with pytest.raises(ConfigError, match="stupid_backoff"):
        Mixture([NGramModel(5, smoothing="stupid_backoff")])
    for weights in ([0.5], [0.7, 0.7], [1.5, -0.5], [math.nan, 1.0]):
        with pytest.raises(ConfigError, match="weights="):
            Mixture([ngram(2), ngram(3)], weights)
    for nll in (torch.zeros(3), torch.zeros(2, 0), torch.tensor([[math.inf]])):
        with pytest.raises(ConfigError, match="nll of shape"):
            fit_weights(nll)
