import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.errors import ConfigError, DataError
from torch_linguist.model import LanguageModel
from torch_linguist.model.ngram import NGramModel
from torch_linguist.model.ngram.counts import count_ngrams

WIKITEXT = Path(__file__).resolve().parents[4] / "../shared/data/wikitext-2"


def fitted(ids: list[int], vocab_size: int, order: int, **arguments: Any) -> NGramModel:
    model = NGramModel(vocab_size, order, **arguments)
    model.fit_counts(np.array(ids, dtype=np.int32), eos_id=0)
    return model


def next_words(model: NGramModel, context: list[int]) -> list[float]:
    state = model.initial_state(1)
    logits, _ = model(torch.tensor([context]), state)
    return [float(value) for value in logits[0, -1].exp()]


def stream_nll(model: LanguageModel, ids: npt.NDArray[Any], eos_id: int = 0) -> torch.Tensor:
    targets = torch.from_numpy(ids.astype(np.int64))[None]
    tokens = torch.cat([torch.full((1, 1), eos_id), targets[:, :-1]], dim=1)
    return model.nll(tokens, targets, model.initial_state(1))[0][0]


streams = st.integers(1, 6).flatmap(
    lambda size: st.tuples(st.just(size), st.lists(st.integers(0, size - 1), min_size=1, max_size=60))
)


@settings(max_examples=40, deadline=None)
@given(
    stream=streams,
    order=st.integers(1, 5),
    smoothing=st.sampled_from(["kneser_ney", "stupid_backoff"]),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    seed=st.integers(0, 9),
)
def test_nll_equals_forward_and_carries_its_state(
    stream: tuple[int, list[int]], order: int, smoothing: str, cuts: list[int], seed: int
) -> None:
    vocab_size, ids = stream
    model = fitted(ids, vocab_size, order, smoothing=smoothing)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(vocab_size, (3, sum(cuts)), generator=generator)
    targets = torch.randint(vocab_size, (3, sum(cuts)), generator=generator)
    logits, end = model(tokens, model.initial_state(3))
    expected = -logits.gather(-1, targets[..., None])[..., 0]
    whole, _ = model.nll(tokens, targets, model.initial_state(3))
    assert torch.allclose(whole, expected, atol=1e-12)
    state, parts = model.initial_state(3), []
    for some_tokens, some_targets in zip(torch.split(tokens, cuts, 1), torch.split(targets, cuts, 1), strict=True):
        part, state = model.nll(some_tokens, some_targets, state)
        parts.append(part)
    assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-12)
    assert torch.equal(state[0], end[0])
    assert state[0].shape == (order - 1, 3)
    # The next token as the target: the path that looks each n-gram up once.
    shifted, _ = model.nll(tokens[:, :-1], tokens[:, 1:], model.initial_state(3))
    assert torch.allclose(shifted, -logits[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0], atol=1e-12)


def test_counts_do_not_depend_on_how_the_sort_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(0).zipf(1.3, 5000) % 50
    whole = count_ngrams(ids, 50, 5, eos_id=0)
    for bits in (1, 3, 6):
        monkeypatch.setattr("torch_linguist.model.ngram.counts.SLICE_BITS", bits)
        cut = count_ngrams(ids, 50, 5, eos_id=0)
        for left, right in zip(whole.levels, cut.levels, strict=True):
            assert left.start == right.start
            for name in ("keys", "suffix", "counts"):
                np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def test_a_long_stream_scores_as_its_parts_do() -> None:
    # Queries of long streams are sorted by their leading bits.
    ids = np.random.default_rng(2).integers(0, 100_000, 20_000) ** 2 % 100_000 // 100 * 100
    for vocab_size in (100_000, 65_536):
        model = fitted((ids % vocab_size).tolist(), vocab_size, 3)
        scored = stream_nll(model, ids[::-1] % vocab_size)
        tokens = torch.from_numpy(ids[::-1].copy() % vocab_size)[None]
        state, parts = model.initial_state(1), []
        _, state = model.nll(torch.zeros(1, 1, dtype=torch.int64), tokens[:, :1], state)
        for begin in range(0, 19_999, 1000):
            end = min(begin + 1000, 19_999)
            part, state = model.nll(tokens[:, begin:end], tokens[:, begin + 1 : end + 1], state)
            parts.append(part)
        assert torch.equal(torch.cat(parts, 1)[0], scored[1:])


def test_scripted_equals_eager_and_a_checkpoint_restores() -> None:
    ids = np.random.default_rng(3).zipf(1.4, 3000) % 40
    model = fitted(ids.tolist(), 40, 4, smoothing="stupid_backoff")
    tokens = torch.from_numpy(ids[None, :60].reshape(3, 20))
    expected, state = model(tokens, model.initial_state(3))
    scripted_logits, scripted_state = torch.jit.script(model)(tokens, model.initial_state(3))
    assert torch.equal(scripted_logits, expected)
    assert torch.equal(scripted_state[0], state[0])
    restored = NGramModel(**model.arguments)
    restored.load_state_dict(model.state_dict())
    assert torch.equal(restored(tokens, restored.initial_state(3))[0], expected)
    assert restored.ngram_counts() == model.ngram_counts()


def test_before_fitting_it_is_uniform() -> None:
    model = NGramModel(7, 3)
    assert next_words(model, [1, 2]) == pytest.approx([1 / 7] * 7)
    assert stream_nll(model, np.array([1, 2, 3])).tolist() == pytest.approx([math.log(7)] * 3)


def test_unseen_words_keep_the_perplexity_finite() -> None:
    for smoothing in ("kneser_ney", "witten_bell", "add_k", "stupid_backoff"):
        model = fitted([1, 2, 1, 2, 3], 50, 5, smoothing=smoothing)
        assert torch.isfinite(stream_nll(model, np.arange(50))).all()


@pytest.mark.parametrize("order", range(1, 9))
def test_tiny_streams_and_a_vocabulary_of_one(order: int) -> None:
    assert next_words(fitted([0], 1, order), [0]) == pytest.approx([1])
    assert sum(next_words(fitted([1], 2, order), [0])) == pytest.approx(1)
    assert sum(next_words(fitted([1] * 50, 2, order), [1] * 9)) == pytest.approx(1)


def test_discounts_fall_back_with_a_warning_that_names_the_order(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "torch_linguist.model.ngram"):
        fitted([1, 2, 3, 1, 2, 3], 4, 3)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["order 1", "order 2", "order 3"]
    assert "0.5, 1.0, 1.5" in caplog.text


def test_bad_arguments_and_streams_are_refused() -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"order": 0},
        {"order": 9},
        {"smoothing": "good_turing"},
        {"min_count": 0},
        {"min_count": [2, 2]},
        {"min_count": [1, 3, 2]},
        {"min_count": [1, 1, 1, 1, 1, 1]},
        {"min_count": []},
        {"add_k": 0.0},
        {"backoff_factor": 0.0},
        {"vocab_size": 0},
    )
    for arguments in wrong:
        with pytest.raises(ConfigError, match=next(iter(arguments))):
            NGramModel(**{"vocab_size": 10, **arguments})
    with pytest.raises(DataError, match="no token"):
        fitted([], 3, 2)
    with pytest.raises(DataError, match="outside the vocabulary of 3"):
        fitted([1, 2, 3], 3, 2)
    with pytest.raises(DataError, match="eos_id=5"):
        NGramModel(3).fit_counts(np.array([1]), eos_id=5)


# KenLM's figures for the same streams, its first word predicted from no context and ours from <eos>.
KENLM = {2: (284.74, 263.97), 3: (240.75, 224.40), 4: (233.93, 219.10), 5: (232.51, 217.80)}
KENLM_COUNTS = [33_281, 619_594, 1_403_717, 1_821_460, 1_968_860]


@pytest.mark.skipif(not WIKITEXT.is_dir(), reason="needs shared/data/wikitext-2 beside the checkout")
def test_wikitext_2_agrees_with_kenlm() -> None:
    lines = {
        split: (WIKITEXT / f"{split}.txt").read_text(encoding="utf-8").split("\n")[:-1]
        for split in ("train", "valid", "test")
    }
    words = {split: [word for line in text for word in (*line.split(), "<eos>")] for split, text in lines.items()}
    vocabulary = {"<eos>": 0}
    for word in words["train"]:
        vocabulary.setdefault(word, len(vocabulary))
    ids = {split: np.array([vocabulary[word] for word in text]) for split, text in words.items()}
    for order in (2, 5):
        model = NGramModel(len(vocabulary), order)
        model.fit_counts(ids["train"], eos_id=0)
        for split, expected in zip(("valid", "test"), KENLM[order], strict=True):
            assert math.exp(stream_nll(model, ids[split]).mean()) == pytest.approx(expected, rel=5e-5)
    # KenLM counts <s>, </s> and <unk>, and an n-gram with <s> and one with </s> an order; the n-gram that opens the
    # stream after our <eos> stands for the one with <s> where it is a new one.
    own = [3, 2, 2, 1, 1]
    assert model.ngram_counts() == [theirs - extra for theirs, extra in zip(KENLM_COUNTS, own, strict=True)]
