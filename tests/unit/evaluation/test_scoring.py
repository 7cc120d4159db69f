"""Scores: every token once, whatever the chunks; windows against a brute-force reference."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from torch_linguist.data import TokenizedCorpus, TokenStream
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation import Score, mean_nll, score, scoring, stream_nll, unigram_score
from torch_linguist.model import LanguageModel

ModelBuilder = Callable[..., LanguageModel]
V, EOS = 50, 0


def stream_of(ids: Sequence[int], words: int = 1, size: int = 1, oov: int = 0) -> TokenStream:
    """A stream of given ids."""
    edges = np.array([0, len(ids)], np.int64)
    return TokenStream("valid", np.array(ids, np.uint16), EOS, words, size, oov, edges, edges)


def random_stream(length: int, seed: int = 0) -> TokenStream:
    return stream_of(np.random.default_rng(seed).integers(0, V, length).tolist())


def nll_of(model: LanguageModel, stream: TokenStream, **options: Any) -> np.ndarray:
    return np.concatenate(list(stream_nll(model, stream, **options)))


class Uniform(LanguageModel):
    """Every token equally probable, and a memory of what it was shown."""

    def __init__(self, vocab_size: int, context_length: int = 0) -> None:
        super().__init__()
        self.vocab_size, self.context_length = vocab_size, context_length
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[list[int], list[int]]] = []

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return torch.zeros(*tokens.shape, self.vocab_size), state

    def nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self.seen += list(zip(tokens.tolist(), targets.tolist(), strict=True))
        return torch.full(tokens.shape, math.log(self.vocab_size)), state

    def initial_state(self, batch_size: int) -> list[Tensor]:
        return [torch.zeros(1, batch_size, 1)]


@settings(deadline=None)
@given(
    length=st.integers(1, 60),
    vocab_size=st.integers(1, 400),
    context_length=st.integers(0, 9),
    chunk_length=st.integers(1, 70),
)
def test_the_perplexity_of_a_uniform_model_is_its_vocabulary(
    length: int, vocab_size: int, context_length: int, chunk_length: int
) -> None:
    measured = score(Uniform(vocab_size, context_length), random_stream(length), chunk_length=chunk_length)
    assert measured.tokens == length
    assert measured.perplexity == pytest.approx(vocab_size, rel=1e-5)
    assert measured.loss == pytest.approx(math.log(vocab_size), abs=1e-5)


@settings(deadline=None)
@given(length=st.integers(1, 60), chunk_length=st.integers(1, 70))
def test_a_carried_model_reads_the_stream_once_from_eos_on(length: int, chunk_length: int) -> None:
    model, stream = Uniform(V), random_stream(length)
    nll_of(model, stream, chunk_length=chunk_length)
    tokens = [token for row, _ in model.seen for token in row]
    targets = [token for _, row in model.seen for token in row]
    assert targets == stream.ids.tolist()
    assert tokens == [EOS, *stream.ids.tolist()[:-1]]


@settings(deadline=None)
@given(length=st.integers(1, 60), window=st.integers(1, 9), data=st.data())
def test_windows_count_every_token_once_with_the_context_promised(
    length: int, window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window))
    model, stream = Uniform(V, window), random_stream(length)
    assert len(nll_of(model, stream, stride=stride)) == length
    inputs = [EOS, *stream.ids.tolist()]
    for tokens, targets in model.seen:  # Each window lies in the stream, shifted by one.
        assert len(tokens) == min(window, length)
        assert tokens[1:] == targets[:-1]
        assert any(inputs[at : at + len(tokens)] == tokens for at in range(len(inputs)))
    expected_windows = 1 + max(0, math.ceil((length - window) / stride))
    assert len(model.seen) == expected_windows


@pytest.mark.parametrize("family", ["rnn", "lstm", "gru"])
def test_a_score_does_not_depend_on_the_chunks(family: str, build_model: ModelBuilder) -> None:
    model, stream = build_model(family, V), random_stream(101)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Larger recurrent weights would make the state chaotic.
            parameter.mul_(1 if "layers" in name else 3)
        tokens = torch.tensor([[EOS, *stream.ids.tolist()]])
        logits = model(tokens[:, :-1], model.initial_state(1))[0][0]
        expected = F.cross_entropy(logits.double(), tokens[0, 1:], reduction="none").numpy()
    for chunk_length in (1, 7, 50, 101, 1024):
        np.testing.assert_allclose(nll_of(model, stream, chunk_length=chunk_length), expected, atol=2e-5)


@pytest.mark.parametrize(("length", "stride"), [(30, 1), (30, 3), (30, 8), (29, 5), (8, 4), (5, 2), (9, 8)])
def test_each_token_is_scored_by_its_own_window(length: int, stride: int, build_model: ModelBuilder) -> None:
    window = 8
    model, stream = build_model("transformer", V, context_length=window, num_layers=2), random_stream(length)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    inputs = [EOS, *stream.ids.tolist()]
    measured = nll_of(model, stream, stride=stride)
    # The end of the window that a token belongs to: the first that reaches past it.
    ends = [window]
    while ends[-1] < length:
        ends.append(ends[-1] + stride)
    for position in range(length):
        end = min(next(end for end in ends if end > position), length)
        begin = max(0, end - window)
        with torch.no_grad():
            logits = model(torch.tensor([inputs[begin : position + 1]]), model.initial_state(1))[0][0, -1]
        expected = -torch.log_softmax(logits.double(), -1)[inputs[position + 1]]
        assert measured[position] == pytest.approx(float(expected), abs=2e-5)
        assert position + 1 - begin >= min(position + 1, window - stride + 1)


def test_windows_do_not_depend_on_how_many_are_held_at_once(
    build_model: ModelBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, stream = build_model("transformer", V), random_stream(100)
    expected = nll_of(model, stream)
    for tokens, of_layers in ((1, 1), (17, 17), (64, 1), (64, 24)):
        monkeypatch.setattr(scoring, "WINDOW_TOKENS", tokens)
        monkeypatch.setattr(scoring, "LAYER_TOKENS", of_layers)
        np.testing.assert_allclose(nll_of(model, stream), expected, atol=1e-5)


def test_the_stride_matters_to_a_model_that_uses_its_context(build_model: ModelBuilder) -> None:
    model = build_model("transformer", V)
    losses = {round(score(model, random_stream(60), stride=stride).loss, 9) for stride in (1, 4, 8)}
    assert len(losses) == 3


def test_the_formulas_of_a_score() -> None:
    stream = stream_of([1, 2, 3, 0, 2, 0], words=4, size=21, oov=2)
    measured = Score.of(12.0, stream)
    assert measured.as_dict() == {
        "tokens": 6, "words": 4, "bytes": 21, "oov_rate": pytest.approx(1 / 3), "loss": 2.0,
        "perplexity": pytest.approx(math.exp(2)), "word_perplexity": pytest.approx(math.exp(3)),
        "bits_per_byte": pytest.approx(12 / math.log(2) / 21),
    }  # fmt: skip
    assert list(measured.as_dict()) == [
        "tokens", "words", "bytes", "oov_rate", "loss", "perplexity", "word_perplexity", "bits_per_byte"
    ]  # fmt: skip


def test_a_score_past_a_float_is_infinite() -> None:
    assert Score.of(1e6, stream_of([1])).perplexity == math.inf
    blank = Score.of(3.0, stream_of([0, 0, 0], words=0, size=3))
    assert blank.word_perplexity == math.inf
    assert blank.perplexity == pytest.approx(math.e)


def test_the_unigram_baseline_by_hand() -> None:
    stream = stream_of([2, 2, 3, 0], words=3, size=9)
    counts = np.array([3, 0, 5, 0], np.int64)  # With one added: 4, 1, 6, 1 of 12.
    expected = -(2 * math.log(6 / 12) + math.log(1 / 12) + math.log(4 / 12))
    assert unigram_score(counts, stream).loss == pytest.approx(expected / 4)


def test_the_unigram_baseline_of_a_corpus(tiny_corpus: TokenizedCorpus) -> None:
    counts = np.bincount(tiny_corpus.train.ids, minlength=tiny_corpus.tokenizer.vocab_size)
    assert counts.tolist() == tiny_corpus.token_counts().tolist()
    probabilities = (counts + 1) / (counts.sum() + len(counts))
    expected = -np.log(probabilities[np.asarray(tiny_corpus.valid.ids)]).mean()
    assert unigram_score(tiny_corpus.token_counts(), tiny_corpus.valid).loss == pytest.approx(expected)


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_only_the_first_tokens(family: str, build_model: ModelBuilder) -> None:
    model, stream = build_model(family, V), random_stream(60)
    whole = nll_of(model, stream, chunk_length=16)
    for count in (1, 5, 40, 60, 1000):
        if family == "lstm":
            assert mean_nll(model, stream, count, chunk_length=16) == pytest.approx(whole[:count].mean(), abs=1e-6)
        assert len(np.concatenate(list(stream_nll(model, stream, count)))) == min(count, 60)


@pytest.mark.parametrize("family", ["lstm", "transformer"])
@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_the_model_and_the_randomness_alone(
    family: str, training: bool, build_model: ModelBuilder
) -> None:
    model = build_model(family, V, dropout=0.5).train(training)
    before = torch.get_rng_state()
    assert score(model, random_stream(40)) == score(model, random_stream(40))
    assert model.training is training
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_whoever_reads_the_parts_keeps_their_gradients(family: str, build_model: ModelBuilder) -> None:
    parts = stream_nll(build_model(family, V), random_stream(60), chunk_length=8)
    next(parts)
    assert not torch.is_inference_mode_enabled()
    weight = torch.ones(2, requires_grad=True)
    assert (weight * 2).requires_grad
    parts.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_nothing_to_score_is_named(family: str, build_model: ModelBuilder) -> None:
    with pytest.raises(LinguistError, match="valid: the split is empty"):
        score(build_model(family, V), stream_of([]))
    with pytest.raises(LinguistError, match="valid: the split is empty"):
        mean_nll(build_model(family, V), stream_of([]))


@pytest.mark.parametrize("stride", [0, -1, 9])
def test_a_stride_that_does_not_fit_is_named(stride: int, build_model: ModelBuilder) -> None:
    model = build_model("transformer", V, context_length=8).train()
    with pytest.raises(LinguistError, match=rf"score\.stride={stride}: .*8 tokens"):
        score(model, random_stream(30), stride=stride)
    assert model.training


def test_a_chunk_length_that_does_not_fit_is_named(build_model: ModelBuilder) -> None:
    with pytest.raises(LinguistError, match=r"score\.chunk_length=0"):
        score(build_model("lstm", V), random_stream(30), chunk_length=0)


@pytest.mark.parametrize("output", ["full", "adaptive", "sampled"])
@pytest.mark.parametrize("family", ["rnn", "lstm", "gru", "transformer"])
def test_scores_in_bfloat16_are_near_those_in_float32(family: str, output: str, build_model: ModelBuilder) -> None:
    model = build_model(family, V, output=output, cutoffs=[20]).train()
    stream = random_stream(300)
    exact = np.concatenate(list(stream_nll(model, stream)))
    rough = np.concatenate(list(stream_nll(model, stream, precision="bf16")))
    assert rough.shape == exact.shape
    assert not np.array_equal(rough, exact)
    np.testing.assert_allclose(rough, exact, atol=0.05)
    # All probabilities of an untrained model are alike, so that their rounding does not average out.
    assert rough.mean() == pytest.approx(exact.mean(), abs=2**-8)
    assert score(model, stream, precision="bf16").loss == pytest.approx(rough.mean(), abs=1e-9)
    assert mean_nll(model, stream, precision="bf16") == pytest.approx(rough.mean(), abs=1e-9)
    assert model.training


def test_a_precision_that_there_is_not_is_named(build_model: ModelBuilder) -> None:
    with pytest.raises(LinguistError, match="precision=bfloat16: must be one of fp32, bf16"):
        score(build_model("lstm", V), random_stream(30), precision="bfloat16")
