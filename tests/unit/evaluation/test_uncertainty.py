"""Intervals and paired tests: against exact enumeration and a known distribution."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.data import TokenStream
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.uncertainty import BLOCKS, Parts, loss_interval, paired_difference, parts_of


def stream(lines: list[int], documents: list[int]) -> TokenStream:
    """A stream with lines and documents of given lengths."""
    edges = [np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64) for lengths in (lines, documents)]
    return TokenStream("test", np.zeros(sum(lines), np.uint16), 0, 1, 1, 0, edges[0], edges[1])


@settings(deadline=None)
@given(lines=st.lists(st.integers(1, 9), min_size=1, max_size=150), cuts=st.integers(1, 60))
def test_parts_cover_the_stream_once(lines: list[int], cuts: int) -> None:
    documents = [sum(chunk) for chunk in map(list, np.array_split(np.array(lines), min(cuts, len(lines))))]
    source = stream(lines, documents)
    parts = parts_of(source)
    values = np.random.default_rng(0).normal(size=len(source))
    assert parts.offsets[0] == 0
    assert parts.offsets[-1] == len(source)
    assert (np.diff(parts.offsets) > 0).all()
    expected = [values[low:high].sum() for low, high in itertools.pairwise(parts.offsets)]
    np.testing.assert_allclose(parts.sums(values), expected, atol=1e-9)
    enough_lines = len(lines) >= 20
    assert parts.kind == ("documents" if len(documents) >= 20 else f"blocks of {'lines' if enough_lines else 'tokens'}")
    if parts.kind == "blocks of lines":
        assert set(parts.offsets) <= set(source.line_offsets)
        assert len(parts) <= BLOCKS


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator, covered = np.random.default_rng(5), 0
    parts = Parts("documents", np.arange(0, 1001, 20))
    for trial in range(200):
        # Each document has a mean of its own: an interval over tokens would be far too narrow.
        nll = np.repeat(generator.normal(4, 1, 50), 20) + generator.normal(0, 0.5, 1000)
        found = loss_interval(nll, parts, seed=trial, resamples=300)
        covered += found.low <= 4 <= found.high
    assert 178 <= covered <= 200


def test_the_p_value_is_that_of_all_signs() -> None:
    first, second = np.array([3.0, 5.0, 4.0, 6.0, 2.5, 7.0]), np.array([2.0, 5.5, 3.0, 4.0, 2.0, 6.0])
    differences = first - second
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=6)]
    exact = np.mean([value >= abs(differences.sum()) - 1e-9 for value in sums])
    found = paired_difference(first, second, np.array([1.0, 2, 1, 3, 1, 2]), resamples=20000)
    assert found.p_value == pytest.approx(exact, abs=0.01)
    assert found.mean == pytest.approx(differences.sum() / 10)
    assert found.interval.low < found.mean < found.interval.high


def test_a_model_does_not_differ_from_itself() -> None:
    nats = np.random.default_rng(0).normal(5, 1, 40)
    found = paired_difference(nats, nats, np.ones(40))
    assert (found.mean, found.interval.low, found.interval.high, found.p_value) == (0, 0, 0, 1)
    better = paired_difference(nats, nats - 1, np.ones(40))
    assert better.p_value < 0.001
    with pytest.raises(LinguistError, match="40 and 39 parts"):
        paired_difference(nats, nats[1:], np.ones(40))


def test_draws_are_seeded() -> None:
    nll, parts = np.random.default_rng(0).normal(5, 1, 400), Parts("documents", np.arange(0, 401, 10))
    assert loss_interval(nll, parts, seed=1) == loss_interval(nll, parts, seed=1)
    assert loss_interval(nll, parts, seed=1) != loss_interval(nll, parts, seed=2)


def test_the_paired_interval_of_parts_of_different_length_covers_as_often_as_it_says() -> None:
    generator, covered, widths = np.random.default_rng(3), 0, []
    for trial in range(200):
        units = generator.lognormal(5, 1.2, 60)
        # Every token differs by 0.2 nats on average; what varies is the length of the documents.
        differences = units * generator.normal(0.2, 0.05, 60)
        found = paired_difference(differences, np.zeros(60), units, seed=trial, resamples=300)
        covered += found.interval.low <= 0.2 <= found.interval.high
        widths.append(found.interval.high - found.interval.low)
    assert 170 <= covered <= 199
    # Divided by a fixed size, the interval would be about as wide as the total length varies: 0.2 nats.
    assert np.mean(widths) < 0.08
