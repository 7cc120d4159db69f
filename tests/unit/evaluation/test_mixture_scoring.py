"""Mixtures of scored models."""

import pytest
import torch

from torch_linguist.data import TokenizedCorpus
from torch_linguist.evaluation import compare_with_baselines, score, score_mixture
from torch_linguist.evaluation.run_evaluation import RunOnCorpus, evaluate_runs
from torch_linguist.model import LSTM, LanguageModel, Mixture, NGramModel
from torch_linguist.model.mixture import Population


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


def test_the_members_of_a_mixture_are_shown_beside_it(tiny_corpus: TokenizedCorpus) -> None:
    members: list[LanguageModel] = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        members.append(LSTM(tiny_corpus.tokenizer.vocab_size, embedding_dim=8, hidden_size=8).eval())
    population, notes = Population.of(members, [0.3, 0.7]).eval(), list[str]()
    run = RunOnCorpus("run", population, tiny_corpus.tokenizer, "corpus", tiny_corpus)
    found = {one.model: one.score.loss for one in evaluate_runs([run], note=notes.append)}
    expected = [score(model, tiny_corpus.test).loss for model in (population, *members)]
    assert list(found) == ["run", "run, member 1", "run, member 2"]
    assert list(found.values()) == pytest.approx(expected, rel=1e-6)
    assert notes == ["run is a mixture: 0.300 member 1, 0.700 member 2"]
    compared = compare_with_baselines(population, tiny_corpus, name="run", order=2)
    rows = compared.rows("run")
    assert list(rows)[:3] == ["run", "member 1", "member 2"]
    assert [rows[name]["test"].loss for name in list(rows)[:3]] == pytest.approx(expected, rel=1e-6)


def test_on_the_split_it_was_fitted_on_it_beats_both(models: list[NGramModel], tiny_corpus: TokenizedCorpus) -> None:
    found = score_mixture(models, tiny_corpus.valid, tiny_corpus.valid)
    assert sum(found.weights) == pytest.approx(1)
    assert found.mixed.loss <= min(single.loss for single in found.single) + 1e-9
