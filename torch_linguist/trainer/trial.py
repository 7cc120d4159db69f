"""A short training of a copy of the model, judged by validation loss: what the finder and the grid are made of."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch_linguist.model import LanguageModel
from torch_linguist.trainer.optimizers import set_learning_rate
from torch_linguist.trainer.randomness import own_randomness
from torch_linguist.trainer.setup import Setup, untrained_copy
from torch_linguist.trainer.validation import validation_loss


@dataclass(frozen=True)
class Trial:
    """What a short training came to.

    Attributes:
        lr: peak learning rate.
        weight_decay: of the weight matrices.
        steps: updates done.
        train_loss: mean of the last tenth of the updates, nats per token.
        valid_loss: nats per token; infinite where the training diverged.
        seconds: wall clock, validation included.
        status: `finished` or `diverged`.
    """

    lr: float
    weight_decay: float
    steps: int
    train_loss: float
    valid_loss: float
    seconds: float
    status: str


def run_trial(
    model: LanguageModel,
    setup: Setup,
    lr: float,
    weight_decay: float,
    steps: int,
    eval_tokens: int | None,
    progressed: Callable[[float, float], None] = lambda fraction, loss: None,
) -> Trial:
    """Trains a copy of the model for a few steps of the compressed schedule and validates it.

    Every trial starts from the same weights, seed and data order, and leaves no trace.

    Args:
        model: untrained; is not changed.
        setup: corpus and settings.
        lr: peak learning rate.
        weight_decay: of the weight matrices.
        steps: updates.
        eval_tokens: tokens of the validation split that judge it; None for all.
        progressed: told the share of the steps done and the loss.

    Returns:
        The result; a loss that is not finite ends the trial as `diverged`.
    """
    begin = time.perf_counter()
    losses: list[float] = []
    valid_loss, status = math.inf, "diverged"
    with own_randomness(setup.seed):
        pupil = untrained_copy(model)
        loop = setup.loop(pupil, lr, weight_decay)
        schedule = setup.fresh_schedule()
        for step in range(steps):
            set_learning_rate(loop.optimizer, lr * schedule.factor(step / steps))
            losses.append(float(loop.update()))
            progressed((step + 1) / steps, losses[-1])
            if not math.isfinite(losses[-1]):
                break
        else:
            valid_loss = validation_loss(pupil, setup, eval_tokens)
            status = "finished" if math.isfinite(valid_loss) else "diverged"
    recent = losses[-max(1, steps // 10) :]
    return Trial(
        lr=lr,
        weight_decay=weight_decay,
        steps=len(losses),
        train_loss=sum(recent) / len(recent),
        valid_loss=valid_loss if status == "finished" else math.inf,
        seconds=time.perf_counter() - begin,
        status=status,
    )
