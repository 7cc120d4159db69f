"""Baselines, and the comparison of a model with them: against the models themselves and a split made by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from torch_linguist.data import TokenizedCorpus
from torch_linguist.evaluation import compare_with_baselines, ngram_baseline, score, score_mixture, unigram_score
from torch_linguist.model import LSTM, NGramModel


@pytest.fixture(scope="module")
def trigram(tiny_corpus: TokenizedCorpus) -> NGramModel:
    model = NGramModel(tiny_corpus.tokenizer.vocab_size, 3)
    model.fit_counts(tiny_corpus.train.ids, tiny_corpus.tokenizer.eos_id)
    return model


@pytest.mark.parametrize("damage", [b"half a file", b"", "short"])
def test_the_baseline_is_the_model_and_is_counted_once(
    damage: bytes | str, trigram: NGramModel, tiny_corpus: TokenizedCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ngram_baseline(tiny_corpus, order=3)
    assert first["test"].loss == pytest.approx(score(trigram, tiny_corpus.test).loss, rel=1e-12)

    def refuse(*arguments: object) -> None:
        raise AssertionError("counted again")

    monkeypatch.setattr(NGramModel, "fit_counts", refuse)
    assert ngram_baseline(tiny_corpus, order=3) == first
    (cached,) = tiny_corpus.folder.glob("baseline-3gram*")
    if isinstance(damage, bytes):
        cached.write_bytes(damage)
    else:
        with cached.open("wb") as file:
            np.savez(file, valid=np.zeros(3), test=np.zeros(3))
    with pytest.raises(AssertionError, match="counted again"):
        ngram_baseline(tiny_corpus, order=3)
    cached.unlink()


def test_the_comparison_of_an_untrained_model(tiny_corpus: TokenizedCorpus, trigram: NGramModel) -> None:
    torch.manual_seed(0)
    model = LSTM(tiny_corpus.tokenizer.vocab_size, embedding_dim=8, hidden_size=8)
    found = compare_with_baselines(model, tiny_corpus, name="lstm", order=3)
    assert list(found.rows("lstm")) == ["lstm", "lstm + 3-gram", "3-gram", "unigram"]
    mixed = score_mixture([model, trigram], tiny_corpus.valid, tiny_corpus.test)
    for split in ("valid", "test"):
        assert found.own[split] == score(model, tiny_corpus.streams[split])
        assert found.mixture[split].loss <= found.baselines["3-gram"][split].loss + 1e-3
    assert found.mixture["test"].loss == pytest.approx(mixed.mixed.loss, rel=1e-9)
    assert found.weight == pytest.approx(mixed.weights[0])
    assert found.verdict is not None
    assert "lstm loses to the 3-gram" in found.verdict
    assert (
        f"{found.own['test'].perplexity:.1f} against {found.baselines['3-gram']['test'].perplexity:.1f}"
        in found.verdict
    )
    assert "most on tokens that occur" in found.verdict
    assert f"Mixed, they reach {found.mixture['test'].perplexity:.1f}" in found.verdict


def test_a_model_that_is_its_own_baseline_does_not_differ(tiny_corpus: TokenizedCorpus, trigram: NGramModel) -> None:
    found = compare_with_baselines(trigram, tiny_corpus, name="mine", order=3)
    assert found.verdict is not None
    assert "mine and the 3-gram do not differ clearly" in found.verdict
    assert "within the noise" in found.verdict


def test_without_an_ngram_the_unigram_is_the_baseline(tiny_corpus: TokenizedCorpus, trigram: NGramModel) -> None:
    found = compare_with_baselines(trigram, tiny_corpus, name="mine", order=None)
    assert list(found.rows("mine")) == ["mine", "unigram"]
    assert found.baselines["unigram"]["test"] == unigram_score(tiny_corpus.token_counts(), tiny_corpus.test)
    assert found.verdict is not None
    assert "mine beats the unigram" in found.verdict
    alone = compare_with_baselines(trigram, tiny_corpus, name="mine", baselines=False)
    assert replace(alone, own={}) == replace(found, own={}, baselines={}, verdict=None)
    assert alone.own == found.own
