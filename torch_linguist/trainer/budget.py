"""Budget of a training: which fraction of its limits is used up."""

import math

from torch_linguist.trainer.settings import TrainerSettings
from torch_linguist.trainer.state import TrainingState


def progress(state: TrainingState, settings: TrainerSettings) -> float:
    """Return the fraction of the nearest limit that is used up, from 0 to 1; the training ends at 1."""
    fractions = [
        state.step / settings.max_steps if settings.max_steps else 0.0,
        # An epoch ends with its last batch: rounding must not request one more.
        (state.epochs + 1e-9) / settings.max_epochs if settings.max_epochs else 0.0,
        state.tokens / settings.max_tokens if settings.max_tokens else 0.0,
        state.seconds / (60 * settings.max_minutes) if settings.max_minutes else 0.0,
    ]
    return min(1.0, max(fractions))


def remaining_seconds(progress: float, seconds: float) -> float:
    """Return the time left at the speed so far; infinity at the beginning."""
    return seconds * (1 - progress) / progress if progress > 0 else math.inf
