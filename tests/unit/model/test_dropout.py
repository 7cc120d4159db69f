"""Dropout masks against the distribution that they are drawn from, and against torch's own dropout."""

import math

import pytest
import torch
import torch.nn.functional as F

from torch_linguist.model.dropout import Dropout, LockedDropout, dropout, dropout_mask

RATES = [0.0, 0.1, 0.25, 0.45, 0.9]


@pytest.mark.parametrize("p", RATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_mask_drops_its_share_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    count = 400_003
    mask = dropout_mask([count], p, torch.zeros((), dtype=dtype))
    assert mask.dtype == dtype
    # The rate is rounded to 16 bits, and the scale of what is kept follows it.
    rounding = 2**-8 if dtype == torch.bfloat16 else 2**-16 / (1 - p)
    assert torch.unique(mask).tolist() == pytest.approx([0.0, 1 / (1 - p)] if p else [1.0], rel=rounding)
    kept = float((mask != 0).double().mean())
    assert kept == pytest.approx(1 - p, abs=5 * math.sqrt(p * (1 - p) / count) + 2**-16)
    spread = 5 * math.sqrt(p / (1 - p) / count)
    assert float(mask.double().mean()) == pytest.approx(1.0, abs=spread + (2**-8 if dtype == torch.bfloat16 else 0))


def test_elements_are_independent_wherever_they_lie_in_a_word() -> None:
    """The four elements that share a number of 64 bits, neighbors of two numbers, and elements far apart."""
    torch.manual_seed(2)
    p, count = 0.3, 400_000
    kept = (dropout_mask([count], p, torch.zeros(())) != 0).double() - (1 - p)
    for lane in range(4):
        assert float(kept[lane::4].mean()) == pytest.approx(0.0, abs=5 * math.sqrt(p * (1 - p) / (count / 4)))
    for lag in (1, 2, 3, 4, 5, 624, 1248):
        correlation = float((kept[:-lag] * kept[lag:]).mean()) / (p * (1 - p))
        assert correlation == pytest.approx(0.0, abs=5 / math.sqrt(count))


@pytest.mark.parametrize("shape", [[], [1], [3], [2, 3, 5], [0, 4]])
def test_a_mask_has_any_shape(shape: list[int]) -> None:
    mask = dropout_mask(shape, 0.5, torch.zeros(()))
    assert list(mask.shape) == shape
    assert set(mask.flatten().tolist()) <= {0.0, 2.0}


def test_the_seed_decides_and_each_call_draws_anew() -> None:
    features = torch.ones(1000)
    torch.manual_seed(3)
    first, second = dropout(features, 0.5, True), dropout(features, 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(dropout(features, 0.5, True), first)
    assert not torch.equal(first, second)


def test_the_gradient_is_the_mask() -> None:
    features = torch.randn(50, 3, dtype=torch.float64, requires_grad=True)
    dropped = dropout(features, 0.4, True)
    (gradient,) = torch.autograd.grad(dropped.sum(), features)
    torch.testing.assert_close(dropped.detach(), features.detach() * gradient)


@pytest.mark.parametrize("p", RATES)
def test_outside_training_it_is_the_identity_and_scripted_it_is_that_of_torch(p: float) -> None:
    features = torch.randn(4, 5)
    module = Dropout(p)
    assert torch.equal(module.eval()(features), features)
    scripted = torch.jit.script(module.train())
    torch.manual_seed(4)
    found = scripted(features)
    torch.manual_seed(4)
    assert torch.equal(found, F.dropout(features, p))


def test_a_locked_mask_is_that_of_all_time_steps() -> None:
    dropped = LockedDropout(0.5, time_axis=1).train()(torch.ones(6, 7, 40))
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert 0.3 < float((dropped == 0).double().mean()) < 0.7
