import math
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_linguist.errors import ConfigError
from torch_linguist.model.ngram import NGramModel, prune_entropy, read_arpa, write_arpa
from torch_linguist.model.ngram.estimation import BackoffLevel, BackoffModel

kenlm = pytest.importorskip("kenlm")

VOCAB = 7


def fitted(order: int, smoothing: str = "kneser_ney", threshold: float = 0.0) -> NGramModel:
    generator = np.random.default_rng(5)
    ids = generator.zipf(1.5, 400) % VOCAB
    ids[1::2] = np.where(generator.random(200) < 0.6, ids[0::2] * 3 % VOCAB, ids[1::2])
    model = NGramModel(VOCAB, order, smoothing=smoothing, entropy_threshold=threshold)
    model.fit_counts(ids, eos_id=0)
    return model


def spelled(contexts: list[tuple[int, ...]], level: BackoffLevel, bits: int) -> list[tuple[int, ...]]:
    """The words of each n-gram of a level, from those of its contexts."""
    return [(*contexts[key >> bits], key & ((1 << bits) - 1)) for key in level.keys[:].tolist()]


def distribution(model: BackoffModel, context: tuple[int, ...], removed: tuple[int, ...] = ()) -> list[float]:
    """Every word's probability by the definition of a backoff model, one n-gram taken out."""
    if not context:
        return [math.exp(value) for value in model.unigrams]
    lower = distribution(model, context[1:])
    ngrams: list[tuple[int, ...]] = [(word,) for word in range(model.vocab_size)]
    own = {}
    for level in model.levels[: len(context)]:
        ngrams = spelled(ngrams, level, model.word_bits)
        own = dict(zip(ngrams, level.log_prob[:].tolist(), strict=True))
    seen = {g[-1]: math.exp(p) for g, p in own.items() if g[:-1] == context and g != removed}
    left = 1 - sum(lower[word] for word in seen)
    weight = (1 - sum(seen.values())) / left if left > 1e-9 else 0.0
    return [seen.get(word, weight * lower[word]) for word in range(model.vocab_size)]


@pytest.mark.parametrize("smoothing", ["kneser_ney", "witten_bell"])
def test_exactly_the_ngrams_of_small_relative_entropy_go(smoothing: str) -> None:
    model = fitted(2, smoothing).backoff_model()
    bigrams = spelled([(word,) for word in range(VOCAB)], model.levels[0], model.word_bits)
    rises = []
    for first, second in bigrams:
        before, after = distribution(model, (first,)), distribution(model, (first,), (first, second))
        divergence = sum(p * math.log(p / q) for p, q in zip(before, after, strict=True))
        rises.append(math.exp(math.exp(model.unigrams[first]) * divergence) - 1)
    for threshold in (1e-6, 1e-4, 1e-3):
        pruned = prune_entropy(model, threshold)
        expected = [key for key, rise in zip(model.levels[0].keys[:].tolist(), rises, strict=True) if rise >= threshold]
        assert pruned.levels[0].keys[:].tolist() == expected
    assert 0 < len(prune_entropy(model, 1e-4).levels[0].keys) < len(bigrams)


@pytest.mark.parametrize("threshold", [1e-7, 1e-4, 1e-3, 1e-2, 10.0])
def test_pruned_distributions_are_whole_and_kenlm_reads_them(tmp_path: Path, threshold: float) -> None:
    model = fitted(4, threshold=threshold)
    tokens = torch.randint(VOCAB, (1, 300), generator=torch.Generator().manual_seed(0))
    logits, _ = model(tokens, model.initial_state(1))
    assert torch.allclose(logits.exp().sum(-1), torch.ones(1, 300, dtype=torch.float64), atol=1e-10)
    words = ["<eos>", "<unk>", "a", "b", "c", "d", "e"]
    write_arpa(model, words, tmp_path / "pruned.arpa")
    scores = kenlm.Model(str(tmp_path / "pruned.arpa")).full_scores(
        " ".join(words[index] for index in tokens[0]), bos=False, eos=False
    )
    ours = logits[0, :-1].gather(-1, tokens[0, 1:, None])[:, 0]
    assert ours.tolist() == pytest.approx([score * math.log(10) for score, _, _ in scores][1:], abs=2e-5)
    restored, _ = read_arpa(tmp_path / "pruned.arpa", words)
    assert torch.allclose(restored(tokens, restored.initial_state(1))[0], logits, atol=1e-7)


def test_a_threshold_trades_size_for_likelihood() -> None:
    tokens = torch.randint(VOCAB, (1, 50), generator=torch.Generator().manual_seed(0))
    sizes = [sum(fitted(4, threshold=threshold).ngram_counts()) for threshold in (0.0, 1e-6, 1e-4, 1e-2, 10.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == VOCAB
    unpruned = fitted(4).backoff_model()
    same = NGramModel(VOCAB, 4)
    same.assign(prune_entropy(unpruned, 0.0))
    assert same.ngram_counts() == fitted(4).ngram_counts()
    assert torch.allclose(same(tokens, same.initial_state(1))[0], fitted(4)(tokens, same.initial_state(1))[0])


def test_bad_thresholds_are_refused() -> None:
    for threshold in (-1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="entropy_threshold"):
            NGramModel(5, entropy_threshold=threshold)
        with pytest.raises(ConfigError, match="entropy_threshold"):
            prune_entropy(fitted(2).backoff_model(), threshold)
    with pytest.raises(ConfigError, match="stupid_backoff"):
        NGramModel(5, smoothing="stupid_backoff", entropy_threshold=1e-6)
    with pytest.raises(ConfigError, match="stupid_backoff"):
        prune_entropy(fitted(2, "stupid_backoff").backoff_model(), 1e-6)
