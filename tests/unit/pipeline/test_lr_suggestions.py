"""The four methods on curves whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from torch_linguist.pipeline.lr_suggestions import METHODS, suggest

RATES = np.geomspace(1e-5, 10, 121)
X = np.log10(RATES)


def test_steep_finds_the_steepest_point_of_a_logistic_fall() -> None:
    losses = 3 + 4 / (1 + np.exp(5 * (X + 2)))  # Falls fastest at 10^-2.
    assert suggest("steep", RATES, losses) == pytest.approx(1e-2, rel=0.06)


def test_minimum_is_a_tenth_of_the_lowest_point() -> None:
    assert suggest("minimum", RATES, 5 + (X + 1) ** 2) == pytest.approx(1e-2, rel=0.06)


def test_valley_is_the_middle_of_the_longest_fall() -> None:
    # Flat to 10^-4, falls to 10^-1, then rises: the middle of the fall is 10^-2.5.
    losses = np.interp(X, [-5, -4, -1, 1], [7.0, 7.0, 3.0, 20.0])
    assert suggest("valley", RATES, losses) == pytest.approx(10**-2.5, rel=0.1)


def test_valley_bears_bumps() -> None:
    losses = np.interp(X, [-5, -4, -1, 1], [7.0, 7.0, 3.0, 20.0])
    losses[[30, 50, 60, 70]] += 0.4
    assert suggest("valley", RATES, losses) == pytest.approx(10**-2.5, rel=0.25)


def test_slide_stops_where_the_fall_is_even() -> None:
    # Even fall down to 10^-1, then an ever steeper rise: the window fits once its right end has left the rise.
    losses = np.where(X < -1, -X + 2, 3 + 10 * (X + 1) ** 2)
    chosen = suggest("slide", RATES, losses)
    edge = int(np.argmin(losses))
    assert chosen == pytest.approx(RATES[edge - 1 - 15], rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "losses", [np.full(121, 5.0), np.linspace(5, 9, 121), np.array([5.0, 4.0, 3.0])], ids=["flat", "rising", "short"]
)
def test_no_fall_no_suggestion(method: str, losses: np.ndarray) -> None:
    assert suggest(method, RATES[: len(losses)], losses) is None


@given(losses=arrays(np.float64, st.integers(5, 60), elements=st.floats(0, 100)), method=st.sampled_from(list(METHODS)))
def test_the_suggestion_is_in_the_range_for_every_curve(losses: np.ndarray, method: str) -> None:
    rates = RATES[: len(losses)]
    chosen = suggest(method, rates, losses)
    assert chosen is None or rates[0] / 10 <= chosen <= rates[-1]
