import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.checkpoint import load_model, save_checkpoint
from torch_linguist.errors import ConfigError
from torch_linguist.model.ngram import NGramModel, read_arpa, write_arpa
from torch_linguist.model.ngram.columns import Store
from torch_linguist.model.ngram.quantized import codebook


def text(size: int, vocab_size: int) -> np.typing.NDArray[np.int64]:
    """Ids by Zipf's law, each of which often predicts the next."""
    generator = np.random.default_rng(4)
    ids = generator.zipf(1.3, size) % vocab_size
    ids[1::2] = np.where(generator.random(size // 2) < 0.5, ids[::2] * 7 % vocab_size, ids[1::2])
    return ids


def fitted(ids: np.typing.NDArray[np.int64], vocab_size: int, order: int, bits: int | None = 8) -> NGramModel:
    model = NGramModel(vocab_size, order, quantize_bits=bits)
    model.fit_counts(ids, eos_id=0)
    return model


@settings(max_examples=40, deadline=None)
@given(
    ids=st.lists(st.integers(0, 5), min_size=1, max_size=80),
    scale=st.sampled_from([1, 60, 11_000]),
    order=st.integers(1, 5),
)
def test_the_trie_holds_the_ngrams_of_the_exact_model(ids: list[int], scale: int, order: int) -> None:
    stream, vocab_size = np.array(ids) * scale, 6 * scale
    exact, quantized = fitted(stream, vocab_size, order, None), fitted(stream, vocab_size, order)
    assert quantized.ngram_counts() == exact.ngram_counts()
    sizes = exact.ngram_counts()
    for ours, theirs, contexts in zip(quantized.levels, exact.levels, sizes[:-1], strict=True):
        for rows in (slice(None), slice(1, 3), slice(2, 2)):
            for left, right in zip(ours.spelled(rows), theirs.spelled(rows), strict=True):
                np.testing.assert_array_equal(left, right)
        # Every context with every word that occurs, and the context -1.
        context = torch.arange(-1, contexts).repeat_interleave(6)
        word = (torch.arange(6) * scale).repeat(len(context) // 6)
        place, found = ours.search(context, word)
        expected, exists = theirs.search(context, word)
        assert torch.equal(found, exists)
        assert torch.equal(place[found], expected[exists])


def test_distributions_are_close_to_the_exact_ones_and_nll_equals_forward() -> None:
    ids = text(20_000, 300)
    exact, quantized = fitted(ids, 300, 4, None), fitted(ids, 300, 4)
    tokens = torch.from_numpy(ids[None, :501].copy())
    before = exact(tokens[:, :-1], exact.initial_state(1))[0]
    after, state = quantized(tokens[:, :-1], quantized.initial_state(1))
    assert (after - before).abs().max() < 0.2
    assert (after.exp().sum(-1) - 1).abs().max() < 0.05
    nll, end = quantized.nll(tokens[:, :-1], tokens[:, 1:], quantized.initial_state(1))
    assert torch.allclose(-nll, after.gather(-1, tokens[:, 1:, None])[..., 0], atol=1e-5)
    assert torch.equal(state[0], end[0])
    own = exact.nll(tokens[:, :-1], tokens[:, 1:], exact.initial_state(1))[0]
    assert math.exp(nll.mean()) == pytest.approx(math.exp(own.mean()), rel=1e-3)
    size = sum(buffer.nbytes for buffer in quantized.buffers())
    assert size < 0.5 * sum(buffer.nbytes for buffer in exact.buffers())


def test_a_scripted_model_and_a_loaded_checkpoint_give_the_same_scores(tmp_path: Path) -> None:
    ids = text(5000, 70_000)
    model = fitted(ids, 70_000, 3)
    tokens = torch.from_numpy(ids[None, :20].copy())
    expected = model(tokens, model.initial_state(1))[0]
    assert torch.equal(torch.jit.script(model)(tokens, model.initial_state(1))[0], expected)
    save_checkpoint(tmp_path / "best.pt", model, {})
    assert torch.equal(load_model(tmp_path / "best.pt")(tokens, model.initial_state(1))[0], expected)


def test_arpa_files_of_quantized_models_are_read_back(tmp_path: Path) -> None:
    ids = text(3000, 50)
    model, words = fitted(ids, 50, 4), [f"w{index}" for index in range(50)]
    write_arpa(model, words, tmp_path / "model.arpa")
    restored, _ = read_arpa(tmp_path / "model.arpa", words)
    tokens = torch.from_numpy(ids[None, :100].copy())
    expected = model(tokens, model.initial_state(1))[0]
    assert torch.allclose(restored(tokens, restored.initial_state(1))[0], expected.double(), atol=1e-5)


def test_a_codebook_has_a_small_error_and_exact_zeros() -> None:
    values = np.random.default_rng(0).gamma(2.0, 2.0, 50_000) * -1
    values[::3] = 0
    codes = codebook(values, Store(), has_zero=True)
    restored = codes.centers[codes.encode(values)]
    assert (restored[::3] == 0).all()
    uniform = (values.max() - values.min()) / 256
    assert np.mean((restored - values) ** 2) < uniform**2 / 12
    constant = codebook(np.full(10, -1.5), Store(), has_zero=False)
    assert constant.centers[constant.encode(np.full(3, -1.5))].tolist() == [-1.5] * 3


def test_other_numbers_of_bits_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"quantize_bits=4 must be 8, or null"):
        NGramModel(5, quantize_bits=4)
