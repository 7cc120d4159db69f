from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from torch_linguist.data import (
    ContiguousBatches,
    InMemoryCorpus,
    NoisyBatches,
    TokenizedCorpus,
    WordTokenizerTrainer,
    prepare,
)
from torch_linguist.data.noising import bigram_type_counts
from torch_linguist.errors import DataError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TokenizedCorpus:
    words = np.random.default_rng(1).choice([*"aaaabbcdefgh"], size=(400, 10))
    text = "\n".join(" ".join(row) for row in words)
    source = InMemoryCorpus({"train": [text], "valid": ["a"], "test": ["b"]}, tokenized=True)
    return prepare(source, WordTokenizerTrainer(min_frequency=1), tmp_path_factory.mktemp("cache"))


def noisy(corpus: TokenizedCorpus, noise: str | None, rate: float = 0.3, word_dropout: float = 0.0) -> NoisyBatches:
    return NoisyBatches(ContiguousBatches(corpus.train, 8, 50, 3), corpus, noise, rate, word_dropout, seed=5)


def rows(source: NoisyBatches | ContiguousBatches, count: int) -> tuple[np.ndarray, np.ndarray]:
    batches = [source.next() for _ in range(count)]
    tokens = [batch.tokens.numpy().ravel() for batch in batches]
    return np.concatenate(tokens), np.concatenate([batch.targets.numpy().ravel() for batch in batches])


def test_blank_noise_replaces_inputs_alone_at_its_rate(corpus: TokenizedCorpus) -> None:
    tokens, targets = rows(noisy(corpus, "blank"), 60)
    clean, clean_targets = rows(ContiguousBatches(corpus.train, 8, 50, 3), 60)
    changed = tokens != clean
    assert set(tokens[changed]) == {corpus.tokenizer.unk_id}
    assert not changed[clean == corpus.tokenizer.eos_id].any()
    rate = changed[clean != corpus.tokenizer.eos_id].mean()
    assert rate == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / len(tokens)) ** 0.5)
    assert (targets == clean_targets).all()


def test_unigram_noise_draws_words_as_often_as_they_occur(corpus: TokenizedCorpus) -> None:
    tokens, _ = rows(noisy(corpus, "unigram", rate=0.9), 200)
    counts = corpus.token_counts().astype(float)
    counts[corpus.tokenizer.eos_id] = 0
    clean, _ = rows(ContiguousBatches(corpus.train, 8, 50, 3), 200)
    words = clean != corpus.tokenizer.eos_id
    found = np.bincount(tokens[words], minlength=len(counts)) / words.sum()
    assert found == pytest.approx(counts / counts.sum(), abs=0.01)


def test_bigram_types_agree_with_a_plain_count(corpus: TokenizedCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_linguist.data.noising.CHUNK", 97)
    ids = corpus.train.ids.tolist()
    pairs = set(pairwise(ids))
    followers, predecessors = bigram_type_counts(corpus.train, corpus.tokenizer.vocab_size)
    first, second = Counter(pair[0] for pair in pairs), Counter(pair[1] for pair in pairs)
    assert followers.tolist() == [first[token] for token in range(corpus.tokenizer.vocab_size)]
    assert predecessors.tolist() == [second[token] for token in range(corpus.tokenizer.vocab_size)]


def test_kneser_ney_noise_replaces_at_the_rate_of_the_paper(corpus: TokenizedCorpus) -> None:
    tokens, targets = rows(noisy(corpus, "kneser_ney", rate=0.9), 400)
    clean, clean_targets = rows(ContiguousBatches(corpus.train, 8, 50, 3), 400)
    followers, proposal = bigram_type_counts(corpus.train, corpus.tokenizer.vocab_size)
    proposal[corpus.tokenizer.eos_id] = 0
    proposal /= proposal.sum()
    counts = corpus.token_counts()
    for word in "ah":
        token = corpus.tokenizer.encode(word)[0]
        # A draw may give the word itself, which then looks as if it had not been replaced.
        expected = 0.9 * followers[token] / counts[token] * (1 - proposal[token])
        place = clean == token
        error = (expected / place.sum()) ** 0.5
        assert (tokens[place] != token).mean() == pytest.approx(expected, abs=4 * error)
    changed_targets = targets != clean_targets
    assert changed_targets.any()
    assert not changed_targets[clean_targets == corpus.tokenizer.eos_id].any()
    assert corpus.tokenizer.eos_id not in targets[changed_targets]


def test_word_dropout_drops_every_occurrence_of_a_word_in_a_batch(corpus: TokenizedCorpus) -> None:
    source, clean = noisy(corpus, None, word_dropout=0.4), ContiguousBatches(corpus.train, 8, 50, 3)
    for _ in range(5):
        batch, before = source.next(), clean.next()
        for token in set(before.tokens.flatten().tolist()):
            shown = set(batch.tokens[before.tokens == token].tolist())
            assert shown in ({token}, {corpus.tokenizer.unk_id})
        assert (batch.targets == before.targets).all()


def test_the_noise_is_seeded_changes_and_goes_on_after_a_restart(corpus: TokenizedCorpus) -> None:
    source, again = noisy(corpus, "unigram"), noisy(corpus, "unigram")
    first = [source.next() for _ in range(15)]
    assert all((batch.tokens == again.next().tokens).all() for batch in first)
    resumed = noisy(corpus, "unigram")
    resumed.load_state_dict(source.state_dict())
    assert source.epoch == resumed.epoch > 1
    assert (source.next().tokens == resumed.next().tokens).all()


@pytest.mark.parametrize(
    ("noise", "rate", "dropout", "message"),
    [
        ("pink", 0.1, 0.0, "trainer.noise=pink: must be null or one of blank"),
        ("blank", 1.0, 0.0, "trainer.noise_rate=1.0: must be at least 0"),
        (None, 0.1, -0.1, "trainer.word_dropout=-0.1"),
    ],
)
def test_bad_settings(corpus: TokenizedCorpus, noise: str, rate: float, dropout: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        noisy(corpus, noise, rate, dropout)
