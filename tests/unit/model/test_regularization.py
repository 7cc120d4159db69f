"""Embedding dropout by words, and the penalties on activations, against their definitions."""

from collections.abc import Callable

import pytest
import torch

from torch_linguist.errors import LinguistError
from torch_linguist.model import LanguageModel, recurrent_base
from torch_linguist.model.dropout import WordDropout

ModelBuilder = Callable[..., LanguageModel]
V = 30


def test_a_dropped_word_is_dropped_wherever_it_occurs() -> None:
    torch.manual_seed(0)
    tokens = torch.arange(200).repeat(3).view(3, 200)
    dropped = WordDropout(0.25, 200).train()(torch.ones(3, 200, 4), tokens)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(dropped[0], dropped[1])
    assert torch.equal(dropped[..., :1].expand_as(dropped), dropped)
    assert 0.15 < float((dropped[0, :, 0] == 0).float().mean()) < 0.35


@pytest.mark.parametrize("family", ["rnn", "gru", "lstm"])
def test_regularization_is_off_outside_training(family: str, build_model: ModelBuilder) -> None:
    regularized = build_model(family, V, embedding_dropout=0.5, activation_penalty=2.0, temporal_penalty=1.0)
    plain = build_model(family, V)
    tokens = torch.randint(V, (2, 7))
    pairs = [model.nll(tokens, tokens, model.initial_state(2))[0] for model in (regularized, plain)]
    assert torch.equal(*pairs)
    logits = plain(tokens, plain.initial_state(2))[0]
    torch.testing.assert_close(torch.jit.script(regularized)(tokens, plain.initial_state(2))[0], logits)


def test_penalties_equal_their_definition(build_model: ModelBuilder) -> None:
    options = {"activation_penalty": 2.0, "temporal_penalty": 0.5}
    model, plain = build_model("lstm", V, **options).double().train(), build_model("lstm", V).double()
    tokens, targets = torch.randint(V, (3, 6)), torch.randint(V, (3, 6))
    nll, _ = model.nll(tokens, targets, model.initial_state(3))
    hidden, _ = plain.hidden(tokens, plain.initial_state(3))
    change = hidden[:, 1:] - hidden[:, :-1]
    expected = plain.nll(tokens, targets, plain.initial_state(3))[0].mean()
    expected = expected + 2.0 * (hidden**2).mean() + 0.5 * (change**2).mean()
    torch.testing.assert_close(nll.mean(), expected, rtol=1e-6, atol=1e-6)
    ours = torch.autograd.grad(nll.mean(), model.get_parameter("layers.0.weight_hh_l0"))
    theirs = torch.autograd.grad(expected, plain.get_parameter("layers.0.weight_hh_l0"))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    one, _ = model.nll(tokens[:, :1], targets[:, :1], model.initial_state(3))
    assert torch.isfinite(one).all()


def test_values_out_of_range_are_named(build_model: ModelBuilder) -> None:
    for name, value in (("embedding_dropout", 1.0), ("activation_penalty", -1.0), ("temporal_penalty", -0.5)):
        with pytest.raises(LinguistError, match=f"model.{name}={value}"):
            build_model("gru", V, **{name: value})


@pytest.mark.parametrize("weight_dropout", [0.0, 0.3])
@pytest.mark.parametrize("family", ["rnn", "gru", "lstm"])
def test_the_scale_of_gradients_in_float16_cancels(
    family: str, weight_dropout: float, build_model: ModelBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power of two moves the exponent alone; sums over time are rounded elsewhere if weights are passed on."""
    model = build_model(family, V, weight_dropout=weight_dropout, projection_size=12).train()
    tokens = torch.randint(V, (3, 8))
    found = []
    for devices in (("cpu",), ()):
        monkeypatch.setattr(recurrent_base, "HALF_DEVICES", devices)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            nll, _ = model.nll(tokens, tokens, model.initial_state(3))
        weights = list(model.parameters())
        found.append([nll, *torch.autograd.grad(nll.mean(), weights)])
    assert torch.equal(found[0][0], found[1][0])
    for scaled, plain in zip(*found, strict=True):
        assert float((scaled - plain).detach().norm()) <= 0.01 * float(plain.detach().norm())
    assert any(bool(gradient.any()) for gradient in found[0][1:])
