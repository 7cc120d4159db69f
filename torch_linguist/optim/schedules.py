"""Learning-rate schedules: a factor for the learning rate as a function of progress.

Progress runs from 0 to 1 toward the nearest limit (epochs, steps, tokens or minutes), so a schedule works with any.
"""

import math
from abc import ABC, abstractmethod

from torch_linguist.errors import ConfigError


class Schedule(ABC):
    """Factor of the learning rate over a training.

    Example:
        >>> class Half(Schedule):
        ...     def factor(self, progress):
        ...         return 0.5
        >>> Half().factor(0.3)
        0.5
    """

    @abstractmethod
    def factor(self, progress: float) -> float:
        """Return the factor at a progress between 0 and 1."""

    def observe(self, loss: float) -> None:  # noqa: B027  (most schedules need none)
        """React to a validation loss; most schedules do not."""

    def state_dict(self) -> dict[str, float | int]:
        """Return the state as plain types."""
        return {}

    def load_state_dict(self, state: dict[str, float | int]) -> None:  # noqa: B027
        """Restore the result of `state_dict`."""


def _fraction(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"schedule.{name}={value}: must lie between 0 and 1")


class Constant(Schedule):
    """Constant learning rate after a linear warm-up.

    Args:
        warmup: fraction of the training over which the factor rises from 0 to 1.

    Example:
        >>> [round(Constant(warmup=0.1).factor(progress), 2) for progress in (0.05, 0.5, 1.0)]
        [0.5, 1.0, 1.0]
    """

    def __init__(self, warmup: float = 0.0) -> None:
        _fraction(warmup=warmup)
        self.warmup = warmup

    def factor(self, progress: float) -> float:
        return _warm(progress, self.warmup)


class _Decay(Schedule):
    """Warm-up, then a decay to `final` with a given shape."""

    def __init__(self, warmup: float = 0.02, final: float = 0.0) -> None:
        _fraction(warmup=warmup, final=final)
        self.warmup, self.final = warmup, final

    @abstractmethod
    def _shape(self, progress: float) -> float:
        """Return the shape of the decay, which falls from 1 to 0."""

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return _warm(progress, self.warmup)
        return self.final + (1 - self.final) * self._shape(_after(progress, self.warmup))


class Linear(_Decay):
    """Warm-up, then a linear decay to `final`.

    Args:
        warmup: fraction of the training over which the factor rises from 0 to 1.
        final: factor at the end.

    Example:
        >>> [round(Linear(warmup=0.0).factor(progress), 2) for progress in (0.0, 0.5, 1.0)]
        [1.0, 0.5, 0.0]
    """

    def _shape(self, progress: float) -> float:
        return 1 - progress


class WarmupStableDecay(Schedule):
    """Warm-up, then a constant learning rate, then a linear decay to `final` (Hu et al. 2024, "MiniCPM").

    Args:
        warmup: fraction of the training over which the factor rises from 0 to 1.
        decay: fraction of the training, at its end, over which the factor falls.
        final: factor at the end.

    Example:
        >>> schedule = WarmupStableDecay(warmup=0.1, decay=0.5)
        >>> [round(schedule.factor(progress), 2) for progress in (0.1, 0.5, 1.0)]
        [1.0, 1.0, 0.0]
    """

    def __init__(self, warmup: float = 0.02, decay: float = 0.4, final: float = 0.0) -> None:
        _fraction(warmup=warmup, decay=decay, final=final)
        if warmup + decay > 1:
            raise ConfigError(f"schedule.decay={decay}: must be at most 1 - schedule.warmup={1 - warmup:g}")
        self.warmup, self.decay, self.final = warmup, decay, final

    def factor(self, progress: float) -> float:
        if self.decay == 0:
            return _warm(progress, self.warmup)
        left = min(1.0, max(0.0, 1 - progress) / self.decay)
        return min(_warm(progress, self.warmup), self.final + (1 - self.final) * left)


class Cosine(_Decay):
    """Warm-up, then a cosine decay to `final` (Loshchilov & Hutter 2017, without restarts).

    Args:
        warmup: fraction of the training over which the factor rises from 0 to 1.
        final: factor at the end.

    Example:
        >>> [round(Cosine(warmup=0.0).factor(progress), 2) for progress in (0.0, 0.5, 1.0)]
        [1.0, 0.5, 0.0]
    """

    def _shape(self, progress: float) -> float:
        return _half_cosine(progress)


class OneCycle(Schedule):
    """Rise from `start` to 1 over `warmup`, then decay to `final`, both with half a cosine (Smith & Topin 2018).

    Unlike in the paper, momentum is not changed.

    Args:
        warmup: fraction of the training over which the factor rises.
        start: factor at the beginning.
        final: factor at the end.

    Example:
        >>> [round(OneCycle().factor(progress), 2) for progress in (0.0, 0.1, 1.0)]
        [0.04, 1.0, 0.0]
    """

    def __init__(self, warmup: float = 0.1, start: float = 0.04, final: float = 0.001) -> None:
        _fraction(warmup=warmup, start=start, final=final)
        self.warmup, self.start, self.final = warmup, start, final

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return 1 + (self.start - 1) * _half_cosine(progress / self.warmup)
        return self.final + (1 - self.final) * _half_cosine(_after(progress, self.warmup))


class Plateau(Schedule):
    """Reduces the factor whenever the validation loss has not improved for `patience` validations.

    Args:
        patience: validations without improvement before a reduction.
        shrink: multiplier of the factor at a reduction.
        threshold: smallest improvement that counts, in nats per token.
        floor: smallest factor.
        warmup: fraction of the training over which the factor rises from 0 to 1.

    Example:
        >>> schedule = Plateau(shrink=0.5)
        >>> for loss in (5.0, 5.0):
        ...     schedule.observe(loss)
        >>> schedule.factor(0.5)
        0.5
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
    """Return the progress of the part after the warm-up."""
    return 1.0 if warmup >= 1 else min(1.0, (progress - warmup) / (1 - warmup))


def _half_cosine(progress: float) -> float:
    """Return half a cosine, which falls from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * progress))
