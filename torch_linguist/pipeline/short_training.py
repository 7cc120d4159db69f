"""A short training of a copy of the model, judged by validation loss: what the finder and the grid are made of."""

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from torch_linguist.model import LanguageModel
from torch_linguist.optim.optimizers import set_learning_rate
from torch_linguist.trainer.context import TrainingContext, untrained_copy
from torch_linguist.trainer.randomness import own_randomness
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
        status: `finished`, `diverged`, or `stopped` where somebody was not satisfied on the way.
        error: what was not finite; empty where nothing was.
        rungs: updates and validation loss of each look on the way.
    """

    lr: float
    weight_decay: float
    steps: int
    train_loss: float
    valid_loss: float
    seconds: float
    status: str
    error: str = ""
    rungs: tuple[tuple[int, float], ...] = ()


def run_trial(
    model: LanguageModel,
    context: TrainingContext,
    lr: float,
    weight_decay: float,
    steps: int,
    eval_tokens: int | None,
    progressed: Callable[[float, float], None] = lambda fraction, loss: None,
    rungs: Collection[int] = (),
    satisfied: Callable[[int, float], bool] = lambda step, loss: True,
) -> Trial:
    """Trains a copy of the model for a few steps of the compressed schedule and validates it.

    Every trial starts from the same weights, seed and data order, and leaves no trace.

    Args:
        model: untrained; is not changed.
        context: corpus and settings.
        lr: peak learning rate.
        weight_decay: of the weight matrices.
        steps: updates.
        eval_tokens: tokens of the validation split that judge it; None for all.
        progressed: told the share of the steps done and the loss.
        rungs: updates after which the validation loss is looked at on the way; a look changes nothing in the training.
        satisfied: told of each look; where it says no, the trial ends there.

    Returns:
        The result; a loss that is not finite ends the trial as `diverged`.
    """
    begin = time.perf_counter()
    losses: list[float] = []
    looks: list[tuple[int, float]] = []
    valid_loss, status, error = math.inf, "diverged", ""
    with own_randomness(context.seed):
        pupil = untrained_copy(model)
        loop = context.prepare_training(pupil, lr, weight_decay)
        schedule = context.fresh_schedule()
        for step in range(steps):
            set_learning_rate(loop.optimizer, lr * schedule.factor(step / steps))
            losses.append(float(loop.update()))
            progressed((step + 1) / steps, losses[-1])
            if not math.isfinite(losses[-1]):
                error = f"the training loss is {losses[-1]} at update {step + 1}"
                break
            if step + 1 in rungs and step + 1 < steps:
                looks.append((step + 1, validation_loss(pupil, context, eval_tokens)))
                if not satisfied(*looks[-1]):
                    valid_loss, status = looks[-1][1], "stopped"
                    break
        else:
            valid_loss = validation_loss(pupil, context, eval_tokens)
            status = "finished" if math.isfinite(valid_loss) else "diverged"
            error = "" if status == "finished" else f"the validation loss is {valid_loss}"
    recent = losses[-max(1, steps // 10) :]
    return Trial(
        lr=lr,
        weight_decay=weight_decay,
        steps=len(losses),
        train_loss=sum(recent) / len(recent),
        valid_loss=math.inf if status == "diverged" else valid_loss,
        seconds=time.perf_counter() - begin,
        status=status,
        error=error,
        rungs=tuple(looks),
    )
