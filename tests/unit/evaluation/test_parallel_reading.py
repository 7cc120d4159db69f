"""Reading a stream at many places at once against reading it once through."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from torch_linguist.data import TokenStream
from torch_linguist.evaluation import mean_nll, parallel_reading, score, stream_nll
from torch_linguist.evaluation.adaptation.continuous_cache import hidden_parts
from torch_linguist.model import LanguageModel

ModelBuilder = Callable[..., LanguageModel]
V, EOS = 50, 0


def random_stream(length: int) -> TokenStream:
    edges = np.array([0, length], np.int64)
    ids = np.random.default_rng(length).integers(0, V, length).astype(np.uint16)
    return TokenStream("valid", ids, EOS, 1, 1, 0, edges, edges)


def nll_of(model: LanguageModel, stream: TokenStream, chunk_length: int = 64) -> np.ndarray:
    return np.concatenate(list(stream_nll(model, stream, chunk_length=chunk_length)))


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_reading, "SHORTEST", 20)
    monkeypatch.setattr(parallel_reading, "LONGEST", 50)
    monkeypatch.setattr(parallel_reading, "SEGMENTS", 4)


class Counter(LanguageModel):
    """Its nll is what it remembers: the sum of all it was shown, each time faded by a factor (1 never forgets)."""

    def __init__(self, fade: float, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.vocab_size, self.fade, self.dtype = V, fade, dtype
        self.weight = nn.Parameter(torch.zeros(1))
        self.read = 0

    def initial_state(self, batch_size: int) -> list[Tensor]:
        return [torch.zeros(1, batch_size, 1, dtype=self.dtype), torch.zeros(2, batch_size, dtype=self.dtype)]

    def nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self.read += tokens.numel()
        memory, found = state[0][0, :, 0], []
        for column, target in zip(tokens.T, targets.T, strict=True):
            memory = (self.fade * memory + column).to(self.dtype)
            found.append(memory + target.double() / 100)
        return torch.stack(found, 1), [memory[None, :, None], torch.stack([memory, -memory])]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        raise AssertionError("scoring needs no logits")


def expected_of(stream: TokenStream, fade: float) -> np.ndarray:
    memory, found, previous = 0.0, [], EOS
    for target in stream.ids.tolist():
        memory = fade * memory + previous
        found.append(memory + target / 100)
        previous = target
    return np.array(found)


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(1, 700),
    chunk_length=st.integers(1, 90),
    fade=st.sampled_from([0.0, 0.3, 0.9, 0.999, 1.0]),
)
def test_every_token_is_scored_as_in_one_pass(length: int, chunk_length: int, fade: float) -> None:
    """Whatever the lengths: stretches that end inside a segment, memories that outlast segments, and ones without."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("SHORTEST", 20), ("LONGEST", 50), ("SEGMENTS", 4)):
            patch.setattr(parallel_reading, name, value)
        stream = random_stream(length)
        model = Counter(fade)
        np.testing.assert_allclose(nll_of(model, stream, chunk_length), expected_of(stream, fade), rtol=1e-9)


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_a_memory_without_end_is_read_through(dtype: torch.dtype) -> None:
    """Whole numbers must be equal: near is not enough where a state is a list of ids."""
    stream = random_stream(200)
    model = Counter(1, dtype)
    nll = nll_of(model, stream, 16)
    np.testing.assert_allclose(nll, expected_of(stream, 1.0), rtol=1e-6)
    assert 200 < model.read <= 4 * 200


@pytest.mark.usefixtures("short_segments")
def test_a_forgetful_memory_is_read_little_more_than_once() -> None:
    model = Counter(0.0)
    nll_of(model, random_stream(200), 16)
    assert model.read <= 1.5 * 200


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("family", ["rnn", "lstm", "gru"])
def test_the_families_score_as_without_segments(
    family: str, build_model: ModelBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(family, V).double().train()
    stream = random_stream(530)
    side_by_side = nll_of(model, stream)
    assert model.training
    assert mean_nll(model, stream) == pytest.approx(side_by_side.mean(), abs=1e-12)
    assert score(model, stream).loss == pytest.approx(side_by_side.mean(), abs=1e-12)
    monkeypatch.setattr(parallel_reading, "SHORTEST", 1000)
    once_through = nll_of(model, stream)
    np.testing.assert_allclose(side_by_side, once_through, atol=1e-10)


@pytest.mark.usefixtures("short_segments")
def test_hidden_vectors_come_in_the_order_of_the_stream(
    build_model: ModelBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, stream = build_model("lstm", V).double(), random_stream(530)
    side_by_side = [torch.cat(field) for field in zip(*hidden_parts(model, stream), strict=True)]
    monkeypatch.setattr(parallel_reading, "SHORTEST", 1000)
    once_through = [torch.cat(field) for field in zip(*hidden_parts(model, stream), strict=True)]
    for one, other in zip(side_by_side, once_through, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


@pytest.mark.usefixtures("short_segments")
def test_a_state_that_is_not_a_number_is_not_taken_for_another() -> None:
    class Broken(Counter):
        def nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            nll, new = super().nll(tokens, targets, state)
            return nll, [part * torch.nan for part in new]

    assert np.isnan(nll_of(Broken(0.5), random_stream(200), 16)[-1])
