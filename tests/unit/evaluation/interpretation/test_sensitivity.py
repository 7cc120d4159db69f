"""Contexts cut, damaged and changed: against the score itself, an order that sees no further, and hand-made cases."""

import math

import numpy as np
import pytest
import torch
from conftest import ModelBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.data import BPETokenizerTrainer, InMemoryCorpus, TokenizedCorpus, WordTokenizerTrainer
from torch_linguist.evaluation import stream_nll
from torch_linguist.evaluation.interpretation.contexts import (
    contexts_at,
    next_log_probabilities,
    sample_contexts,
    target_nll,
)
from torch_linguist.evaluation.interpretation.sensitivity import (
    SHARES,
    context_curve,
    context_lengths,
    damage_table,
    divergences,
    drop,
    misspell,
    shuffle_beyond,
    swap,
    typing_error,
    word_changes,
)
from torch_linguist.model import LanguageModel, NGramModel


@pytest.fixture(scope="module")
def trigram(tiny_corpus: TokenizedCorpus) -> NGramModel:
    model = NGramModel(tiny_corpus.tokenizer.vocab_size, order=3)
    model.fit_counts(tiny_corpus.train.ids, tiny_corpus.tokenizer.eos_id)
    return model


def family_model(family: str, corpus: TokenizedCorpus, build: ModelBuilder, trigram: NGramModel) -> LanguageModel:
    return trigram if family == "ngram" else build(family, corpus.tokenizer.vocab_size)


@pytest.mark.parametrize("family", ["rnn", "lstm", "gru", "transformer", "ngram"])
def test_the_whole_context_gives_the_score(
    tiny_corpus: TokenizedCorpus, build_model: ModelBuilder, trigram: NGramModel, family: str
) -> None:
    model = family_model(family, tiny_corpus, build_model, trigram)
    stream = tiny_corpus.valid
    nll = np.concatenate(list(stream_nll(model, stream)))
    # A Transformer's first window is its context; the others read all that stands before.
    for position in (1, 5, (model.context_length or 100) - 1):
        context, target = contexts_at(stream, np.array([position]), position + 1)
        assert target[0] == stream.ids[position]
        assert target_nll(model, context, target)[0] == pytest.approx(nll[position], abs=1e-5)
        log_prob = next(next_log_probabilities(model, context))[0]
        assert -float(log_prob[target[0]]) == pytest.approx(nll[position], abs=1e-5)


def test_a_trigram_uses_two_tokens(tiny_corpus: TokenizedCorpus, trigram: NGramModel) -> None:
    stream, counts = tiny_corpus.valid, tiny_corpus.token_counts()
    nll = np.concatenate(list(stream_nll(trigram, stream)))
    probes = sample_contexts(stream, 40, 32, seed=2)
    curve = context_curve(trigram, probes, nll[probes.positions]).set_index("context")
    assert curve.index.tolist() == [1, 2, 4, 8, 16, 32, 0]
    assert curve.loc[0, "loss"] == pytest.approx(float(nll[probes.positions].mean()))
    assert curve.loc[[2, 4, 8, 16, 32], "above"].abs().max() < 1e-12
    assert curve["above"].tolist()[0] > 0.01
    damaged = damage_table(trigram, tiny_corpus.tokenizer, probes, 24, seed=2)
    shuffled = damaged[damaged["change"] == "shuffle"].set_index("amount")["increase"]
    assert shuffled[shuffled.index >= 2].abs().max() == 0
    assert shuffled[0] > 0.1
    assert len(damaged) == 1 + len(shuffled) + 3 * len(SHARES)
    changed = word_changes(trigram, tiny_corpus.tokenizer, probes, counts, 8, seed=2)
    assert changed.loc[changed["distance"] > 2, "js"].max() < 1e-12
    assert changed["js"].iloc[0] == changed["js"].max() > 0.05
    assert changed["js"].max() <= math.log(2)
    assert (changed["word"] != changed["replaced_by"]).all()


@given(rows=st.integers(1, 4), width=st.integers(2, 40), share=st.sampled_from(SHARES), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_damages_keep_what_they_should(rows: int, width: int, share: float, seed: int) -> None:
    contexts = np.arange(rows * width).reshape(rows, width)
    generator = np.random.default_rng(seed)
    distance = seed % width
    shuffled = shuffle_beyond(contexts, distance, generator)
    assert (np.sort(shuffled, axis=1) == contexts).all()
    assert (shuffled[:, width - distance :] == contexts[:, width - distance :]).all()
    dropped = drop(contexts, share, generator)
    assert dropped.shape[1] == max(1, width - round(share * width))
    assert (np.diff(dropped, axis=1) > 0).all()
    swapped = swap(contexts, share, generator)
    assert (np.sort(swapped, axis=1) == contexts).all()
    assert ((swapped != contexts).sum(axis=1) == 2 * round(share * (width // 2))).all()
    assert np.abs(swapped - contexts).max() <= 1


@given(word=st.text("abcäß", min_size=3, max_size=8), seed=st.integers(0, 99))
@settings(deadline=None)
def test_a_typing_error_changes_a_word_a_little(word: str, seed: int) -> None:
    wrong = typing_error(word, np.random.default_rng(seed))
    assert wrong != word
    assert wrong[0] == word[0]
    assert abs(len(wrong) - len(word)) <= 1


def test_misspelled_words_are_tokenized_again() -> None:
    text = "seven lonely sailors follow the river in the morning . " * 20 + "\n"
    corpus = InMemoryCorpus({"train": [text], "valid": [text], "test": [text]}, tokenized=True)
    words = WordTokenizerTrainer(min_frequency=1).train(corpus)
    contexts = np.array([words.encode(text)[:40]])
    wrong = misspell(contexts, words, 0.2, np.random.default_rng(0))
    assert wrong.shape == contexts.shape
    assert (wrong == words.unk_id).sum() == 8
    assert ((wrong == contexts) | (wrong == words.unk_id)).all()
    subwords = BPETokenizerTrainer(vocab_size=300).train(corpus)
    contexts = np.array([subwords.encode(text)[:60]])
    wrong = misspell(contexts, subwords, 0.2, np.random.default_rng(0))
    assert wrong.shape == contexts.shape
    assert "  " not in subwords.decode(wrong[0])
    assert subwords.unk_id not in wrong


def test_divergences_are_those_of_the_formulas() -> None:
    generator = np.random.default_rng(1)
    p, q = generator.dirichlet(np.ones(6)), generator.dirichlet(np.ones(6), 3)
    kl, js = divergences(torch.from_numpy(np.log(p))[None], torch.from_numpy(np.log(q)))
    middle = (p + q) / 2
    np.testing.assert_allclose(kl, (p * np.log(p / q)).sum(1), rtol=1e-10)
    np.testing.assert_allclose(js, ((p * np.log(p / middle)).sum(1) + (q * np.log(q / middle)).sum(1)) / 2, rtol=1e-10)
    apart = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])
    assert float(divergences(*apart)[1]) == pytest.approx(math.log(2))


def test_lengths_of_contexts() -> None:
    assert context_lengths(512) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert context_lengths(24) == [1, 2, 4, 8, 16, 24]
