"""Stage `lr_find`: an exponential range test, then short trials around its suggestion.

Smith 2017, "Cyclical learning rates for training neural networks". The test runs on a copy of the model with data
and random state of its own, so the model, the optimizer, the data and every random state stay bit for bit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from torch_linguist.model import LanguageModel
from torch_linguist.optim.optimizers import set_learning_rate
from torch_linguist.pipeline.lr_suggestions import suggest
from torch_linguist.pipeline.short_training import Trial, run_trial
from torch_linguist.runs.csv_table import Table
from torch_linguist.trainer.context import TrainingContext, untrained_copy
from torch_linguist.trainer.randomness import own_randomness
from torch_linguist.trainer.settings import LRFindSettings

MOST_SKIPPED = 5
"""Updates that a test may skip for a loss or gradient that is not finite before it takes the model for diverged."""

MOST_EXTRA_TRIALS = 3
"""How far the trials may walk on when the best lies at the edge of those tried."""


@dataclass(frozen=True)
class RangeTest:
    """The curve of a range test.

    Attributes:
        rates: learning rates, ascending [n].
        losses: of the training, nats per token [n].
        smoothed: exponential moving average with bias correction [n].
        suggestion: the learning rate picked, or None.
        reason: why there is no suggestion; empty where there is one.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float | None
    reason: str


@dataclass(frozen=True)
class LRFindResult:
    """What the stage came to.

    Attributes:
        lr: the learning rate to train with.
        test: the range test.
        trials: short trainings, in the order they ran; empty where none were asked for.
        ranked: the learning rates tried, best first.
    """

    lr: float
    test: RangeTest
    trials: list[Trial]
    ranked: list[float]


def range_test(
    model: LanguageModel,
    context: TrainingContext,
    settings: LRFindSettings,
    table: Path | None = None,
    progressed: Callable[[float, float], None] = lambda fraction, loss: None,
) -> RangeTest:
    """Raises the learning rate from `start` to `end` by a constant factor an update, and watches the loss.

    The loss at each point is that of the batch (of all `accumulate` batches) before its update; an update that is
    skipped is no point. The test ends early where the smoothed loss exceeds
    its best by `diverged`, or is not finite. Data shorter than the test are cycled.

    Args:
        model: untrained; is not changed.
        context: corpus and settings.
        settings: ends, number of steps, smoothing, method.
        table: a CSV file, a row an update; None for none.
        progressed: told the share of the steps done and the loss.

    Returns:
        The curve and its suggestion.
    """
    rows = Table(table, ["step", "lr", "loss", "smoothed"]) if table else None
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average, best, skipped = 0.0, math.inf, 0
    with own_randomness(context.seed):
        loop = context.prepare_training(untrained_copy(model), settings.start, 0.0)
        while len(rates) < settings.steps and skipped < MOST_SKIPPED:
            step = len(rates)
            lr = settings.start * (settings.end / settings.start) ** (step / (settings.steps - 1))
            set_learning_rate(loop.optimizer, lr)
            loss = float(loop.update())
            if loop.state.skipped:
                # The weights did not move: the next update is tried at the same learning rate.
                skipped += 1
                continue
            if not math.isfinite(loss):
                break
            average = settings.smoothing * average + (1 - settings.smoothing) * loss
            corrected = average / (1 - settings.smoothing ** (step + 1))
            rates.append(lr)
            losses.append(loss)
            smoothed.append(corrected)
            if rows:
                rows.add({"step": step + 1, "lr": lr, "loss": loss, "smoothed": corrected})
            progressed((step + 1) / settings.steps, loss)
            best = min(best, corrected)
            if step > settings.steps // 10 and corrected > settings.diverged * best:
                break
    test = RangeTest(np.array(rates), np.array(losses), np.array(smoothed), None, "")
    suggestion = suggestion_of(test, settings, settings.suggestion)
    return replace(test, suggestion=suggestion, reason="" if suggestion else _reason(test, settings))


def suggestion_of(test: RangeTest, settings: LRFindSettings, method: str) -> float | None:
    """What a method picks on the curve of a range test, its first tenth left out; None where it picks nothing.

    Args:
        test: the curve.
        settings: of the test.
        method: `valley`, `steep`, `minimum` or `slide`.
    """
    skipped = _skipped(test, settings)
    return suggest(method, test.rates[skipped:], test.smoothed[skipped:]) if len(test.rates) else None


def _skipped(test: RangeTest, settings: LRFindSettings) -> int:
    """How many points at the beginning say nothing: the average has hardly begun there."""
    return min(settings.steps // 10, max(0, len(test.rates) - 5))


def _reason(test: RangeTest, settings: LRFindSettings) -> str:
    """Why there is no suggestion."""
    curve = test.smoothed[_skipped(test, settings) :]
    if len(test.rates) < 5:
        return f"the loss was not finite after {len(test.rates)} steps"
    if curve.min() >= curve[0]:
        return "the loss never fell"
    return f"the method {settings.suggestion} finds no point on its curve"


def find_learning_rate(
    model: LanguageModel,
    context: TrainingContext,
    settings: LRFindSettings,
    folder: Path,
    progressed: Callable[[float, float], None] = lambda fraction, loss: None,
    test: RangeTest | None = None,
) -> LRFindResult:
    """Range test, then trials around its suggestion; where the best trial lies at an edge, further ones beyond it.

    Args:
        model: untrained; is not changed.
        context: corpus and settings.
        settings: of the test and of the trials.
        folder: gets `lr_finder.csv` and `lr_trials.csv`.
        progressed: told the share of the stage done and the loss.
        test: a range test with these settings that is there already; None makes one.

    Returns:
        The learning rate, by the lowest validation loss; the suggestion itself without trials; `settings.default`
        where the test suggests nothing or no trial converges.
    """
    planned = len(settings.trial_factors) if settings.trial_steps else 0
    whole = settings.steps + planned * settings.trial_steps
    done = 0

    def stretch(part: int) -> Callable[[float, float], None]:
        return lambda fraction, loss: progressed(min(1.0, (done + fraction * part) / whole), loss)

    test = test or range_test(model, context, settings, folder / "lr_finder.csv", stretch(settings.steps))
    done += settings.steps
    center = test.suggestion
    if center is None or not planned:
        chosen = settings.default if center is None else center
        return LRFindResult(chosen, test, [], [chosen])

    rows = Table(folder / "lr_trials.csv", ROW_COLUMNS)
    trials: list[Trial] = []

    def attempt(lr: float) -> None:
        nonlocal done
        part = settings.trial_steps
        trial = run_trial(model, context, lr, 0.0, part, settings.eval_tokens, stretch(part))
        done += part
        trials.append(trial)
        rows.add({column: getattr(trial, column) for column in ROW_COLUMNS})

    for factor in sorted(settings.trial_factors):
        attempt(center * factor)
    for _ in range(MOST_EXTRA_TRIALS):
        further = _beyond_the_edge(trials)
        if further is None:
            break
        attempt(further)
    converged = sorted((trial for trial in trials if trial.status == "finished"), key=lambda trial: trial.valid_loss)
    if not converged:
        return LRFindResult(settings.default, test, trials, [settings.default])
    return LRFindResult(converged[0].lr, test, trials, [trial.lr for trial in converged])


ROW_COLUMNS = ("lr", "train_loss", "valid_loss", "steps", "seconds", "status")


def _beyond_the_edge(trials: list[Trial]) -> float | None:
    """The next learning rate outward where the best trial is the first or the last of those tried."""
    ordered = sorted(trials, key=lambda trial: trial.lr)
    if len(ordered) < 2:
        return None
    best = min(range(len(ordered)), key=lambda index: ordered[index].valid_loss)
    if not math.isfinite(ordered[best].valid_loss):
        return ordered[0].lr / 3
    if best == 0:
        return ordered[0].lr ** 2 / ordered[1].lr
    if best == len(ordered) - 1:
        return ordered[-1].lr ** 2 / ordered[-2].lr
    return None
