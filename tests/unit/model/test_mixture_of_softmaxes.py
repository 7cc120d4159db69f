"""The mixture of softmaxes against its definition, on every output layer."""

from collections.abc import Callable

import pytest
import torch

from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.model import LanguageModel

ModelBuilder = Callable[..., LanguageModel]
V = 40


def parts(build_model: ModelBuilder, family: str, output: str) -> tuple[LanguageModel, torch.Tensor, torch.Tensor]:
    model = build_model(family, V, output=output, cutoffs=[12] if output != "full" else None, num_softmaxes=3).double()
    tokens = torch.randint(V, (2, 8), generator=torch.Generator().manual_seed(0))
    return model, tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize("output", ["full", "adaptive", "sampled"])
@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_it_equals_the_definition(family: str, output: str, build_model: ModelBuilder) -> None:
    model, tokens, targets = parts(build_model, family, output)
    hidden, _ = model.hidden(tokens, model.initial_state(2))
    layer = model.get_submodule("output")
    prior = torch.softmax(hidden @ model.get_parameter("output.prior.weight").T, -1)
    bent = torch.tanh(
        hidden @ model.get_parameter("output.latent.weight").T + model.get_parameter("output.latent.bias")
    )
    components = [torch.softmax(layer.get_submodule("inner")(part), -1) for part in bent.chunk(3, -1)]
    expected = sum(prior[..., k : k + 1] * component for k, component in enumerate(components))
    logits, _ = model(tokens, model.initial_state(2))
    torch.testing.assert_close(torch.softmax(logits, -1), expected)
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(2, 7, dtype=torch.float64))
    nll, _ = model.nll(tokens, targets, model.initial_state(2))
    torch.testing.assert_close(nll, -logits.gather(-1, targets[..., None])[..., 0])


def test_gradients(build_model: ModelBuilder) -> None:
    model, tokens, targets = parts(build_model, "gru", "full")
    names = ["output.prior.weight", "output.latent.weight", "embedding.weight"]
    weights = [model.get_parameter(name) for name in names]
    by_loss = torch.autograd.grad(model.nll(tokens, targets, model.initial_state(2))[0].sum(), weights)
    logits, _ = model(tokens, model.initial_state(2))
    by_logits = torch.autograd.grad(-logits.gather(-1, targets[..., None]).sum(), weights)
    for one, other in zip(by_loss, by_logits, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_it_scripts_and_carries_its_state(family: str, build_model: ModelBuilder) -> None:
    model, tokens, _ = parts(build_model, family, "adaptive")
    whole, _ = model(tokens, model.initial_state(2))
    scripted = torch.jit.script(model)
    first, state = scripted(tokens[:, :3], model.initial_state(2))
    second, _ = scripted(tokens[:, 3:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)


def test_the_components_of_a_sampled_softmax_share_a_sample(build_model: ModelBuilder) -> None:
    model, tokens, targets = parts(build_model, "lstm", "sampled")
    model.train()
    torch.manual_seed(0)
    first, _ = model.nll(tokens, targets, model.initial_state(2))
    torch.manual_seed(0)
    assert torch.equal(first, model.nll(tokens, targets, model.initial_state(2))[0])
    exact = model.eval().nll(tokens, targets, model.initial_state(2))[0]
    assert abs(float((first.mean() - exact.mean()).detach())) < 0.3


def test_what_it_cannot_do_is_named(build_model: ModelBuilder) -> None:
    model = build_model("lstm", V, num_softmaxes=2)
    with pytest.raises(ConfigError, match=r"trainer\.label_smoothing=0\.1: needs model\.num_softmaxes=1"):
        model.set_training_loss(0.1, 0.0)
    with pytest.raises(LinguistError, match="num_softmaxes=2 cannot be quantized"):
        model.quantized()
    with pytest.raises(LinguistError, match="num_softmaxes=0: must be at least 1"):
        build_model("lstm", V, num_softmaxes=0)


def test_it_is_no_stock_architecture(build_model: ModelBuilder) -> None:
    model = build_model("transformer", V, activation="swiglu", output_bias=False, num_softmaxes=2)
    with pytest.raises(LinguistError, match="num_softmaxes=2"):
        model.stock_architecture()
