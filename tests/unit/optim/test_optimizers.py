"""Which weights decay, and what an optimizer is built with."""

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel
from torch_linguist.optim.optimizers import build_optimizer, parameter_groups, set_learning_rate

ModelBuilder = Callable[..., LanguageModel]


def names_of(model: nn.Module, group: dict[str, Any]) -> set[str]:
    wanted = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in wanted}


@pytest.mark.parametrize("output", ["full", "adaptive"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["rnn", "lstm", "gru", "transformer"])
def test_embeddings_norms_and_biases_do_not_decay(
    family: str, tied: bool, output: str, build_model: ModelBuilder
) -> None:
    model = build_model(family, 50, tied=tied, output=output, cutoffs=[20])
    decaying, others = parameter_groups(model, 0.3)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    expected = {
        name
        for name, parameter in model.named_parameters()
        if "bias" in name or "norm" in name or name == "embedding.weight"
    }
    assert names_of(model, others) == expected
    assert names_of(model, decaying) == {name for name, _ in model.named_parameters()} - expected
    # A tied weight has two names and one place.
    every = [id(parameter) for group in (decaying, others) for parameter in group["params"]]
    assert len(every) == len(set(every)) == len(list(model.parameters()))


@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_decay_if_asked_and_biases_do_not(tied: bool, build_model: ModelBuilder) -> None:
    model = build_model("lstm", embedding_dim=8, hidden_size=8, tied=tied)
    decaying, others = parameter_groups(model, 0.1, decay_embeddings=True)
    assert names_of(model, others) == {name for name, weight in model.named_parameters() if weight.dim() == 1}
    assert "embedding.weight" in names_of(model, decaying)


def test_decay_all_and_frozen_weights(build_model: ModelBuilder) -> None:
    model = build_model("lstm")
    model.embedding.requires_grad_(False)
    (group,) = parameter_groups(model, 0.1, decay_all=True)
    assert names_of(model, group) == {name for name, _ in model.named_parameters()} - {"embedding.weight"}


@pytest.mark.parametrize("factory", [torch.optim.AdamW, functools.partial(torch.optim.SGD, momentum=0.9)])
def test_an_optimizer_takes_one_step_like_its_formula(factory: Any, build_model: ModelBuilder) -> None:
    model = build_model("lstm", 20, num_layers=1)
    optimizer = build_optimizer(model, factory, lr=0.1, weight_decay=0.5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    optimizer.step()
    for name, parameter in model.named_parameters():
        decays = "bias" not in name and name != "embedding.weight"
        if factory is torch.optim.AdamW:  # Decoupled decay; the first step of Adam is the sign of the gradient.
            expected = before[name] * (1 - 0.1 * 0.5 * decays) - 0.1
        else:
            expected = before[name] - 0.1 * (2.0 + 0.5 * decays * before[name])
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-6, rtol=1e-6)


def test_the_learning_rate_is_set_in_every_group(build_model: ModelBuilder) -> None:
    optimizer = build_optimizer(build_model("gru"), torch.optim.AdamW, 0.1, 0.0)
    set_learning_rate(optimizer, 0.025)
    assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.025]


@pytest.mark.parametrize(
    ("lr", "decay", "names"),
    [(-1.0, 0.0, "optim.lr=-1.0"), (0.0, 0.0, "optim.lr=0.0"), (math.nan, 0.0, "optim.lr=nan"),
     (1.0, -0.1, "optim.weight_decay=-0.1")],
)  # fmt: skip
def test_wrong_values_are_named(lr: float, decay: float, names: str, build_model: ModelBuilder) -> None:
    with pytest.raises(ConfigError, match=names):
        build_optimizer(build_model("rnn"), torch.optim.AdamW, lr, decay)


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_lower_layers_learn_more_slowly(family: str, build_model: ModelBuilder) -> None:
    model = build_model(family, 50, num_layers=2, tied=False)
    optimizer = build_optimizer(model, torch.optim.SGD, 0.4, 0.1, layer_decay=0.5)
    set_learning_rate(optimizer, 0.8)
    rate_of = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    assert len(rate_of) == len(list(model.parameters()))
    embedding, first, second, top = model.layer_groups()
    for layer, rate in ((top, 0.8), (second, 0.4), (first, 0.2), (embedding, 0.1)):
        assert {rate_of[id(weight)] for weight in layer} == {rate}
    assert optimizer.param_groups[0]["lr"] == 0.8
    with pytest.raises(ConfigError, match=r"optim\.layer_decay=0"):
        build_optimizer(model, torch.optim.SGD, 0.4, 0.1, layer_decay=0)
