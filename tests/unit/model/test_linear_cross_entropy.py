"""The fused loss against torch's own, in value, gradient and memory."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from torch_linguist.errors import LinguistError
from torch_linguist.model import LSTM
from torch_linguist.model.outputs import linear_cross_entropy as module
from torch_linguist.model.outputs import operands
from torch_linguist.model.outputs.adaptive_softmax import AdaptiveOutput
from torch_linguist.model.outputs.linear_cross_entropy import linear_cross_entropy

N, V, D = 37, 23, 6


@pytest.fixture(autouse=True, params=["cpu", "padded"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU, or with the padded operands of a GPU."""
    if request.param == "padded":
        monkeypatch.setattr(operands, "PADDED", ("cpu",))
        for owner in (module, operands):
            monkeypatch.setattr(owner, "ONEDNN", False)


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((N, D), (V, D), (V,))
    )
    return hidden, weight, bias, torch.randint(V, (N,), generator=generator)


@pytest.mark.parametrize("elements", [1, V, 5 * V + 3, N * V, 1 << 24])
@pytest.mark.parametrize("reduction", ["sum", "weighted"])
@pytest.mark.parametrize("in_place", [("cpu",), ()])
def test_value_and_gradients(
    elements: int, reduction: str, in_place: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the way that other devices go."""
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", elements)
    monkeypatch.setattr(module, "_IN_PLACE", in_place)
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


@pytest.mark.parametrize("block", [(1, 1), (5, 7), (N, V), (512, 2048)])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("shift", [0.0, -2000.0, 2000.0])
def test_the_value_alone(block: tuple[int, int], scale: float, shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block, also where the exponentials leave the range of the type."""
    monkeypatch.setattr(module, "BLOCK", block)
    hidden, weight, bias, targets = inputs()
    with torch.no_grad():
        hidden, bias = hidden * scale, bias + shift
        expected = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="none")
        for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
            measured = linear_cross_entropy(hidden.to(dtype), weight.to(dtype), bias.to(dtype), targets)
            assert measured.dtype == dtype
            size = float(expected.abs().max()) + abs(shift)
            torch.testing.assert_close(measured.double(), expected, atol=tolerance * max(1.0, size), rtol=0)


def test_the_value_alone_where_a_logit_is_not_a_number() -> None:
    hidden, weight, bias, targets = inputs()
    with torch.no_grad():
        hidden[3, 2] = float("nan")
        measured = linear_cross_entropy(hidden, weight, bias, targets)
    assert measured.isnan().nonzero().flatten().tolist() == [3]


def test_the_value_alone_in_bfloat16() -> None:
    """Rounding scatters the losses of a few tokens, but does not move the mean over many."""
    errors = []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        hidden, weight = (torch.randn(size, 48, generator=generator) * 0.3 for size in (700, 5000))
        bias, targets = torch.randn(5000, generator=generator) * 5, torch.randint(5000, (700,), generator=generator)
        exact = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="none")
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            errors.append(linear_cross_entropy(hidden, weight, bias, targets) - exact)
    error = torch.cat(errors)
    assert float(error.abs().max()) < 1 / 16
    assert float(error.std()) < 0.02
    assert abs(float(error.mean())) < 5e-4


@pytest.mark.parametrize("elements", [4 * V, 1 << 24])
def test_gradcheck(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", elements)
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
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", elements)
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


def test_bfloat16_is_close_where_the_bias_and_the_vocabulary_are_large() -> None:
    generator = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(300, 48, generator=generator), torch.randn(5000, 48, generator=generator)
    bias, targets = torch.randn(5000, generator=generator) * 5, torch.randint(5000, (300,), generator=generator)
    parts = hidden, weight, bias = [part.requires_grad_() for part in (hidden * 0.3, weight * 0.3, bias)]
    exact = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="none")
    with torch.autocast("cpu", torch.bfloat16):
        measured = linear_cross_entropy(hidden, weight, bias, targets)
    torch.testing.assert_close(measured, exact, atol=0.05, rtol=0)
    assert abs(float((measured - exact).detach().mean())) < 1e-3
    expected = torch.autograd.grad(exact.mean(), parts)
    for one, other in zip(torch.autograd.grad(measured.mean(), parts), expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.015


@pytest.mark.parametrize("reduction", ["mean", "weighted"])
def test_label_smoothing_and_z_loss(reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 10 * V)
    hidden, weight, bias, targets = inputs()
    logits = F.linear(hidden, weight, bias)
    smoothed = F.cross_entropy(logits, targets, reduction="none", label_smoothing=0.1)
    expected = smoothed + 0.02 * logits.logsumexp(1).square()
    measured = linear_cross_entropy(hidden, weight, bias, targets, label_smoothing=0.1, z_loss=0.02)
    torch.testing.assert_close(measured, expected, atol=1e-12, rtol=0)
    share = torch.full((N,), 1 / N) if reduction == "mean" else torch.linspace(-1, 2, N)
    for one, other in zip(
        torch.autograd.grad((measured * share).sum(), (hidden, weight, bias)),
        torch.autograd.grad((expected * share).sum(), (hidden, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("in_place", [("cpu",), ()])
def test_a_target_of_no_probability_has_a_finite_loss(
    precision: torch.dtype, in_place: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IN_PLACE", in_place)
    hidden = torch.ones(3, 1, requires_grad=True)
    weight, bias = torch.tensor([[200.0], [-200.0], [0.0]], requires_grad=True), torch.zeros(3)
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, bias, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(loss, torch.tensor([0.0, 400.0, 200.0]))
    assert torch.autograd.grad(loss.sum(), weight)[0].isfinite().all()


@pytest.mark.parametrize("settings", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"z_loss": -1.0}])
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(LinguistError, match=rf"model\.{next(iter(settings))}="):
        linear_cross_entropy(*inputs(), **settings)  # type: ignore[arg-type]


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
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", limit)
    cutoffs = [100] if kind == "adaptive" else []
    model = LSTM(vocab_size, 8, 8, dropout=0.0, output=kind.split()[0], cutoffs=cutoffs)
    tokens = torch.randint(vocab_size, (8, rows // 8))
    with LargestTensor() as largest:
        model.nll(tokens, tokens, model.initial_state(8))[0].sum().backward()  # type: ignore[no-untyped-call]
    assert largest.elements <= max(limit, rows * 4 * 8)
    monkeypatch.setattr(module, "BLOCK", (64, 128))
    with torch.no_grad(), LargestTensor() as largest:
        model.nll(tokens, tokens, model.initial_state(8))
    assert largest.elements <= rows * 4 * 8, "scoring holds a block at a time"
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
