"""Every smoothing method against slow, independent estimates: dictionaries of tuples, from the papers' formulas."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.model.ngram import NGramModel

Words = tuple[int, ...]


class Reference:
    """Counts of a stream after its <eos>, and the four smoothing methods on them."""

    def __init__(self, ids: Sequence[int], vocab_size: int, order: int, eos_id: int) -> None:
        self.vocab_size, self.order = vocab_size, order
        stream = [eos_id, *ids]
        self.counts: Counter[Words] = Counter()
        before: defaultdict[Words, set[int | None]] = defaultdict(set)
        for end in range(len(stream)):
            for k in range(1, min(order, end + 1) + 1):
                start = end - k + 1
                ngram = tuple(stream[start : end + 1])
                if k == 1 and end == 0:
                    continue  # the <eos> before the stream is context only
                self.counts[ngram] += 1
                before[ngram].add(stream[start - 1] if start else None)
        self.adjusted = {g: self.counts[g] if len(g) == order else len(left) for g, left in before.items()}
        self.after: defaultdict[Words, set[int]] = defaultdict(set)
        for ngram in self.counts:
            self.after[ngram[:-1]].add(ngram[-1])

    def discounts(self, k: int) -> list[float]:
        n = Counter(count for ngram, count in self.adjusted.items() if len(ngram) == k)
        if min(n[1], n[2], n[3]) > 0:
            y = n[1] / (n[1] + 2 * n[2])
            amounts = [j - (j + 1) * y * n[j + 1] / n[j] for j in (1, 2, 3)]
            if min(amounts) > 0:
                return [0.0, *amounts]
        return [0.0, 0.5, 1.0, 1.5]

    def kneser_ney(self, word: int, context: Words, min_count: Sequence[int] = (1,) * 9) -> float:
        context = context[max(0, len(context) - self.order + 1) :]
        lower = self.kneser_ney(word, context[1:], min_count) if context else 1 / self.vocab_size
        k = len(context) + 1
        if not self.after[context]:
            return lower
        amounts = self.discounts(k)
        total, left_over, own = 0, 0.0, 0.0
        for follower in self.after[context]:
            ngram = (*context, follower)
            count = self.adjusted[ngram]
            kept = self.counts[ngram] >= min_count[k - 1]
            taken = amounts[min(count, 3)] if kept else count
            total += count
            left_over += taken
            if follower == word:
                own = count - taken
        return own / total + left_over / total * lower

    def witten_bell(self, word: int, context: Words) -> float:
        context = context[max(0, len(context) - self.order + 1) :]
        lower = self.witten_bell(word, context[1:]) if context else 1 / self.vocab_size
        followers = self.after[context]
        if not followers:
            return lower
        total = sum(self.counts[(*context, follower)] for follower in followers)
        return (self.counts[(*context, word)] + len(followers) * lower) / (total + len(followers))

    def add_k(self, word: int, context: Words, k: float) -> float:
        if len(context) < self.order - 1:
            return 1 / self.vocab_size
        context = context[len(context) - self.order + 1 :]
        total = sum(self.counts[(*context, follower)] for follower in self.after[context])
        return (self.counts[(*context, word)] + k) / (total + k * self.vocab_size)

    def stupid_backoff(self, word: int, context: Words, factor: float) -> float:
        context = context[max(0, len(context) - self.order + 1) :]
        if self.counts[(*context, word)]:
            total = sum(self.counts[(*context, follower)] for follower in self.after[context])
            return self.counts[(*context, word)] / total
        if context:
            return factor * self.stupid_backoff(word, context[1:], factor)
        return factor / self.vocab_size


def fitted(ids: list[int], vocab_size: int, order: int, **arguments: Any) -> NGramModel:
    model = NGramModel(vocab_size, order, **arguments)
    model.fit_counts(np.array(ids, dtype=np.uint16), eos_id=0)
    return model


def next_words(model: NGramModel, context: list[int]) -> list[float]:
    state = model.initial_state(1)
    logits, _ = model(torch.tensor([context]), state)
    return [float(value) for value in logits[0, -1].exp()]


streams = st.integers(1, 6).flatmap(
    lambda size: st.tuples(st.just(size), st.lists(st.integers(0, size - 1), min_size=1, max_size=60))
)


@settings(max_examples=60, deadline=None)
@given(stream=streams, order=st.integers(1, 5), data=st.data())
@pytest.mark.parametrize("smoothing", ["kneser_ney", "witten_bell", "add_k", "stupid_backoff"])
def test_every_distribution_equals_the_slow_reference(
    smoothing: str, stream: tuple[int, list[int]], order: int, data: st.DataObject
) -> None:
    vocab_size, ids = stream
    model = fitted(ids, vocab_size, order, smoothing=smoothing, add_k=0.3)
    reference = Reference(ids, vocab_size, order, eos_id=0)
    score: Callable[[int, tuple[int, ...]], float] = {
        "kneser_ney": reference.kneser_ney,
        "witten_bell": reference.witten_bell,
        "add_k": lambda word, context: reference.add_k(word, context, 0.3),
        "stupid_backoff": lambda word, context: reference.stupid_backoff(word, context, 0.4),
    }[smoothing]
    context = data.draw(st.lists(st.integers(0, vocab_size - 1), min_size=1, max_size=7))
    expected = [score(word, tuple(context)) for word in range(vocab_size)]
    assert next_words(model, context) == pytest.approx(expected, rel=1e-11)
    if smoothing != "stupid_backoff":
        assert sum(next_words(model, context)) == pytest.approx(1, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(stream=streams, order=st.integers(2, 4), least=st.lists(st.integers(1, 4), min_size=3, max_size=3))
def test_min_count_leaves_the_mass_to_the_backoff(stream: tuple[int, list[int]], order: int, least: list[int]) -> None:
    vocab_size, ids = stream
    min_count = [1, *sorted(least)][:order]
    model = fitted(ids, vocab_size, order, min_count=min_count)
    reference = Reference(ids, vocab_size, order, eos_id=0)
    for context in {tuple(ids[max(0, end - order + 1) : end]) for end in range(1, len(ids) + 1)}:
        expected = [reference.kneser_ney(word, context, min_count) for word in range(vocab_size)]
        assert next_words(model, list(context)) == pytest.approx(expected, rel=1e-11)
    kept = [
        sum(len(g) == k and reference.counts[g] >= min_count[k - 1] for g in reference.counts)
        for k in range(2, order + 1)
    ]
    assert model.ngram_counts()[1:] == kept


@pytest.mark.parametrize("smoothing", ["witten_bell", "add_k"])
def test_min_count_keeps_distributions_whole(smoothing: str) -> None:
    ids = np.random.default_rng(1).zipf(1.5, 2000) % 20
    model = fitted(ids.tolist(), 20, 3, smoothing=smoothing, min_count=3)
    logits, _ = model(torch.from_numpy(ids[None, :200]), model.initial_state(1))
    assert torch.allclose(logits.exp().sum(-1), torch.ones(1, 200, dtype=torch.float64), atol=1e-12)
