"""The fits and the statistics, against laws whose parameters are known and against counting by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.explore.fits import (
    _kolmogorov_tail,
    fit_heaps,
    fit_power_law,
    fit_zipf,
    jensen_shannon,
    kolmogorov_smirnov,
    total_variation,
    vocabulary_growth,
)

SAMPLES = st.lists(st.integers(0, 20), min_size=1, max_size=30)


def test_zipf_gives_back_the_exponent_of_a_law() -> None:
    law = fit_zipf((1e9 * np.arange(1, 5001) ** -1.1).round().astype(int))
    assert law is not None
    assert law.exponent == pytest.approx(-1.1, abs=1e-3)
    assert law.r_squared == pytest.approx(1, abs=1e-4)
    assert law(1) == pytest.approx(1e9, rel=1e-2)


def test_heaps_gives_back_the_law() -> None:
    tokens = np.unique(np.geomspace(1, 1e6, 300).round())
    law = fit_heaps(tokens, 7 * tokens**0.6)
    assert law is not None
    assert law.scale == pytest.approx(7)
    assert law.exponent == pytest.approx(0.6)


def test_too_few_points_make_no_law() -> None:
    assert fit_zipf([5, 3]) is None
    assert fit_zipf([]) is None
    assert fit_power_law([1, 1, 2], [1, 2, 3]) is None


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_growth_counts_the_types_of_each_beginning(ids: list[int]) -> None:
    tokens, types = vocabulary_growth(ids)
    assert tokens[-1] == len(ids)
    assert [len(set(ids[:count])) for count in tokens] == types.tolist()


@given(SAMPLES, SAMPLES)
@settings(max_examples=100, deadline=None)
def test_kolmogorov_smirnov_is_the_largest_distance_of_the_distribution_functions(a: list[int], b: list[int]) -> None:
    by_hand = max(abs(sum(x <= v for x in a) / len(a) - sum(x <= v for x in b) / len(b)) for v in range(21))
    found = kolmogorov_smirnov(a, b)
    assert found.statistic == pytest.approx(by_hand)
    assert 0 <= found.p_value <= 1
    assert kolmogorov_smirnov(b, a) == pytest.approx(found)


@pytest.mark.parametrize(("x", "tail"), [(1.2238, 0.10), (1.3581, 0.05), (1.6276, 0.01), (1.9495, 0.001)])
def test_the_limit_has_the_critical_values_of_the_tables(x: float, tail: float) -> None:
    assert _kolmogorov_tail(x) == pytest.approx(tail, rel=2e-3)


def test_both_series_of_the_limit_agree_where_they_meet() -> None:
    assert _kolmogorov_tail(1.18 - 1e-9) == pytest.approx(_kolmogorov_tail(1.18 + 1e-9), abs=1e-8)
    assert _kolmogorov_tail(0) == 1


def test_the_p_values_are_uniform_where_nothing_differs() -> None:
    generator = np.random.default_rng(3)
    low = [kolmogorov_smirnov(generator.normal(size=400), generator.normal(size=300)).p_value < 0.2 for _ in range(400)]
    assert np.mean(low) == pytest.approx(0.2, abs=0.06)


def test_total_variation_and_its_permutations() -> None:
    assert total_variation([50, 50], [5, 5]).statistic == 0
    assert total_variation([50, 50], [5, 5]).p_value == 1
    apart = total_variation([10, 0], [0, 10])
    assert apart.statistic == 1
    # Two of the C(20, 10) ways to deal the documents out are as extreme.
    assert apart.p_value == pytest.approx(1 / 2001)
    # One of four documents in the smaller sample: P(it is the odd one) is 1/4, and no dealing is less extreme than 1/3.
    assert total_variation([3, 0], [0, 1], draws=20000).p_value == pytest.approx(0.25, abs=0.01)


def test_jensen_shannon_at_its_ends() -> None:
    assert jensen_shannon([2, 4, 0], [1, 2, 0]) == pytest.approx(0)
    assert jensen_shannon([1, 0], [0, 3]) == pytest.approx(1)
    middle = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) - 0.5
    assert jensen_shannon([1, 1], [1, 0]) == pytest.approx(middle)
