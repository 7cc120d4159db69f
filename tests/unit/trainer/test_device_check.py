"""`device=auto` trusts MPS only where a step there equals the CPU's; MPS is imitated on the CPU."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torch_linguist.data import TokenizedCorpus
from torch_linguist.model import RNN, LanguageModel
from torch_linguist.trainer import train
from torch_linguist.trainer.device import checked_device, step_agrees

MPS = torch.device("mps")


class FakeMps:
    """Keeps on the CPU what is moved to MPS.

    Attributes:
        fault: changes a model as it is moved there.
        moved: number of models moved there.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.fault: Callable[[nn.Module], object] = lambda model: None
        self.moved = 0
        move_module, move_tensor, make_empty = nn.Module.to, Tensor.to, torch.empty

        def module_to(module: nn.Module, place: Any, *more: Any, **options: Any) -> nn.Module:
            if torch.device(place) != MPS:
                return move_module(module, place, *more, **options)
            self.moved += 1
            self.fault(module)
            return module

        def tensor_to(tensor: Tensor, *arguments: Any, **options: Any) -> Tensor:
            return tensor if MPS in arguments else move_tensor(tensor, *arguments, **options)

        def empty(*size: Any, **options: Any) -> Tensor:
            return make_empty(*size, **{key: value for key, value in options.items() if value != MPS})

        patch.setattr(nn.Module, "to", module_to)
        patch.setattr(torch, "empty", empty)
        patch.setattr(torch.mps, "get_rng_state", lambda: torch.zeros(1))
        patch.setattr(Tensor, "to", tensor_to)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.backends.mps, "is_available", lambda: True)


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch) -> FakeMps:
    return FakeMps(monkeypatch)


def last_weight(model: nn.Module) -> nn.Parameter:
    return list(model.parameters())[-1]


def scale_gradient(model: nn.Module) -> None:
    last_weight(model).register_hook(lambda gradient: gradient * 1.01)  # type: ignore[no-untyped-call]


def change_weight(model: nn.Module) -> None:
    with torch.no_grad():
        last_weight(model).add_(torch.linspace(0, 0.1, last_weight(model).numel()).view_as(last_weight(model)))


def lose_number(model: nn.Module) -> None:
    with torch.no_grad():
        last_weight(model).fill_(float("nan"))


def lack_operation(model: nn.Module) -> None:
    def refuse(*inputs: Any) -> None:
        raise NotImplementedError("The operator 'aten::_thnn_fused_gru_cell' is not implemented for the MPS device")

    for part in model.modules():
        if isinstance(part, nn.Embedding):
            part.register_forward_pre_hook(refuse)


@pytest.mark.parametrize("family", ["rnn", "gru", "lstm", "transformer"])
def test_a_sound_device_is_chosen(family: str, build_model: Callable[..., LanguageModel], mps: FakeMps) -> None:
    model = build_model(family, dropout=0.3).train()
    before, state = {name: weight.clone() for name, weight in model.state_dict().items()}, torch.get_rng_state()
    assert checked_device("auto", model) == MPS
    assert mps.moved == 1
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("fault", [scale_gradient, change_weight, lose_number, lack_operation])
@pytest.mark.parametrize("family", ["gru", "transformer"])
def test_a_device_that_computes_otherwise_is_not(
    family: str,
    fault: Callable[[nn.Module], object],
    build_model: Callable[..., LanguageModel],
    mps: FakeMps,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mps.fault = fault
    with caplog.at_level(logging.WARNING):
        assert checked_device("auto", build_model(family)) == torch.device("cpu")
    assert "differs from the step on the CPU" in caplog.text


@pytest.mark.parametrize("output", ["full", "adaptive", "sampled"])
def test_every_output_agrees_with_itself(output: str, build_model: Callable[..., LanguageModel]) -> None:
    model = build_model("lstm", vocab_size=120, output=output)
    model.prepare_vocabulary(torch.arange(120, 0, -1))
    assert step_agrees(model, torch.device("cpu"))


def test_a_device_that_was_named_is_not_checked(mps: FakeMps) -> None:
    mps.fault = scale_gradient
    assert checked_device("mps", RNN(50, 4, 4)) == MPS
    assert checked_device("cpu", RNN(50, 4, 4)) == torch.device("cpu")
    assert mps.moved == 0


def test_training_falls_back(mps: FakeMps, tiny_corpus: TokenizedCorpus) -> None:
    mps.fault = scale_gradient
    model = RNN(tiny_corpus.tokenizer.vocab_size, 4, 4)
    train(model, tiny_corpus, max_steps=1, batch_size=2, sequence_length=4, eval_tokens=10, device="auto")
    assert mps.moved == 1
