"""The recurrent families against their equations, written out by hand in float64."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from torch_linguist.errors import LinguistError
from torch_linguist.model import GRU, LSTM, RNN, LanguageModel

ModelBuilder = Callable[..., LanguageModel]
Array = NDArray[np.float64]
H, V = 16, 50


def sigmoid(value: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-value)), dtype=np.float64)


def weights(model: LanguageModel, name: str) -> Array:
    return np.asarray(model.state_dict()[name].double().numpy())


def step(
    family: str, model: LanguageModel, layer: int, below: Array, hidden: Array, cell: Array
) -> tuple[Array, Array]:
    """One time step of one layer (Hochreiter & Schmidhuber 1997; Cho et al. 2014; Elman 1990)."""
    prefix = f"layers.{layer}."
    inward = weights(model, prefix + "weight_ih_l0") @ below + weights(model, prefix + "bias_ih_l0")
    back = weights(model, prefix + "weight_hh_l0") @ hidden + weights(model, prefix + "bias_hh_l0")
    if family == "lstm":
        gate_in, forget, candidate, gate_out = (inward + back).reshape(4, H)
        cell = sigmoid(forget) * cell + sigmoid(gate_in) * np.tanh(candidate)
        return sigmoid(gate_out) * np.tanh(cell), cell
    if family == "gru":
        (reset, update, new), (reset_back, update_back, new_back) = inward.reshape(3, H), back.reshape(3, H)
        kept = sigmoid(update + update_back)
        candidate = np.tanh(new + sigmoid(reset + reset_back) * new_back)
        return (1 - kept) * candidate + kept * hidden, cell
    total = inward + back
    return (np.maximum(total, 0) if family == "relu" else np.tanh(total)), cell


@pytest.mark.parametrize("family", ["rnn", "relu", "lstm", "gru"])
def test_log_probabilities_follow_the_equations(family: str, build_model: ModelBuilder) -> None:
    options = {"nonlinearity": "relu"} if family == "relu" else {}
    model = build_model("rnn" if family == "relu" else family, V, projection_size=12, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    hidden, cell = np.zeros((2, H)), np.zeros((2, H))
    expected = []
    for token in tokens:
        features = weights(model, "embedding.weight")[token]
        for layer in range(2):
            hidden[layer], cell[layer] = step(family, model, layer, features, hidden[layer], cell[layer])
            features = hidden[layer]
        logits = weights(model, "output.weight") @ (weights(model, "projection.weight") @ features)
        logits = logits + weights(model, "output.bias")
        expected.append(logits - np.log(np.exp(logits).sum()))
    with torch.no_grad():
        logits, state = model(torch.tensor([tokens]), model.initial_state(1))
    np.testing.assert_allclose(torch.log_softmax(logits, -1)[0].numpy(), np.stack(expected), atol=3e-5)
    np.testing.assert_allclose(state[0][:, 0].numpy(), hidden, atol=1e-5)
    if family == "lstm":
        np.testing.assert_allclose(state[1][:, 0].numpy(), cell, atol=1e-5)


def test_an_untrained_lstm_remembers() -> None:
    model = LSTM(V, 8, H, dropout=0.0)
    for name, parameter in model.layers.named_parameters():
        if "bias_ih" in name:
            expected = torch.zeros(4 * H)
            expected[H : 2 * H] = 1.0
            torch.testing.assert_close(parameter.detach(), expected)
        elif "bias" in name:
            assert not parameter.any()


@pytest.mark.parametrize(("cls", "gates"), [(RNN, 1), (GRU, 3), (LSTM, 4)])
def test_recurrent_weights_start_orthogonal(cls: type[LanguageModel], gates: int) -> None:
    model = cls(V, 8, H, 2)
    found = [parameter for name, parameter in model.named_parameters() if "weight_hh" in name]
    assert len(found) == 2
    for parameter in found:
        for gate in parameter.detach().chunk(gates):
            torch.testing.assert_close(gate @ gate.T, torch.eye(H), atol=1e-5, rtol=0)


def test_a_relu_network_starts_at_the_identity() -> None:
    model = RNN(V, 8, H, nonlinearity="relu")
    torch.testing.assert_close(model.state_dict()["layers.0.weight_hh_l0"], torch.eye(H))


@pytest.mark.parametrize("build", [LSTM, GRU, RNN, partial(RNN, nonlinearity="relu")])
def test_weight_dropout_masks_the_recurrent_weights_alone(build: ModelBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(V, 8, H, 2, dropout=0.0, weight_dropout=0.5, output="full")
    masked = build(V, 8, H, 2, dropout=0.0, output="full")
    masked.load_state_dict(model.state_dict())
    masks: list[torch.Tensor] = []

    def dropout(weight: torch.Tensor, p: float, training: bool) -> torch.Tensor:
        assert training
        masks.append(torch.rand_like(weight).gt(p) / (1 - p))
        return weight * masks[-1]

    monkeypatch.setattr("torch_linguist.model.recurrent_base.dropout", dropout)
    tokens, targets = torch.randint(V, (3, 7)), torch.randint(V, (3, 7))
    loss, _ = model.nll(tokens, targets, model.initial_state(3))
    loss.sum().backward()  # type: ignore[no-untyped-call]
    for layer, mask in enumerate(masks):
        masked.get_parameter(f"layers.{layer}.weight_hh_l0").data *= mask
    expected, _ = masked.nll(tokens, targets, masked.initial_state(3))
    torch.testing.assert_close(loss, expected)
    expected.sum().backward()  # type: ignore[no-untyped-call]
    assert len(masks) == 2
    for name, parameter in model.named_parameters():
        gradient = masked.get_parameter(name).grad
        assert gradient is not None
        if "weight_hh" in name:
            gradient = gradient * masks[int(name.split(".")[1])]
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("build", [LSTM, GRU, RNN])
def test_weight_dropout_is_off_outside_training(build: ModelBuilder) -> None:
    model = build(V, 8, H, weight_dropout=0.5)
    tokens = torch.randint(V, (2, 5))
    training = [model(tokens, model.initial_state(2))[0] for _ in range(2)]
    assert not torch.equal(*training)
    model.eval()
    first, second = (model(tokens, model.initial_state(2))[0] for _ in range(2))
    assert torch.equal(first, second)
    scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted(tokens, model.initial_state(2))[0], first)


@pytest.mark.parametrize("build", [LSTM, GRU, RNN])
def test_disabling_dropout_disables_weight_dropout(build: ModelBuilder) -> None:
    model = build(V, 8, H, dropout=0.5, weight_dropout=0.5).train()
    model.disable_dropout()
    tokens = torch.randint(V, (2, 5))
    assert torch.equal(*(model(tokens, model.initial_state(2))[0] for _ in range(2)))


def test_weight_dropout_out_of_range() -> None:
    with pytest.raises(LinguistError, match=r"model\.weight_dropout=1"):
        LSTM(V, weight_dropout=1.0)


@pytest.mark.parametrize("cls", [RNN, LSTM, GRU])
def test_tied_weights_bring_the_projection_they_need(cls: type[LanguageModel]) -> None:
    shapes = {
        hidden_size: cls(V, embedding_dim=8, hidden_size=hidden_size, tied=True).state_dict().get("projection.weight")
        for hidden_size in (8, 12)
    }
    assert shapes[8] is None
    assert shapes[12] is not None
    assert tuple(shapes[12].shape) == (8, 12)
    untied = cls(V, embedding_dim=8, hidden_size=12, tied=False)
    assert "projection.weight" not in untied.state_dict()
