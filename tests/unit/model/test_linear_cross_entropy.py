"""The fused loss against torch's own, in value, gradient and memory."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from torch_linguist.model import LSTM, output
from torch_linguist.model.output import AdaptiveOutput, linear_cross_entropy

N, V, D = 37, 23, 6


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((N, D), (V, D), (V,))
    )
    return hidden, weight, bias, torch.randint(V, (N,), generator=generator)


@pytest.mark.parametrize("elements", [1, V, 5 * V + 3, N * V, 1 << 24])
@pytest.mark.parametrize("reduction", ["sum", "weighted"])
def test_value_and_gradients(elements: int, reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "CHUNK_ELEMENTS", elements)
    hidden, weight, bias, targets = inputs()
    share = torch.ones(N, dtype=torch.float64) if reduction == "sum" else torch.linspace(-1, 2, N, dtype=torch.float64)
    expected = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="none")
    measured = linear_cross_entropy(hidden, weight, bias, targets)
    torch.testing.assert_close(measured, expected, atol=1e-12, rtol=0)
    for one, other in zip(
        torch.autograd.grad((measured * share).sum(), (hidden, weight, bias)),
        torch.autograd.grad((expected * share).sum(), (hidden, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("elements", [4 * V, 1 << 24])
def test_gradcheck(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "CHUNK_ELEMENTS", elements)
    hidden, weight, bias, targets = inputs()

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_cross_entropy(hidden, weight, bias, targets)

    assert torch.autograd.gradcheck(loss, (hidden, weight, bias))


def test_a_second_backward_pass_gives_the_same_gradients() -> None:
    hidden, weight, bias, targets = inputs()
    loss = linear_cross_entropy(hidden, weight, bias, targets).sum()
    first = torch.autograd.grad(loss, (hidden, weight, bias), retain_graph=True)
    second = torch.autograd.grad(loss, (hidden, weight, bias))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_no_rows_have_no_gradient() -> None:
    _, weight, bias, _ = inputs()
    empty = torch.empty(0, D, dtype=torch.float64, requires_grad=True)
    nll = linear_cross_entropy(empty, weight, bias, torch.empty(0, dtype=torch.int64))
    assert nll.shape == (0,)
    gradients = torch.autograd.grad(nll.sum(), (weight, bias))
    assert not any(gradient.any() for gradient in gradients)


def test_a_tied_weight_collects_both_gradients() -> None:
    weight = torch.randn(V, D, dtype=torch.float64, requires_grad=True)
    bias, tokens, targets = torch.zeros(V, dtype=torch.float64), torch.arange(N) % V, torch.arange(N) * 3 % V
    fused = torch.autograd.grad(linear_cross_entropy(weight[tokens], weight, bias, targets).sum(), weight)[0]
    plain = F.cross_entropy(F.linear(weight[tokens], weight, bias), targets, reduction="sum")
    torch.testing.assert_close(fused, torch.autograd.grad(plain, weight)[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("elements", [4 * V, 1 << 24])
def test_autocast_keeps_the_sums_in_float32(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "CHUNK_ELEMENTS", elements)
    hidden, weight, bias, targets = (
        tensor.detach().float().requires_grad_() if tensor.is_floating_point() else tensor for tensor in inputs()
    )
    with torch.autocast("cpu", torch.bfloat16):
        nll = linear_cross_entropy(hidden, weight, bias, targets)
    assert nll.dtype == torch.float32
    exact = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="none")
    torch.testing.assert_close(nll, exact, atol=0.08, rtol=0.02)
    measured = torch.autograd.grad(nll.mean(), (hidden, weight, bias))
    expected = torch.autograd.grad(exact.mean(), (hidden, weight, bias))
    for one, other in zip(measured, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=0.01, rtol=0.05)


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the largest floating-point result of any operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("kind", ["full", "adaptive", "adaptive without cutoffs"])
def test_the_logits_are_never_held_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vocab_size, rows, limit = 1000, 512, 40_000
    monkeypatch.setattr(output, "CHUNK_ELEMENTS", limit)
    cutoffs = [100] if kind == "adaptive" else []
    model = LSTM(vocab_size, 8, 8, dropout=0.0, output=kind.split()[0], cutoffs=cutoffs)
    tokens = torch.randint(vocab_size, (8, rows // 8))
    with LargestTensor() as largest:
        model.nll(tokens, tokens, model.initial_state(8))[0].sum().backward()  # type: ignore[no-untyped-call]
    assert largest.elements <= max(limit, rows * 4 * 8)
    with LargestTensor() as largest:
        model(tokens, model.initial_state(8))
    assert largest.elements == rows * vocab_size, "the measure itself must see what forward holds"


def test_a_cluster_without_targets_is_left_out() -> None:
    layer = AdaptiveOutput(V, D, [5, 11])
    hidden = torch.randn(4, D, requires_grad=True)
    layer.nll(hidden, torch.tensor([0, 1, 2, 12])).sum().backward()  # type: ignore[no-untyped-call]
    tails = [tail for tail in layer.tails if isinstance(tail, nn.Linear)]
    assert tails[0].weight.grad is None
    assert tails[1].weight.grad is not None
