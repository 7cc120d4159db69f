"""How much of a training is done, whatever limits it."""

import math
from dataclasses import dataclass

from torch_linguist.trainer.settings import TrainerSettings


@dataclass(frozen=True)
class Spent:
    """What a training has used up so far.

    Attributes:
        steps: optimizer updates.
        epochs: passes over the training split, fractions included.
        tokens: training tokens.
        seconds: wall clock since the first update, validation included.
    """

    steps: int
    epochs: float
    tokens: int
    seconds: float


def progress(spent: Spent, settings: TrainerSettings) -> float:
    """The share of the nearest limit that is used up, 0 to 1; the training ends at 1."""
    shares = [
        spent.steps / settings.max_steps if settings.max_steps else 0.0,
        # An epoch ends with its last batch: rounding must not ask for one more.
        (spent.epochs + 1e-9) / settings.max_epochs if settings.max_epochs else 0.0,
        spent.tokens / settings.max_tokens if settings.max_tokens else 0.0,
        spent.seconds / (60 * settings.max_minutes) if settings.max_minutes else 0.0,
    ]
    return min(1.0, max(shares))


def remaining_seconds(done: float, seconds: float) -> float:
    """The time left at the pace so far; infinity before there is one."""
    return seconds * (1 - done) / done if done > 0 else math.inf
