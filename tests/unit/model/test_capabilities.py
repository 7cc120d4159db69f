"""What consumers ask of any model: defaults that suit a model without the capability, and what the families answer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.model import LSTM, LanguageModel, NGramModel

ModelBuilder = Callable[..., LanguageModel]
TOKENS = torch.tensor([[1, 2, 3]])


def test_a_model_without_capabilities_says_so() -> None:
    model = NGramModel(9, 3)
    assert (model.is_counted, model.has_hidden, model.has_attention, model.history_length) == (True, False, False, 2)
    assert model.input_embedding is None
    assert model.attention_weights(TOKENS[0]) is None
    assert model.undecayed_parameters() == []
    assert not model.export_specification().traceable
    model.set_training_loss(0.0, 0.0)
    with pytest.raises(ConfigError, match=r"trainer\.z_loss=0\.1: needs model\.output=full"):
        model.set_training_loss(0.0, 0.1)
    for call in (
        lambda: model.hidden(TOKENS, []),
        lambda: model.last_hidden(TOKENS, [], 1),
        lambda: model.hidden_nll(torch.zeros(1, 1, 4), TOKENS[:, :1]),
    ):
        with pytest.raises(LinguistError, match="a NGramModel has no hidden vectors"):
            call()
    with pytest.raises(LinguistError, match="a NGramModel has no embedding"):
        model.start_embedding(torch.zeros(9, 2))
    with pytest.raises(LinguistError, match="--quantize: a NGramModel"):
        model.quantized()


@pytest.mark.parametrize("family", ["rnn", "lstm", "gru", "transformer"])
def test_neural_families_give_their_hidden_vectors(family: str, build_model: ModelBuilder) -> None:
    model = build_model(family)
    assert model.has_hidden
    assert not model.is_counted
    assert model.history_length is None
    assert model.input_embedding is not None
    specification = model.export_specification()
    assert specification.traceable
    assert (specification.recurrent_kernel or "transformer") == family
    with pytest.raises(LinguistError, match="trained by gradients"):
        model.fit_counts(TOKENS[0].numpy(), 0)
    with torch.no_grad():
        hidden, _ = model.hidden(TOKENS, model.initial_state(1))
        expected, _ = model.nll(TOKENS, TOKENS, model.initial_state(1))
        torch.testing.assert_close(model.hidden_nll(hidden, TOKENS), expected)


def test_a_loss_of_its_own_is_not_bypassed() -> None:
    class Doubled(LSTM):
        def nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            nll, state = super().nll(tokens, targets, state)
            return 2 * nll, state

    assert LSTM.has_hidden
    assert not Doubled.has_hidden


@pytest.mark.parametrize(
    ("output", "tied", "tables"), [("adaptive", False, 1), ("sampled", True, 2), ("sampled", False, 2)]
)
def test_sparse_gradients_are_chosen_table_by_table(
    output: str, tied: bool, tables: int, build_model: ModelBuilder
) -> None:
    model = build_model("lstm", tied=tied, output=output, cutoffs=[10])
    asked: list[Tensor] = []

    def enabled(weight: torch.nn.Parameter) -> bool:
        asked.append(weight)
        return True

    model.use_sparse_gradients(enabled)
    assert len(asked) == tables
    assert len({id(weight) for weight in asked}) == (1 if tied or output == "adaptive" else 2)
    model.train()
    nll, _ = model.nll(TOKENS, TOKENS, model.initial_state(1))
    nll.sum().backward()  # type: ignore[no-untyped-call]
    gradient = model.get_parameter("embedding.weight").grad
    assert gradient is not None
    assert gradient.is_sparse
