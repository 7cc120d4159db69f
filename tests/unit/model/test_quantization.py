"""8-bit models: against the float model, and the same whatever else is in the batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from torch_linguist.model import LanguageModel
from torch_linguist.model.quantization import Int8GRU, Int8Linear, Int8LSTM, Int8RNN, quantize_rows

ModelBuilder = Callable[..., LanguageModel]
ADAPTIVE: dict[str, Any] = {"output": "adaptive", "cutoffs": [10, 20]}
CASES = [
    ("rnn", {"nonlinearity": "relu"}),
    ("lstm", {**ADAPTIVE, "tied": True}),
    ("gru", {"projection_size": 12}),
    ("transformer", ADAPTIVE),
    ("transformer", {"output": "sampled", "activation": "gelu"}),
]
pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_gradients() -> Any:
    with torch.no_grad():
        yield


def trained(build_model: ModelBuilder, family: str, **options: Any) -> LanguageModel:
    """A model whose activations differ in length as those of a trained one do."""
    model = build_model(family, 50, **options)
    generator = torch.Generator().manual_seed(3)
    model.get_parameter("embedding.weight").mul_(torch.rand(50, 1, generator=generator).mul(6).exp() / 20)
    return model


def log_probabilities(model: nn.Module, tokens: torch.Tensor, *, chunks: int = 1) -> torch.Tensor:
    state = model.initial_state(len(tokens))  # type: ignore[operator]
    parts = []
    for part in tokens.chunk(chunks, dim=1):
        logits, state = model(part, state)
        parts.append(torch.log_softmax(logits, -1))
    return torch.cat(parts, dim=1)


def test_rows_are_rounded_to_the_nearest_of_255_values() -> None:
    values = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [1e-6, 4e-7, -1e-6]])
    rows, scale = quantize_rows(values)
    assert rows.tolist() == [[64, -127, 32], [0, 0, 0], [127, 51, -127]]
    assert ((rows * scale - values).abs() <= scale / 2 + 1e-12).all()


def test_a_linear_layer_multiplies_the_rounded_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(7, 24, generator=generator), torch.randn(7, generator=generator)
    layer = Int8Linear(weight, bias)
    # Neither contiguous nor two-dimensional.
    features = torch.randn(24, 3, 5, generator=generator).permute(2, 1, 0)
    rows, scale = quantize_rows(features.reshape(15, 24))
    expected = (rows.double() * scale) @ (layer.weight.double() * layer.scale[:, None]).T + bias
    torch.testing.assert_close(layer(features).reshape(15, 7).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "quantized"), [(nn.LSTM, Int8LSTM), (nn.GRU, Int8GRU), (nn.RNN, Int8RNN)])
def test_recurrent_layers_follow_their_equations(kind: Any, quantized: Any) -> None:
    layer = kind(6, 8)
    small = quantized(layer)
    for part, name in ((small.from_input, "ih"), (small.from_hidden, "hh")):
        part.weight = part.weight.double()
        # The layer with the rounded weights, so that only the activations are rounded.
        layer.get_parameter(f"weight_{name}_l0").copy_(part.weight * part.scale[:, None])
        part.weight = part.weight.to(torch.int8)
    features, start = torch.randn(11, 3, 6), torch.randn(1, 3, 8) * 0.5
    past = (start, start.flip(2)) if kind is nn.LSTM else start
    expected, last = layer(features, past)
    found, ending = small(features, past)
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)
    pairs = zip(ending, last, strict=True) if kind is nn.LSTM else [(ending, last)]
    for one, other in pairs:
        torch.testing.assert_close(one, other, atol=0.03, rtol=0)


@pytest.mark.parametrize(("family", "options"), CASES)
def test_the_logits_stay_near_those_of_the_model(
    family: str, options: dict[str, Any], build_model: ModelBuilder
) -> None:
    model = build_model(family, 50, **options)
    tokens = torch.randint(50, (2, 6), generator=torch.Generator().manual_seed(1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found, expected = log_probabilities(model.quantized(), tokens), log_probabilities(model, tokens)
    assert 0 < (found - expected).abs().max() < 0.1
    torch.testing.assert_close(torch.logsumexp(found, -1), torch.zeros(2, 6), atol=1e-5, rtol=0)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(("family", "options"), CASES)
def test_neighbors_and_chunks_change_nothing(family: str, options: dict[str, Any], build_model: ModelBuilder) -> None:
    quantized = trained(build_model, family, **options).quantized()
    tokens = torch.randint(50, (5, 12), generator=torch.Generator().manual_seed(2))
    together = log_probabilities(quantized, tokens)
    alone = torch.cat([log_probabilities(quantized, row[None]) for row in tokens])
    chunked = log_probabilities(quantized, tokens.T.contiguous().T, chunks=4)
    # The attention's own sums may differ in their last digit, and a rounded number by one.
    tolerance = 5e-3 if family == "transformer" else 1e-6
    torch.testing.assert_close(alone, together, atol=tolerance, rtol=0)
    torch.testing.assert_close(chunked, together, atol=tolerance, rtol=0)
