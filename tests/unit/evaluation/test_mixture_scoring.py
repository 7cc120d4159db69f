"""Mixtures of scored models."""

import pytest
import torch

from torch_linguist.data import TokenizedCorpus
from torch_linguist.evaluation import score, score_mixture
from torch_linguist.model import LSTM, Mixture, NGramModel


@pytest.fixture(scope="module")
def models(tiny_corpus: TokenizedCorpus) -> list[NGramModel]:
    found = []
    for order in (1, 3):
        model = NGramModel(tiny_corpus.tokenizer.vocab_size, order)
        model.fit_counts(tiny_corpus.train.ids, tiny_corpus.tokenizer.eos_id)
        found.append(model)
    return found


def test_each_model_reads_as_it_would_alone(models: list[NGramModel], tiny_corpus: TokenizedCorpus) -> None:
    found = score_mixture(models, tiny_corpus.valid, tiny_corpus.test)
    alone = [score(model, tiny_corpus.test).loss for model in models]
    assert [single.loss for single in found.single] == pytest.approx(alone, rel=1e-12)


def test_the_mixture_is_that_of_the_mixture_model(models: list[NGramModel], tiny_corpus: TokenizedCorpus) -> None:
    torch.manual_seed(0)
    neural = LSTM(tiny_corpus.tokenizer.vocab_size, embedding_dim=8, hidden_size=8)
    parts = [models[1], neural]
    found = score_mixture(parts, tiny_corpus.valid, tiny_corpus.test)
    mixture = Mixture(parts, found.weights)
    assert found.mixed.loss == pytest.approx(score(mixture, tiny_corpus.test).loss, rel=1e-6)


def test_on_the_split_it_was_fitted_on_it_beats_both(models: list[NGramModel], tiny_corpus: TokenizedCorpus) -> None:
    found = score_mixture(models, tiny_corpus.valid, tiny_corpus.valid)
    assert sum(found.weights) == pytest.approx(1)
    assert found.mixed.loss <= min(single.loss for single in found.single) + 1e-9
