"""Calibration and embeddings: hand-made cases, a model that is calibrated by construction, brute force."""

import math

import numpy as np
import pytest
import torch
from conftest import ModelBuilder

from torch_linguist.data import TokenizedCorpus, WordTokenizerTrainer
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation import score
from torch_linguist.evaluation.calibration import calibration_error, collect_predictions, reliability
from torch_linguist.evaluation.interpretation.embeddings import WordVectors
from torch_linguist.model import LSTM, NGramModel


def test_the_error_of_a_case_made_by_hand() -> None:
    confidence = [0.95, 0.95, 0.85, 0.55, 0.5]
    correct = [True, False, True, False, True]
    table = reliability(confidence, correct, bins=10)
    # 0.5 is on an edge and belongs to (0.4, 0.5].
    assert table["predictions"].tolist() == [1, 1, 1, 2]
    assert table["accuracy"].tolist() == [1, 0, 1, 0.5]
    by_hand = (1 * abs(1 - 0.5) + 1 * abs(0 - 0.55) + 1 * abs(1 - 0.85) + 2 * abs(0.5 - 0.95)) / 5
    assert calibration_error(table) == pytest.approx(by_hand)
    equal = reliability(confidence, correct, bins=2, equal_size=True)
    assert equal["predictions"].tolist() == [3, 2]
    by_hand = (3 * abs(2 / 3 - 1.9 / 3) + 2 * abs(0.5 - 0.95)) / 5
    assert calibration_error(equal) == pytest.approx(by_hand)


def test_a_calibrated_forecast_has_no_error() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.random(200_000)
    correct = generator.random(200_000) < confidence
    assert calibration_error(reliability(confidence, correct)) < 0.01
    assert calibration_error(reliability(confidence, correct[::-1])) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("family", ["lstm", "transformer", "ngram"])
def test_predictions_of_a_short_stream_are_those_of_the_score(
    tiny_corpus: TokenizedCorpus, build_model: ModelBuilder, family: str
) -> None:
    vocab_size = tiny_corpus.tokenizer.vocab_size
    model = NGramModel(vocab_size) if family == "ngram" else build_model(family, vocab_size, **(
        {"context_length": 4096} if family == "transformer" else {}))  # fmt: skip
    found = collect_predictions(model, tiny_corpus.valid, 100_000, seed=1)
    expected = score(model, tiny_corpus.valid)
    assert len(found) == expected.tokens
    assert found.summary()["loss"] == pytest.approx(expected.loss, rel=1e-5)
    ids = torch.from_numpy(np.concatenate([[tiny_corpus.tokenizer.eos_id], tiny_corpus.valid.ids]).astype(np.int64))
    with torch.no_grad():
        logits, _ = model(ids[None, :-1], model.initial_state(1))
    shares = torch.softmax(logits[0].double(), -1)
    np.testing.assert_allclose(found.confidence, shares.max(1).values, rtol=1e-5)
    np.testing.assert_allclose(found.entropy, -(shares * shares.log()).sum(1), rtol=1e-5)
    assert found.rank.min() >= 1
    assert (found.correct <= (found.rank == 1)).all()


def test_stretches_of_a_long_stream_do_not_overlap(tiny_corpus: TokenizedCorpus, build_model: ModelBuilder) -> None:
    model = build_model("transformer", tiny_corpus.tokenizer.vocab_size)
    found = collect_predictions(model, tiny_corpus.train, 200, seed=1)
    assert len(found) == 200
    lstm = build_model("lstm", tiny_corpus.tokenizer.vocab_size)
    assert len(collect_predictions(lstm, tiny_corpus.train, 800, seed=1)) == 800
    same = collect_predictions(lstm, tiny_corpus.train, 800, seed=1)
    np.testing.assert_array_equal(collect_predictions(lstm, tiny_corpus.train, 800, seed=1).nll, same.nll)
    with pytest.raises(LinguistError, match="must be positive"):
        collect_predictions(lstm, tiny_corpus.train, 0, seed=1)


def vectors(words: dict[str, list[float]]) -> WordVectors:
    """A model whose embeddings are given."""
    from torch_linguist.data import InMemoryCorpus

    text = " ".join(words) + "\n"
    corpus = InMemoryCorpus({"train": [text], "valid": [text], "test": [text]}, tokenized=True)
    tokenizer = WordTokenizerTrainer(min_frequency=1).train(corpus)
    model = LSTM(tokenizer.vocab_size, embedding_dim=len(next(iter(words.values()))), hidden_size=4)
    with torch.no_grad():
        for word, vector in words.items():
            model.embedding.weight[tokenizer.tokens.index(word)] = torch.tensor(vector)
    counts = np.full(tokenizer.vocab_size, 10)
    return WordVectors(model, tokenizer, counts)


def test_analogies_and_neighbors_of_made_embeddings() -> None:
    made = vectors({
        "he": [1.0, 0, 0], "she": [1, 1, 0], "king": [0, 0, 1], "queen": [0, 1, 1], "the": [-1, -1, -1],
        "of": [-1, -1, -1.1],
    })  # fmt: skip
    assert made.neighbors(["the"], 1)["neighbor"].tolist() == ["of"]
    found = made.analogies()
    assert len(found) == 2
    assert (found["rank"] == 1).all()
    assert found.loc[found["c"] == "king", "answer"].tolist() == ["queen"]
    centered = np.array([[1.0, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1], [-1, -1, -1], [-1, -1, -1.1]])
    centered = centered - centered.mean(0)
    cosine = float(centered[0] @ centered[1] / np.linalg.norm(centered[0]) / np.linalg.norm(centered[1]))
    neighbors = made.neighbors(["he"], 5).set_index("neighbor")["cosine"]
    assert neighbors["she"] == pytest.approx(cosine, abs=1e-6)
    plane = made.map(6, seed=0)
    assert len(plane) == 6
    # Distances in the plane of the components are those of the vectors but for what the two leave out.
    assert 0.5 < plane.attrs["explained"] <= 1
    assert math.isfinite(float(plane["tsne_1"].sum()))


def test_a_vocabulary_without_frequent_words_is_named(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    model = build_model("lstm", tiny_corpus.tokenizer.vocab_size)
    assert isinstance(model, LSTM)
    with pytest.raises(LinguistError, match="fewer than 3 words"):
        WordVectors(model, tiny_corpus.tokenizer, np.zeros(tiny_corpus.tokenizer.vocab_size, np.int64))
