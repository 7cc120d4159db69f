"""The sampled softmax against the full one that it estimates, and the start from the tokens' frequencies."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.model import LanguageModel
from torch_linguist.model.neural import NeuralLanguageModel, make_output
from torch_linguist.model.outputs import sampled_softmax
from torch_linguist.model.outputs.output import FullOutput
from torch_linguist.model.outputs.sampled_softmax import OUT_OF_SAMPLE, SampledOutput, strata

V, D, N = 97, 6, 40
ModelBuilder = Callable[..., LanguageModel]


def layer(dtype: torch.dtype = torch.float64, head_size: int = 16) -> SampledOutput:
    generator = torch.Generator().manual_seed(0)
    output = SampledOutput(V, D, head_size=head_size).to(dtype)
    with torch.no_grad():
        output.weight.copy_(torch.randn(V, D, generator=generator, dtype=torch.float64))
        output.bias.copy_(torch.randn(V, generator=generator, dtype=torch.float64))
    output.order_by(torch.randint(100, (V,), generator=generator))
    return output


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(N, D, generator=generator, dtype=torch.float64).to(dtype)
    return hidden.requires_grad_(), torch.randint(V, (N,), generator=generator)


def estimate(output: SampledOutput, hidden: Tensor, targets: Tensor) -> Tensor:
    """The loss on the layer's next sample, written out: every logit, its correction, the target's without."""
    columns, corrections, positions = output.sample(targets)
    logits = hidden @ output.weight[columns].T + output.bias[columns] + corrections.to(hidden.dtype)
    own = (hidden * output.weight[targets]).sum(1) + output.bias[targets]
    logits = logits.scatter(1, positions[:, None], own[:, None])
    return F.cross_entropy(logits, positions, reduction="none")


@pytest.mark.parametrize("sparse", [False, True])
def test_loss_and_gradients_are_those_of_the_estimate(sparse: bool) -> None:
    output = layer()
    output.sparse = sparse
    hidden, targets = batch()
    wanted = (hidden, output.weight, output.bias)
    torch.manual_seed(5)
    expected = estimate(output, hidden, targets)
    torch.manual_seed(5)
    measured = output.nll(hidden, targets)
    torch.testing.assert_close(measured, expected, atol=1e-12, rtol=0)
    share = torch.linspace(0.5, 2, N, dtype=torch.float64)
    expected_gradients = torch.autograd.grad((expected * share).sum(), wanted)
    for one, other in zip(torch.autograd.grad((measured * share).sum(), wanted), expected_gradients, strict=True):
        assert one.is_sparse == (sparse and one.shape == output.weight.shape)
        torch.testing.assert_close(one.to_dense(), other, atol=1e-11, rtol=0)


def test_in_bfloat16_it_stays_close_to_float64() -> None:
    precise, output = layer(), layer(torch.float32)
    hidden, targets = batch()
    torch.manual_seed(5)
    expected = estimate(precise, hidden, targets)
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16):
        measured = output.nll(hidden.float(), targets)
    torch.testing.assert_close(measured.double(), expected, atol=0.05, rtol=0)
    (expected_gradient,) = torch.autograd.grad(expected.mean(), precise.weight)
    (gradient,) = torch.autograd.grad(measured.mean(), output.weight)
    assert (gradient.double() - expected_gradient).norm() < 0.01 * expected_gradient.norm()


def test_the_denominator_is_right_on_average() -> None:
    output = layer()
    hidden, targets = batch()
    exact = torch.logsumexp(output(hidden), 1).exp()
    target_logits = output(hidden).gather(1, targets[:, None]).squeeze(1)
    torch.manual_seed(0)
    drawn = torch.stack([(output.nll(hidden, targets) + target_logits).detach().exp() for _ in range(1000)])
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert bool((error > 0).any())
    # Five standard errors; every row of the forty.
    assert bool(((drawn.mean(0) - exact).abs() <= 5 * error + 1e-9).all())


def test_scoring_is_that_of_the_full_softmax() -> None:
    output = layer()
    full = FullOutput(V, D).double()
    full.load_state_dict({"weight": output.weight, "bias": output.bias})
    hidden, targets = batch()
    with torch.no_grad():
        assert torch.equal(output.nll(hidden, targets), full.nll(hidden, targets))
    # With gradients too, as sensitivity and dynamic evaluation take them.
    output.eval()
    assert torch.equal(output.nll(hidden, targets), full.nll(hidden, targets))
    assert torch.equal(output(hidden), full(hidden))


def test_a_head_that_holds_all_types_is_exact() -> None:
    output = layer(head_size=V)
    hidden, targets = batch()
    expected = F.cross_entropy(output(hidden), targets, reduction="none")
    torch.testing.assert_close(output.nll(hidden, targets), expected, atol=1e-12, rtol=0)


@given(st.integers(1, 300), st.integers(1, 3000))
def teststrata_cover_each_rank_beyond_the_head_once(head_size: int, vocab_size: int) -> None:
    head_size = min(head_size, vocab_size)
    lows, widths = strata(head_size, vocab_size)
    covered = [rank for low, width in zip(lows, widths, strict=True) for rank in range(low, low + width)]
    assert covered == list(range(head_size, vocab_size))
    # No stratum holds more than its distance from the start of the vocabulary.
    assert all(width <= max(2, 2 * low // head_size) for low, width in zip(lows, widths, strict=True))


def test_every_target_has_a_column_that_counts_once() -> None:
    output = layer()
    rare = output.id_of_rank[[20, 45, 96]]
    targets = torch.cat([rare, rare[:1], output.id_of_rank[[0, 3]]])
    for seed in range(50):
        torch.manual_seed(seed)
        columns, corrections, positions = output.sample(targets)
        assert torch.equal(columns[positions], targets)
        counted = columns[corrections > OUT_OF_SAMPLE].tolist()
        assert len(set(counted)) == len(counted)
        assert set(output.id_of_rank[: output.head_size].tolist()) | set(rare.tolist()) <= set(counted)
        assert bool((corrections[positions] == 0).all())
        # A stratum stands for all its types, or for none where it drew a target.
        strata = set(corrections[corrections > 0].exp().round().long().tolist())
        assert strata <= set(output.stratum_width.tolist())


def test_all_types_as_targets_make_the_loss_exact() -> None:
    output = layer()
    hidden = torch.randn(V, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    expected = F.cross_entropy(output(hidden), torch.arange(V), reduction="none")
    torch.testing.assert_close(output.nll(hidden, torch.arange(V)), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("cutoffs", [[], [0], [V + 1], [3, 9]])
def test_wrong_cutoffs_are_named(cutoffs: list[int]) -> None:
    with pytest.raises(LinguistError, match=r"model\.cutoffs=.*sampled.*97"):
        make_output("sampled", V, D, cutoffs, None)


@pytest.mark.parametrize("output", ["full", "adaptive", "sampled"])
@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_a_start_at_the_frequencies(family: str, output: str, build_model: ModelBuilder) -> None:
    counts = torch.randint(0, 1000, (50,), generator=torch.Generator().manual_seed(0))
    model = build_model(family, 50, output=output, cutoffs=[20])
    model.prepare_vocabulary(counts)
    before = copy.deepcopy(model.state_dict())
    model.start_at_unigram(counts)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("bias" in name for name in changed)
    assert isinstance(model, NeuralLanguageModel)
    hidden = torch.zeros_like(model.hidden(torch.tensor([[0]]), model.initial_state(1))[0])
    expected = (counts + 0.5).double() / (counts + 0.5).double().sum()
    measured = torch.softmax(model.output(hidden), -1).flatten()
    torch.testing.assert_close(measured.double(), expected, atol=1e-6, rtol=1e-4)


def test_a_sample_holds_the_likely_types_and_its_gradient_nears_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The more types the hidden vectors make likely, the smaller the error of the gradients."""
    torch.manual_seed(0)
    vocab_size, width = 600, 8
    output = SampledOutput(vocab_size, width, head_size=16).double().train()
    nn.init.normal_(output.weight, std=1.5)
    hidden, targets = torch.randn(5, width, dtype=torch.float64, requires_grad=True), torch.randint(vocab_size, (5,))
    exact_nll = F.cross_entropy(F.linear(hidden, output.weight, output.bias), targets)
    exact = torch.autograd.grad(exact_nll, [hidden, output.weight])
    generator = torch.Generator().manual_seed(0)
    errors = []
    for likely in (0, 32, 256, vocab_size + 1):
        monkeypatch.setattr(sampled_softmax, "LIKELY", likely)
        output.draw_sample(targets, generator, hidden.detach())
        assert output._drawn is not None
        probable = torch.softmax(output(hidden), dim=-1).mean(0).topk(min(likely, vocab_size)).indices
        assert set(probable.tolist()) <= set(output._drawn[0].tolist())
        found = torch.autograd.grad(output.nll(hidden, targets).mean(), [hidden, output.weight])
        errors.append([float((one - other).norm() / other.norm()) for one, other in zip(found, exact, strict=True)])
    for none, few, many, all_types in zip(*errors, strict=True):
        assert none > 2 * few > 4 * many
        assert all_types < 1e-9
