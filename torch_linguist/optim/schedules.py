"""Learning-rate schedules: a factor on the learning rate, as a function of how much of the training is done.

Progress runs from 0 to 1 towards the nearest limit (epochs, steps, tokens or minutes), so that one schedule serves
all of them.
"""

import math
from abc import ABC, abstractmethod

from torch_linguist.errors import ConfigError


class Schedule(ABC):
    """The learning rate's factor over a training."""

    @abstractmethod
    def factor(self, progress: float) -> float:
        """The factor at a progress between 0 and 1."""

    def observe(self, loss: float) -> None:  # noqa: B027  (most schedules need none)
        """Told the validation loss after each validation; only schedules that react to it do anything."""

    def state_dict(self) -> dict[str, float | int]:
        """What has to be kept to go on later; plain types."""
        return {}

    def load_state_dict(self, state: dict[str, float | int]) -> None:  # noqa: B027
        """Takes up what `state_dict` gave."""


def _fraction(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"schedule.{name}={value}: must lie between 0 and 1")


class Constant(Schedule):
    """The learning rate as it is, after a linear warm-up.

    Args:
        warmup: share of the training over which the factor rises from 0 to 1.
    """

    def __init__(self, warmup: float = 0.0) -> None:
        _fraction(warmup=warmup)
        self.warmup = warmup

    def factor(self, progress: float) -> float:
        return _warm(progress, self.warmup)


class _Decay(Schedule):
    """Warm-up, then down to `final` along a shape that goes from 1 to 0."""

    def __init__(self, warmup: float = 0.02, final: float = 0.0) -> None:
        _fraction(warmup=warmup, final=final)
        self.warmup, self.final = warmup, final

    @abstractmethod
    def _shape(self, progress: float) -> float:
        """From 1 at the end of the warm-up down to 0."""

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return _warm(progress, self.warmup)
        return self.final + (1 - self.final) * self._shape(_after(progress, self.warmup))


class Linear(_Decay):
    """Warm-up, then a straight line down to `final`.

    Args:
        warmup: share of the training over which the factor rises from 0 to 1.
        final: the factor at the end.
    """

    def _shape(self, progress: float) -> float:
        return 1 - progress


class Cosine(_Decay):
    """Warm-up, then half a cosine down to `final` (Loshchilov & Hutter 2017, without restarts).

    Args:
        warmup: share of the training over which the factor rises from 0 to 1.
        final: the factor at the end.
    """

    def _shape(self, progress: float) -> float:
        return _half_cosine(progress)


class OneCycle(Schedule):
    """Up from `start` to 1 over `warmup`, then down to `final`, both along half a cosine (Smith & Topin 2018).

    It differs from the paper in that momentum stays as it is.

    Args:
        warmup: share of the training over which the factor rises.
        start: the factor at the beginning.
        final: the factor at the end.
    """

    def __init__(self, warmup: float = 0.1, start: float = 0.04, final: float = 0.001) -> None:
        _fraction(warmup=warmup, start=start, final=final)
        self.warmup, self.start, self.final = warmup, start, final

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return 1 + (self.start - 1) * _half_cosine(progress / self.warmup)
        return self.final + (1 - self.final) * _half_cosine(_after(progress, self.warmup))


class Plateau(Schedule):
    """Divides the factor each time the validation loss has not improved for `patience` validations.

    Args:
        patience: validations without improvement before a cut.
        shrink: what the factor is multiplied with at a cut.
        threshold: smallest improvement in nats per token that counts.
        floor: smallest factor.
        warmup: share of the training over which the factor rises from 0 to 1.
    """

    def __init__(
        self,
        patience: int = 0,
        shrink: float = 0.25,
        threshold: float = 1e-3,
        floor: float = 1e-4,
        warmup: float = 0.02,
    ) -> None:
        _fraction(shrink=shrink, floor=floor, warmup=warmup)
        if patience < 0:
            raise ConfigError(f"schedule.patience={patience}: must be at least 0")
        self.patience, self.shrink, self.threshold, self.floor, self.warmup = patience, shrink, threshold, floor, warmup
        self.current = 1.0
        self.best = math.inf
        self.waited = 0

    def factor(self, progress: float) -> float:
        return self.current * _warm(progress, self.warmup)

    def observe(self, loss: float) -> None:
        if loss < self.best - self.threshold:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.current, self.waited = max(self.floor, self.current * self.shrink), 0

    def state_dict(self) -> dict[str, float | int]:
        return {"current": self.current, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        self.current, self.best, self.waited = float(state["current"]), float(state["best"]), int(state["waited"])


def _warm(progress: float, warmup: float) -> float:
    return 1.0 if warmup == 0 else min(1.0, progress / warmup)


def _after(progress: float, warmup: float) -> float:
    """Progress of what follows the warm-up."""
    return 1.0 if warmup >= 1 else min(1.0, (progress - warmup) / (1 - warmup))


def _half_cosine(progress: float) -> float:
    """From 1 down to 0."""
    return 0.5 * (1 + math.cos(math.pi * progress))
