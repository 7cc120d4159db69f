"""The start of the embedding from co-occurrences, against a dense reference."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_linguist.data import TokenizedCorpus
from torch_linguist.errors import ConfigError
from torch_linguist.model import LSTM, LanguageModel, NGramModel
from torch_linguist.model.neural import START_LENGTH
from torch_linguist.trainer import initialization as module
from torch_linguist.trainer import train
from torch_linguist.trainer.initialization import cooccurrence_vectors, start_from_counts, uses_cooccurrences
from torch_linguist.trainer.settings import TrainerSettings

ModelBuilder = Callable[..., LanguageModel]


def dense_information(ids: list[int], vocab_size: int, window: int) -> Tensor:
    """The matrix [V, 2 * V], entry by entry, contexts by id."""
    counts = np.zeros((2, vocab_size, vocab_size))
    for place, token in enumerate(ids):
        for distance in range(1, window + 1):
            if place + distance < len(ids):
                counts[0, token, ids[place + distance]] += 1 / distance
            if place - distance >= 0:
                counts[1, token, ids[place - distance]] += 1 / distance
    matrix = np.zeros((vocab_size, 2 * vocab_size))
    for side in range(2):
        rows, columns = counts[side].sum(1), counts[side].sum(0)
        smoothed = columns**0.75 / (columns**0.75).sum()
        for row, column in np.argwhere(counts[side]):
            count = counts[side, row, column]
            rarer = min(rows[row], columns[column])
            discount = count / (count + 1) * rarer / (rarer + 1)
            information = math.log(count / rows[row] / smoothed[column]) * discount
            matrix[row, side * vocab_size + column] = max(information, 0.0)
    return torch.from_numpy(matrix)


def random_ids(vocab_size: int, length: int) -> np.ndarray:
    """Ids of unequal frequencies that depend on the one before."""
    generator = np.random.default_rng(5)
    table = generator.dirichlet(np.full(vocab_size, 0.3), size=vocab_size)
    ids = [0]
    for _ in range(length - 1):
        ids.append(int(generator.choice(vocab_size, p=table[ids[-1]])))
    return np.array(ids, dtype=np.uint16)


def test_angles_are_those_of_the_dense_factorization() -> None:
    vocab_size = 12
    ids = random_ids(vocab_size, 400)
    left, singular, _ = torch.linalg.svd(dense_information(ids.tolist(), vocab_size, module.WINDOW))
    features = left * singular.sqrt()
    lengths = features.norm(dim=1)
    expected = features @ features.T / lengths / lengths[:, None]
    vectors = cooccurrence_vectors(ids, vocab_size, 20)
    torch.testing.assert_close((vectors @ vectors.T).double(), expected, atol=1e-4, rtol=0)


def test_tokens_that_are_used_alike_lie_near_each_other() -> None:
    generator = np.random.default_rng(1)
    places = np.arange(4000) % 3
    ids = (4 * places + generator.integers(4, size=4000)).astype(np.uint16)
    vectors = cooccurrence_vectors(ids, 12, 4)
    near = (vectors @ vectors.T).reshape(3, 4, 3, 4)
    within = torch.stack([near[kind, :, kind] for kind in range(3)])
    across = near[0, :, 1]
    assert float(within.min()) > float(across.max()) + 0.5


def test_what_does_not_occur_has_no_vector() -> None:
    vectors = cooccurrence_vectors(np.array([0, 1, 2, 0, 1, 3, 0, 2, 1] * 5, dtype=np.uint16), 7, 8)
    lengths = vectors.norm(dim=1)
    torch.testing.assert_close(lengths[:4], torch.ones(4), atol=1e-5, rtol=0)
    assert not vectors[4:].any()


def test_only_the_most_frequent_have_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 5)
    monkeypatch.setattr(module, "MOST_CONTEXTS", 4)
    ids = random_ids(12, 400)
    frequent = np.argsort(-np.bincount(ids, minlength=12), kind="stable")[:5]
    vectors = cooccurrence_vectors(ids, 12, 3)
    assert set(vectors.any(dim=1).nonzero().flatten().tolist()) == set(frequent.tolist())


@pytest.mark.parametrize("length", [0, 1, 2])
def test_too_few_tokens_tell_nothing_or_little(length: int) -> None:
    vectors = cooccurrence_vectors(np.arange(length, dtype=np.uint16), 5, 3)
    assert vectors.shape == (5, 3)
    assert bool(vectors.isfinite().all())


def test_vectors_are_repeatable_and_leave_the_random_numbers_alone() -> None:
    ids = random_ids(12, 400)
    state = torch.random.get_rng_state()
    first = cooccurrence_vectors(ids, 12, 6)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(cooccurrence_vectors(ids, 12, 6), first)
    assert not torch.allclose(cooccurrence_vectors(ids, 12, 6, seed=2), first)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["gru", "transformer"])
def test_a_model_starts_from_the_vectors(
    family: str, tied: bool, build_model: ModelBuilder, tiny_corpus: TokenizedCorpus
) -> None:
    vocab_size = tiny_corpus.tokenizer.vocab_size
    model = build_model(family, vocab_size, tied=tied)
    before = copy.deepcopy(model.state_dict())
    settings = TrainerSettings(max_steps=1, unigram_start=False, cooccurrence_start=True)
    start_from_counts(model, tiny_corpus, settings)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == ({"embedding.weight", "output.weight"} if tied else {"embedding.weight"})
    weight = model.state_dict()["embedding.weight"]
    length = before["embedding.weight"].norm(dim=1).mean() * START_LENGTH
    vectors = cooccurrence_vectors(tiny_corpus.train.ids, vocab_size, weight.shape[1])
    known = vectors.any(dim=1)
    assert torch.equal(known, torch.from_numpy(tiny_corpus.token_counts() > 0))
    torch.testing.assert_close(weight[known], vectors[known] * length)
    torch.testing.assert_close(weight[~known], before["embedding.weight"][~known])


def test_a_model_that_counts_has_no_embedding(tiny_corpus: TokenizedCorpus) -> None:
    settings = TrainerSettings(max_steps=1, cooccurrence_start=True)
    with pytest.raises(ConfigError, match=r"trainer\.cooccurrence_start=true.*NGramModel.*=false"):
        start_from_counts(NGramModel(tiny_corpus.tokenizer.vocab_size), tiny_corpus, settings)


def test_a_training_starts_from_them(tiny_corpus: TokenizedCorpus, build_model: ModelBuilder) -> None:
    model = build_model("lstm", tiny_corpus.tokenizer.vocab_size)
    # A learning rate of next to nothing leaves the weights where they began.
    train(model, tiny_corpus, lr=1e-12, weight_decay=0.0, max_steps=1, cooccurrence_start=True, device="cpu")
    weight = model.state_dict()["embedding.weight"]
    vectors = cooccurrence_vectors(tiny_corpus.train.ids, len(weight), weight.shape[1])
    cosines = torch.cosine_similarity(weight, vectors)
    assert float(cosines[vectors.any(dim=1)].min()) > 0.999


def test_a_trained_model_keeps_its_output_biases(tiny_corpus: TokenizedCorpus, build_model: ModelBuilder) -> None:
    model = build_model("lstm", tiny_corpus.tokenizer.vocab_size)
    train(model, tiny_corpus, lr=0.01, max_steps=3, device="cpu")
    again = build_model("lstm", tiny_corpus.tokenizer.vocab_size)
    again.load_state_dict(model.state_dict())
    for trained in (model, again):
        before = {name: value.clone() for name, value in trained.state_dict().items()}
        train(trained, tiny_corpus, lr=1e-12, weight_decay=0.0, max_steps=1, cooccurrence_start=True, device="cpu")
        for name, value in trained.state_dict().items():
            torch.testing.assert_close(value, before[name], atol=1e-6, rtol=0)


def test_auto_asks_the_model_and_the_size_of_the_text(
    tiny_corpus: TokenizedCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainerSettings(max_steps=1)
    size = tiny_corpus.tokenizer.vocab_size
    narrow = LSTM(size, embedding_dim=8, hidden_size=8)
    assert not uses_cooccurrences(narrow, tiny_corpus, settings)
    monkeypatch.setattr("torch_linguist.trainer.initialization.LEAST_TOKENS", 10)
    assert uses_cooccurrences(narrow, tiny_corpus, settings)
    assert not uses_cooccurrences(LSTM(size, embedding_dim=size, hidden_size=8), tiny_corpus, settings)
    assert not uses_cooccurrences(NGramModel(size, order=2), tiny_corpus, settings)
    assert not uses_cooccurrences(narrow, tiny_corpus, TrainerSettings(max_steps=1, cooccurrence_start=False))
