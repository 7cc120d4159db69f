"""The contract that all neural families obey, whatever their options."""

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torch_linguist.errors import LinguistError
from torch_linguist.model import GRU, LSTM, RNN, LanguageModel, Transformer

FAMILIES = ("rnn", "lstm", "gru", "transformer")
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "tied": {"tied": True},
    "adaptive": {"output": "adaptive", "cutoffs": [10, 25]},
    "tied-adaptive": {"tied": True, "output": "adaptive", "cutoffs": [10, 25]},
    "tied-sampled": {"tied": True, "output": "sampled", "cutoffs": [10]},
    "one-layer": {"num_layers": 1},
}
RECURRENT: dict[str, dict[str, Any]] = {
    "projection": {"hidden_size": 24, "projection_size": 12},
    "tied-projection": {"hidden_size": 24, "projection_size": 16, "tied": True, "output": "adaptive", "cutoffs": [20]},
}
CASES = [(family, name) for family in FAMILIES for name in VARIANTS]
CASES += [(family, name) for family in FAMILIES[:3] for name in RECURRENT]
CASES += [("rnn", "relu"), ("transformer", "gelu")]
EXTRA: dict[str, dict[str, Any]] = {"relu": {"nonlinearity": "relu"}, "gelu": {"activation": "gelu"}}
V = 50

ModelBuilder = Callable[..., LanguageModel]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def model(request: pytest.FixtureRequest, build_model: ModelBuilder) -> LanguageModel:
    family, name = request.param
    made = build_model(family, V, **(VARIANTS | RECURRENT | EXTRA)[name])
    made.prepare_vocabulary(torch.arange(V) % 7)
    # Larger weights than at the start of training, so that a mistake shows (but no gain above one without a bound).
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.0 if name == "relu" else 2.0)
    return made


def ids(batch_size: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(V, (batch_size, length), generator=torch.Generator().manual_seed(seed))


def log_probabilities(model: LanguageModel, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(tokens, model.initial_state(len(tokens)))[0], -1)


@settings(max_examples=8, deadline=None)
@given(cuts=st.sets(st.integers(1, 29), max_size=6), batch_size=st.integers(1, 3))
def check_cuts(model: LanguageModel, cuts: set[int], batch_size: int) -> None:
    tokens = ids(batch_size, 30)
    whole = log_probabilities(model, tokens)
    state, parts = model.initial_state(batch_size), []
    edges = [0, *sorted(cuts), 30]
    with torch.no_grad():
        for begin, end in itertools.pairwise(edges):
            logits, state = model(tokens[:, begin:end], state)
            parts.append(torch.log_softmax(logits, -1))
    assert [tensor.shape[1] for tensor in state] == [batch_size] * len(state)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-12, rtol=0)


def test_a_carried_state_gives_what_one_long_pass_gives(model: LanguageModel) -> None:
    # In float64, where a difference is an error and not rounding.
    check_cuts(copy.deepcopy(model).double())


def test_nll_is_the_cross_entropy_of_the_logits(model: LanguageModel) -> None:
    tokens, targets = ids(3, 11), ids(3, 11, seed=1)
    logits, state = model(tokens, model.initial_state(3))
    nll, other_state = model.nll(tokens, targets, model.initial_state(3))
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(3, 11)
    torch.testing.assert_close(nll, expected, atol=1e-5, rtol=0)
    for one, other in zip(state, other_state, strict=True):
        torch.testing.assert_close(one, other)


def test_nll_has_the_gradients_of_the_cross_entropy(model: LanguageModel) -> None:
    model.double()
    tokens, targets = ids(3, 11), ids(3, 11, seed=1)

    def gradients(loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        return [torch.zeros(()) if one is None else one for one in found]

    logits = model(tokens, model.initial_state(3))[0]
    expected = gradients(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
    measured = gradients(model.nll(tokens, targets, model.initial_state(3))[0].sum())
    for one, other in zip(measured, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_probabilities_sum_to_one_in_float64(model: LanguageModel) -> None:
    double = model.double()
    logits = double(ids(2, 12), double.initial_state(2))[0]
    # The adaptive softmax gives normalized logits by itself; so only its own sum is a test of it.
    if "adaptive" in str(type(double.output)).lower():
        assert logits.dtype == torch.float64
        torch.testing.assert_close(logits.exp().sum(-1), torch.ones(2, 12, dtype=torch.float64), atol=1e-12, rtol=0)
    nll = torch.stack([double.nll(ids(2, 12), torch.full((2, 12), v), double.initial_state(2))[0] for v in range(V)])
    assert nll.dtype == torch.float64
    torch.testing.assert_close((-nll).exp().sum(0), torch.ones(2, 12, dtype=torch.float64), atol=1e-12, rtol=0)


def test_rows_of_a_batch_do_not_know_each_other(model: LanguageModel) -> None:
    tokens = ids(4, 12)
    together = log_probabilities(model, tokens)
    for row in range(4):
        alone = log_probabilities(model, tokens[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)
    changed = tokens.clone()
    changed[1] = (changed[1] + 1) % V
    torch.testing.assert_close(log_probabilities(model, changed)[[0, 2, 3]], together[[0, 2, 3]], atol=1e-6, rtol=0)


@pytest.mark.parametrize("position", [0, 7, 13])
def test_a_later_token_never_changes_an_earlier_prediction(model: LanguageModel, position: int) -> None:
    tokens = ids(2, 14)
    changed = tokens.clone()
    changed[:, position] = (changed[:, position] + 3) % V
    before, after = log_probabilities(model, tokens), log_probabilities(model, changed)
    torch.testing.assert_close(after[:, :position], before[:, :position], atol=0, rtol=0)
    assert (after[:, position] - before[:, position]).abs().max() > 1e-4


def test_scripted_equals_eager(model: LanguageModel) -> None:
    scripted = torch.jit.script(model)
    for batch_size, length in ((1, 1), (3, 5), (2, 20)):
        state, scripted_state = model.initial_state(batch_size), model.initial_state(batch_size)
        for call in range(3):
            tokens = ids(batch_size, length, seed=call)
            with torch.no_grad():
                logits, state = model(tokens, state)
                other, scripted_state = scripted(tokens, scripted_state)
            torch.testing.assert_close(other, logits, atol=1e-6, rtol=0)


def test_recorded_arguments_build_the_same_model_again(model: LanguageModel) -> None:
    again = type(model)(**model.arguments)
    again.load_state_dict(model.state_dict())
    assert again.num_parameters() == model.num_parameters()
    torch.testing.assert_close(
        log_probabilities(again.eval(), ids(2, 9)), log_probabilities(model, ids(2, 9)), atol=0, rtol=0
    )


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_an_untrained_model_knows_next_to_nothing(case: tuple[str, str], build_model: ModelBuilder) -> None:
    model = build_model(case[0], V, **(VARIANTS | RECURRENT | EXTRA)[case[1]])
    with torch.no_grad():
        nll = model.nll(ids(8, 20), ids(8, 20, seed=1), model.initial_state(8))[0]
    assert float(nll.mean()) == pytest.approx(math.log(V), rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tied_weight_is_one_parameter(family: str, build_model: ModelBuilder) -> None:
    tied, untied = build_model(family, V, tied=True), build_model(family, V)
    assert untied.num_parameters() - tied.num_parameters() == V * 16


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_acts_in_training_alone(family: str, build_model: ModelBuilder) -> None:
    model = build_model(family, V, dropout=0.5)
    tokens = ids(2, 10)
    torch.testing.assert_close(log_probabilities(model, tokens), log_probabilities(model, tokens), atol=0, rtol=0)
    model.train()
    assert not torch.equal(log_probabilities(model, tokens), log_probabilities(model, tokens))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vocabulary_of_one_token_is_certain(family: str, build_model: ModelBuilder) -> None:
    model = build_model(family, 1, output="adaptive")
    tokens = torch.zeros(2, 5, dtype=torch.int64)
    nll = model.nll(tokens, tokens, model.initial_state(2))[0]
    torch.testing.assert_close(nll, torch.zeros(2, 5))


WRONG: list[tuple[type[LanguageModel], dict[str, Any], str]] = [
    *[(cls, {"vocab_size": 0}, "vocab_size=0") for cls in (RNN, LSTM, GRU, Transformer)],
    *[(cls, {"vocab_size": 9, "embedding_dim": 0}, "model.embedding_dim=0") for cls in (RNN, LSTM, GRU, Transformer)],
    *[(cls, {"vocab_size": 9, "num_layers": -1}, "model.num_layers=-1") for cls in (RNN, LSTM, GRU, Transformer)],
    *[(cls, {"vocab_size": 9, "dropout": 1.0}, "model.dropout=1.0") for cls in (RNN, LSTM, GRU, Transformer)],
    *[(cls, {"vocab_size": 9, "output": "ful"}, "model.output=ful") for cls in (RNN, LSTM, GRU, Transformer)],
    *[
        (cls, {"vocab_size": 9, "output": "adaptive", "cutoffs": cutoffs}, "model.cutoffs=")
        for cls in (RNN, LSTM, GRU, Transformer)
        for cutoffs in ([5, 5], [9])
    ],
    *[(cls, {"vocab_size": 9, "cutoffs": [5, 5]}, "model.cutoffs=") for cls in (RNN, LSTM, GRU, Transformer)],
    *[(cls, {"vocab_size": 9, "hidden_size": 0}, "model.hidden_size=0") for cls in (RNN, LSTM, GRU)],
    *[(cls, {"vocab_size": 9, "projection_size": 0}, "model.projection_size=0") for cls in (RNN, LSTM, GRU)],
    *[(cls, {"vocab_size": 9, "tied": True, "projection_size": 6}, "model.tied=true") for cls in (RNN, LSTM, GRU)],
    (RNN, {"vocab_size": 9, "nonlinearity": "elu"}, "model.nonlinearity=elu"),
    (Transformer, {"vocab_size": 9, "num_heads": 0}, "model.num_heads=0"),
    (Transformer, {"vocab_size": 9, "embedding_dim": 12, "num_heads": 4}, "model.num_heads=4: .*embedding_dim=12 .*"),
    (Transformer, {"vocab_size": 9, "embedding_dim": 10, "num_heads": 3}, "model.num_heads=3"),
    (Transformer, {"vocab_size": 9, "context_length": 0}, "model.context_length=0"),
    (Transformer, {"vocab_size": 9, "feed_forward_size": 0}, "model.feed_forward_size=0"),
    (Transformer, {"vocab_size": 9, "activation": "relu"}, "model.activation=relu"),
]


@pytest.mark.parametrize(("cls", "arguments", "names"), WRONG)
def test_a_wrong_argument_is_named_in_one_line(cls: Any, arguments: dict[str, Any], names: str) -> None:
    if "vocab_size" in arguments and "embedding_dim" not in arguments:
        arguments = {"embedding_dim": 8, **arguments}
        if cls is not Transformer:
            arguments = {"hidden_size": 6, **arguments}
    with pytest.raises(LinguistError, match=names) as caught:
        cls(**arguments)
    assert "\n" not in str(caught.value)
