"""The adaptive softmax against torch's own, and the choice of output layers."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torch_linguist.errors import LinguistError
from torch_linguist.model import LSTM, LanguageModel
from torch_linguist.model.neural import make_output
from torch_linguist.model.outputs.adaptive_softmax import AdaptiveOutput, default_cutoffs
from torch_linguist.model.outputs.output import FullOutput

V, D = 60, 32
CUTOFFS = [10, 30]


def pair() -> tuple[AdaptiveOutput, nn.AdaptiveLogSoftmaxWithLoss]:
    """Our layer and torch's with the same weights, in float64."""
    generator = torch.Generator().manual_seed(0)
    ours = AdaptiveOutput(V, D, CUTOFFS).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    theirs = nn.AdaptiveLogSoftmaxWithLoss(D, V, CUTOFFS, div_value=4.0, head_bias=True).double()
    with torch.no_grad():
        theirs.head.weight.copy_(torch.cat([ours.head_weight, ours.cluster_weight]))
        theirs.head.bias.copy_(ours.head_bias)
        for index, (projection, tail) in enumerate(zip(ours.projections, ours.tails, strict=True)):
            assert isinstance(projection, nn.Linear)
            assert isinstance(tail, nn.Linear)
            # torch has narrower clusters at this width, and no biases in them.
            tail.bias.zero_()
            narrow = nn.Linear(D, projection.out_features, bias=False)
            narrow.weight = nn.Parameter(projection.weight.clone())
            wide = nn.Linear(projection.out_features, tail.out_features, bias=False)
            wide.weight = nn.Parameter(tail.weight.clone())
            theirs.tail[index] = nn.Sequential(narrow, wide)
    return ours, theirs


@pytest.mark.parametrize("permuted", [False, True])
def test_adaptive_equals_that_of_torch(permuted: bool) -> None:
    ours, theirs = pair()
    hidden = torch.randn(40, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = torch.arange(40) * 7 % V
    rank = torch.arange(V)
    if permuted:
        counts = torch.randperm(V, generator=torch.Generator().manual_seed(2)) + 1
        ours.order_by(counts)
        order = sorted(range(V), key=lambda token: (-int(counts[token]), token))
        rank[order] = torch.arange(V)
    with torch.no_grad():
        expected = theirs.log_prob(hidden)[:, rank]
        torch.testing.assert_close(torch.log_softmax(ours(hidden), -1), expected, atol=1e-10, rtol=0)
        torch.testing.assert_close(ours(hidden), expected, atol=1e-10, rtol=0)
        torch.testing.assert_close(ours.nll(hidden, targets), -theirs(hidden, rank[targets]).output, atol=1e-10, rtol=0)


def test_without_cutoffs_it_is_the_full_softmax() -> None:
    adaptive, full = AdaptiveOutput(V, D, []), FullOutput(V, D)
    with torch.no_grad():
        full.weight.copy_(adaptive.head_weight)
        full.bias.normal_()
        adaptive.head_bias.copy_(full.bias)
    hidden, targets = torch.randn(9, D), torch.arange(9)
    torch.testing.assert_close(adaptive(hidden), torch.log_softmax(full(hidden), -1))
    torch.testing.assert_close(adaptive.nll(hidden, targets), full.nll(hidden, targets))


def test_tied_head_reads_the_embedding_of_the_frequent_words() -> None:
    embedding = nn.Parameter(torch.randn(V, D))
    layer = AdaptiveOutput(V, D, CUTOFFS, tied=embedding)
    layer.order_by(torch.arange(V))  # The last id is the most frequent one.
    hidden = torch.randn(5, D)
    logits = layer(hidden)
    expected = F.linear(hidden, embedding[torch.arange(V - 1, V - 11, -1)], layer.head_bias[:10])
    # The head's tokens share one normalizer, so their differences are those of the products.
    measured = logits[:, torch.arange(V - 1, V - 11, -1)]
    torch.testing.assert_close(measured - measured[:, :1], expected - expected[:, :1], atol=1e-5, rtol=0)


def test_an_order_once_taken_stays() -> None:
    layer = AdaptiveOutput(V, D, CUTOFFS)
    layer.order_by(torch.arange(V))
    first = layer.id_of_rank.clone()
    layer.order_by(torch.arange(V) * -1)
    assert torch.equal(layer.id_of_rank, first)
    assert torch.equal(layer.rank_of_id[layer.id_of_rank], torch.arange(V))
    again = AdaptiveOutput(V, D, CUTOFFS)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.id_of_rank, first)


def test_equal_counts_keep_the_order_of_the_ids() -> None:
    layer = AdaptiveOutput(6, D, [2])
    layer.order_by(torch.tensor([5, 9, 5, 9, 5, 1]))
    assert layer.id_of_rank.tolist() == [1, 3, 0, 2, 4, 5]


def test_an_untrained_adaptive_softmax_is_nearly_uniform() -> None:
    torch.manual_seed(0)
    layer = AdaptiveOutput(20_000, D)
    log_probabilities = layer(0.1 * torch.randn(3, D))
    torch.testing.assert_close(log_probabilities, torch.full_like(log_probabilities, -9.9035), atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("vocab_size", "cutoffs"), [(3999, []), (4000, [2000]), (33_278, [2000, 10_000]), (267_735, [2000, 10_000, 50_000])]
)
def test_default_cutoffs(vocab_size: int, cutoffs: list[int]) -> None:
    assert default_cutoffs(vocab_size) == cutoffs


@pytest.mark.parametrize("kind", ["full", "sampled"])
@pytest.mark.parametrize("family", ["lstm", "rnn", "transformer"])
def test_without_a_bias_training_changes_the_weights_alone(
    kind: str, family: str, build_model: Callable[..., LanguageModel]
) -> None:
    model = build_model(family, V, output=kind, output_bias=False)
    assert not model.start_at_unigram(torch.arange(V))
    assert model.num_parameters() == build_model(family, V, output=kind).num_parameters() - V
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    tokens = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        optimizer.zero_grad()
        model.nll(tokens[:, :-1], tokens[:, 1:], model.initial_state(2))[0].mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    weights = model.state_dict()
    assert not weights["output.bias"].any()
    with torch.no_grad():
        hidden = model.eval().hidden(tokens, model.initial_state(2))[0]
        expected = hidden @ weights["output.weight"].T
        torch.testing.assert_close(model(tokens, model.initial_state(2))[0], expected)


def test_an_adaptive_softmax_needs_its_biases() -> None:
    with pytest.raises(LinguistError, match=r"model\.output_bias=false.*model\.output=full or sampled"):
        make_output("adaptive", V, D, None, None, bias=False)


@pytest.mark.parametrize("cutoffs", [[0, 5], [5, 3], [V], [-1]])
def test_wrong_cutoffs_are_named(cutoffs: list[int]) -> None:
    with pytest.raises(LinguistError, match=r"model\.cutoffs=.*59"):
        make_output("adaptive", V, D, cutoffs, None)


@pytest.mark.parametrize(
    ("vocab_size", "cutoffs", "kind"),
    [(1024, None, "FullOutput"), (1025, None, "SampledOutput"), (1024, [100], "SampledOutput")],
)
def test_a_small_vocabulary_has_the_full_softmax(vocab_size: int, cutoffs: list[int] | None, kind: str) -> None:
    assert type(make_output("auto", vocab_size, 4, cutoffs, None)).__name__ == kind
    model = LSTM(vocab_size, 4, 4, cutoffs=cutoffs)
    assert type(model.output).__name__ == kind
    model.train()
    if kind == "FullOutput":
        model.set_training_loss(0.1, 0.0)
