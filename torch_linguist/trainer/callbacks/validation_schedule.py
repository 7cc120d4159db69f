"""Validation schedule: after which updates a training is validated."""

import math
import sys
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from torch_linguist.distributed import processes
from torch_linguist.evaluation.scoring import default_stride
from torch_linguist.trainer.budget import VALIDATION_SHARE
from torch_linguist.trainer.callback import Callback

if TYPE_CHECKING:
    from torch_linguist.trainer.fit import Fit

VALIDATIONS = 10
"""Validations of a training without `eval_every`, if they are cheap enough."""

CHEAP = 10_000
"""Tokens that a validation reads without being held against `VALIDATION_SHARE`."""

PASSES = 3
"""Cost of a training token relative to a token that is only read: the backward pass takes twice the time of the
forward pass."""


class ValidationSchedule(Callback):
    """Validates every `eval_every` updates, or at each tenth of the progress, and at the end.

    Args:
        eval_every: updates between validations; None validates at each tenth of the progress, or less often if
            validations read so many tokens that they would cost more than `VALIDATION_SHARE` of the training.
        timed: whether the training has a time limit. Validations at tenths are then also rarer if they, with their
            samples, are slow (`VALIDATION_SHARE`); under other limits they follow the token counts alone, so that they
            stay at fixed updates.
        steps: updates after which a repeated training was validated; None follows the other arguments.
    """

    def __init__(self, eval_every: int | None, timed: bool, steps: Collection[int] | None = None) -> None:
        self._eval_every, self._timed, self._steps = eval_every, timed, steps
        self._next = 1 / VALIDATIONS
        self._overhead, self._tokens = 0.0, 0

    def after_update(self, training: "Fit") -> None:
        if self._is_due(training):
            training.validate()

    def _is_due(self, training: "Fit") -> bool:
        state = training.state
        if self._steps is not None:
            return state.step in self._steps
        if self._eval_every is not None:
            return state.step % self._eval_every == 0
        if state.progress < self._next:
            return False
        cost = tokens_read(training)
        if cost > CHEAP and (state.tokens - self._tokens) * PASSES * VALIDATION_SHARE < cost:
            return False
        # One more will cost what the last one did, with all that followed it.
        spent = 2 * _seconds_spent(training) - self._overhead
        affordable = spent <= VALIDATION_SHARE * state.seconds
        return not self._timed or bool(processes.broadcast_number(affordable))

    def before_validation(self, training: "Fit") -> None:
        self._overhead = _seconds_spent(training)

    def validated(self, training: "Fit", loss: float) -> None:
        self._tokens = training.state.tokens
        self._next = (math.floor(training.state.progress * VALIDATIONS) + 1) / VALIDATIONS

    def training_ended(self, training: "Fit") -> None:
        if training.status == "finished" and training.state.validated_at != training.state.step:
            training.validate()

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next, "tokens": self._tokens, "overhead_seconds": self._overhead}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._next, self._tokens = float(state["next"]), int(state.get("tokens", 0))
        self._overhead = float(state.get("overhead_seconds", 0.0))


def _seconds_spent(training: "Fit") -> float:
    """Return the seconds spent on validations and samples; checkpoints have a bound of their own."""
    return training.state.overhead_seconds - training.state.checkpoint_seconds


def tokens_read(training: "Fit") -> int:
    """Return the number of tokens that a validation reads; those in overlapping windows count several times."""
    context, model = training.context, training.model
    scored = min(context.settings.eval_tokens or sys.maxsize, len(context.corpus.valid))
    if not model.context_length:
        return scored
    return scored * model.context_length // (context.score.stride or default_stride(model))
