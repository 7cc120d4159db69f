"""Schedules at points whose factors are known by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_linguist.errors import ConfigError
from torch_linguist.optim import Constant, Cosine, Linear, OneCycle, Plateau, Schedule, WarmupStableDecay


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (Constant(), {0: 1, 0.5: 1, 1: 1}),
        (Constant(warmup=0.2), {0: 0, 0.1: 0.5, 0.2: 1, 0.9: 1}),
        (Linear(warmup=0.0, final=0.0), {0: 1, 0.25: 0.75, 1: 0}),
        (Linear(warmup=0.2, final=0.1), {0: 0, 0.1: 0.5, 0.2: 1, 0.6: 0.55, 1: 0.1}),
        (Cosine(warmup=0.0, final=0.0), {0: 1, 1 / 3: 0.75, 0.5: 0.5, 2 / 3: 0.25, 1: 0}),
        (Cosine(warmup=0.5, final=0.2), {0.25: 0.5, 0.5: 1, 0.75: 0.6, 1: 0.2}),
        (OneCycle(warmup=0.4, start=0.04, final=0.0), {0: 0.04, 0.2: 0.52, 0.4: 1, 0.7: 0.5, 1: 0}),
        (OneCycle(warmup=0.0, final=0.5), {0: 1, 0.5: 0.75, 1: 0.5}),
        (WarmupStableDecay(0.2, 0.4, 0.1), {0: 0, 0.1: 0.5, 0.2: 1, 0.6: 1, 0.8: 0.55, 1: 0.1}),
        (WarmupStableDecay(0.0, 0.0), {0: 1, 1: 1}),
        (Plateau(warmup=0.5), {0: 0, 0.25: 0.5, 0.5: 1, 1: 1}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Schedule) else "",
)
def test_factors(schedule: Schedule, points: dict[float, float]) -> None:
    assert {point: schedule.factor(point) for point in points} == {
        point: pytest.approx(factor, abs=1e-12) for point, factor in points.items()
    }


@given(
    warmup=st.floats(0, 1),
    start=st.floats(0, 1),
    final=st.floats(0, 1),
    progress=st.floats(0, 1),
    kind=st.sampled_from([Linear, Cosine, OneCycle]),
)
def test_factors_lie_between_the_ends(warmup: float, start: float, final: float, progress: float, kind: type) -> None:
    schedule = kind(warmup, start, final) if kind is OneCycle else kind(warmup, final)
    lowest = min(final, start if kind is OneCycle else 0.0)
    assert lowest - 1e-12 <= schedule.factor(progress) <= 1 + 1e-12


def test_plateau_cuts_after_its_patience() -> None:
    schedule = Plateau(patience=1, shrink=0.5, threshold=0.1, floor=0.2, warmup=0.0)
    factors = []
    for loss in (5.0, 4.95, 4.0, 4.0, 3.95, 3.0, 3.0, 3.0, 3.0, 3.0):
        schedule.observe(loss)
        factors.append(schedule.factor(0.5))
    # 4.95 is no improvement of 0.1; the second validation in a row without one cuts.
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2]


def test_plateau_goes_on_from_its_state() -> None:
    one, other = (Plateau(patience=1, shrink=0.5, warmup=0.0) for _ in range(2))
    for loss in (5.0, 5.0):
        one.observe(loss)
    other.load_state_dict(one.state_dict())
    for schedule in (one, other):
        schedule.observe(5.0)
    assert one.factor(1) == other.factor(1) == 0.5
    assert other.best == 5.0
    assert math.isinf(Plateau().best)


@pytest.mark.parametrize(
    ("kind", "options", "names"),
    [
        (Constant, {"warmup": -0.1}, "schedule.warmup=-0.1"),
        (Linear, {"final": 1.5}, "schedule.final=1.5"),
        (Cosine, {"warmup": 2}, "schedule.warmup=2"),
        (OneCycle, {"start": math.nan}, "schedule.start=nan"),
        (Plateau, {"shrink": 4}, "schedule.shrink=4"),
        (Plateau, {"patience": -1}, "schedule.patience=-1"),
    ],
)
def test_wrong_values_are_named(kind: type[Schedule], options: dict[str, float], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        kind(**options)
