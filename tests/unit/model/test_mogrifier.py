"""The Mogrifier LSTM against its equations, written out in float64, and through everything that runs a model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from torch_linguist.errors import LinguistError
from torch_linguist.export.graph_tracing import traceable_specification
from torch_linguist.model import LSTM, LanguageModel

ModelBuilder = Callable[..., LanguageModel]
V = 50
CASES: list[dict[str, Any]] = [
    {"mogrifier_rounds": 1},
    {"mogrifier_rounds": 5, "mogrifier_rank": 3},
    {"mogrifier_rounds": 4, "capped_input_gate": True},
    {"capped_input_gate": True},
]


def reference(model: LanguageModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities [T, V] and the cells [L, H] at the end, of one text."""
    weights = {name: weight.detach() for name, weight in model.state_dict().items()}
    arguments = model.arguments
    layers, size = arguments["num_layers"], arguments["hidden_size"]
    hidden, cell = torch.zeros(layers, size).double(), torch.zeros(layers, size).double()
    found = []
    for token in tokens:
        below = weights["embedding.weight"][token]
        for layer in range(layers):
            own = {name.removeprefix(f"layers.{layer}."): weight for name, weight in weights.items()}
            above = hidden[layer]
            for turn in range(arguments["mogrifier_rounds"]):
                source = above if turn % 2 == 0 else below
                outer = f"rounds.{turn}." if arguments["mogrifier_rank"] is None else f"rounds.{turn}.1."
                matrix, bias = own[outer + "weight"], own[outer + "bias"]
                if arguments["mogrifier_rank"] is not None:
                    matrix = matrix @ own[f"rounds.{turn}.0.weight"]
                factor = 2 / (1 + torch.exp(-(matrix @ source + bias)))
                if turn % 2 == 0:
                    below = below * factor
                else:
                    above = above * factor
            gates = own["weight_ih_l0"] @ below + own["bias_ih_l0"] + own["weight_hh_l0"] @ above + own["bias_hh_l0"]
            entry, forget, candidate, output = gates.view(4, size)
            entry, forget = 1 / (1 + torch.exp(-entry)), 1 / (1 + torch.exp(-forget))
            if arguments["capped_input_gate"]:
                entry = torch.where(entry > 1 - forget, 1 - forget, entry)
            cell[layer] = forget * cell[layer] + entry * torch.tanh(candidate)
            hidden[layer] = torch.tanh(cell[layer]) / (1 + torch.exp(-output))
            below = hidden[layer]
        found.append(weights["output.weight"] @ below + weights["output.bias"])
    return torch.log_softmax(torch.stack(found), -1), cell


@pytest.fixture(params=CASES, ids=str)
def model(request: pytest.FixtureRequest, build_model: ModelBuilder) -> LanguageModel:
    made = build_model("lstm", V, output="full", **request.param).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    return made


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_follows_its_equations_in_chunks_and_scripted(model: LanguageModel) -> None:
    tokens = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 0])
    expected, cell = reference(model, tokens)
    for network in (model, torch.jit.script(model)):
        state, parts = model.initial_state(1), []
        with torch.no_grad():
            for chunk in torch.split(tokens, [4, 1, 4]):
                logits, state = network(chunk[None], state)
                parts.append(torch.log_softmax(logits[0], -1))
        torch.testing.assert_close(torch.cat(parts), expected, atol=1e-10, rtol=0)
        torch.testing.assert_close(state[1][:, 0], cell, atol=1e-10, rtol=0)
    if model.arguments["capped_input_gate"]:
        assert cell.abs().max() <= 1


def test_every_weight_has_the_gradient_of_finite_differences(model: LanguageModel) -> None:
    tokens, targets = torch.randint(V, (2, 2, 5), generator=torch.Generator().manual_seed(2))
    model.nll(tokens, targets, model.initial_state(2))[0].sum().backward()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        assert parameter.grad is not None
        index = int(parameter.grad.abs().argmax())
        losses = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.view(-1)[index] += step
                losses.append(float(model.nll(tokens, targets, model.initial_state(2))[0].sum()))
                parameter.view(-1)[index] -= step
        slope = (losses[0] - losses[1]) / 2e-6
        assert float(parameter.grad.view(-1)[index]) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_weight_dropout_reaches_the_loop() -> None:
    model = LSTM(V, 8, 16, dropout=0.0, weight_dropout=0.5, mogrifier_rounds=2)
    tokens = torch.randint(V, (2, 5))
    first, second = (model(tokens, model.initial_state(2))[0] for _ in range(2))
    assert not torch.equal(first, second)
    assert {count for _, count in model.hidden_matrices()} == {1, 4}


def test_what_has_no_form_of_it_says_so(model: LanguageModel) -> None:
    with pytest.raises(LinguistError, match="--onnx: a LSTM is no graph of tensor operations; use --jit"):
        traceable_specification(model, "--onnx")
    with pytest.raises(LinguistError, match="--quantize: has no form of"):
        model.quantized()


def test_wrong_values_are_named() -> None:
    with pytest.raises(LinguistError, match=r"model\.mogrifier_rounds=-1: must be at least 0"):
        LSTM(V, mogrifier_rounds=-1)
    with pytest.raises(LinguistError, match=r"model\.mogrifier_rank=0: must be null or at least 1"):
        LSTM(V, mogrifier_rounds=2, mogrifier_rank=0)
