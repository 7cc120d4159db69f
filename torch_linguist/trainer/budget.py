"""Budget of a training: which fraction of its limits is used up.

Under `max_minutes`, progress follows the training time, which leaves out validations and checkpoints: the learning rate
does not move while no update is made. The time that remains for updates is estimated from the clock, and each update
moves progress by its share of that time. So progress does not jump, and it reaches 1 when the clock runs out.
"""

import math

from torch_linguist.distributed import processes
from torch_linguist.trainer.settings import TrainerSettings
from torch_linguist.trainer.state import TrainingState

LARGEST_RESERVE = 0.1
"""Largest part of `max_minutes` that is reserved for the validation at the end."""

LARGEST_SPEED = 2.0
"""Largest speed of progress in a time-limited training, relative to its mean speed so far."""

VALIDATION_SHARE = 0.05
"""Share of a training without `eval_every` that validations may take: by the clock and with their samples if there is a
time limit, otherwise by the tokens that they read. The validation at the end and checkpoints come on top."""


class Budget:
    """Measures the progress of a training against its limits.

    Args:
        settings: settings with the limits.

    Attributes:
        validation_seconds: duration of the last validation; 0 before the first.
    """

    def __init__(self, settings: TrainerSettings) -> None:
        self._settings = settings
        self._seen = 0.0
        self.validation_seconds = 0.0

    def start(self, state: TrainingState, max_minutes: float | None) -> None:
        """Begin, or continue with a restored state.

        Args:
            state: state of the training.
            max_minutes: time limit under which the state was saved; another one changes the progress.
        """
        self._seen = state.training_seconds
        if self._settings.max_minutes is None or not self._seen:
            state.time_progress = 0.0
        elif self._settings.max_minutes != max_minutes:
            remaining = self._remaining_training_time(state, self._settings.max_minutes)
            state.time_progress = self._seen / (self._seen + remaining)

    def update(self, state: TrainingState) -> None:
        """Set `state.progress`, the same in all processes: the used fraction of the nearest limit, at most 1."""
        settings = self._settings
        if settings.max_minutes is not None:
            self._advance(state, settings.max_minutes)
        fractions = [
            state.step / settings.max_steps if settings.max_steps else 0.0,
            # An epoch ends with its last batch: rounding must not request one more.
            (state.epochs + 1e-9) / settings.max_epochs if settings.max_epochs else 0.0,
            state.tokens / settings.max_tokens if settings.max_tokens else 0.0,
            state.time_progress,
        ]
        state.progress = min(1.0, max(fractions))

    def _advance(self, state: TrainingState, max_minutes: float) -> None:
        """Move `state.time_progress` by the share that the time since the last call has in the remaining time."""
        before, progress = self._seen, state.time_progress
        self._seen = state.training_seconds
        passed, remaining = self._seen - before, self._remaining_training_time(state, max_minutes)
        if remaining > 0:
            move = (1 - progress) * passed / (passed + remaining)
            # A late validation may leave less time than expected: the clock then ends the training a little early.
            progress += min(move, LARGEST_SPEED * passed * progress / before) if progress else move
        else:
            progress = 1.0
        state.time_progress = processes.broadcast_number(progress)

    def _remaining_training_time(self, state: TrainingState, max_minutes: float) -> float:
        """Estimate the seconds that remain for updates: what validations and checkpoints have taken so far continues.

        Toward the end only one validation is left, so its duration is subtracted instead.
        """
        limit = 60 * max_minutes
        remaining = limit - state.seconds
        share = state.training_seconds / state.seconds if state.training_seconds else 1.0
        if self._settings.eval_every is None:
            share = max(share, 1 - VALIDATION_SHARE)
        reserve = min(self.validation_seconds, LARGEST_RESERVE * limit)
        return max(0.0, min(remaining * share, remaining - reserve))


def remaining_seconds(progress: float, seconds: float) -> float:
    """Return the time left at the speed so far; infinity at the beginning."""
    return seconds * (1 - progress) / progress if progress > 0 else math.inf
