"""Learning-rate range test (Smith 2017, "Cyclical learning rates for training neural networks").

The test runs on a copy of the model with its own data order and random state: the model and every random state stay
bit for bit as they were.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from torch_linguist.model import LanguageModel
from torch_linguist.optim.optimizers import set_learning_rate
from torch_linguist.pipeline.lr_suggestions import suggest
from torch_linguist.runs.csv_table import Table
from torch_linguist.trainer.context import TrainingContext, untrained_copy
from torch_linguist.trainer.randomness import own_randomness

MOST_SKIPPED = 5
"""Updates that a test may skip for a non-finite loss or gradient before the model counts as diverged."""

FEWEST_POINTS = 5
"""Points that a suggestion needs."""


@dataclass(frozen=True)
class RangeTest:
    """Curve of a range test.

    Attributes:
        rates: learning rates, ascending [n].
        losses: training losses, nats per token [n].
        smoothed: exponential moving average of the losses with bias correction [n].
        steps: number of updates the test was to make.
        suggestion: the suggested learning rate, or None.
        reason: why there is no suggestion; empty if there is one.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    steps: int
    suggestion: float | None = None
    reason: str = ""

    @property
    def skipped(self) -> int:
        """Number of points at the beginning, a tenth of the test, where the moving average says little."""
        return min(self.steps // 10, max(0, len(self.rates) - FEWEST_POINTS))

    def suggest(self, method: str) -> float | None:
        """Return the learning rate that a method picks on the curve, or None.

        Args:
            method: `valley`, `steep`, `minimum` or `slide`.
        """
        return suggest(method, self.rates[self.skipped :], self.smoothed[self.skipped :]) if len(self.rates) else None

    def with_suggestion(self, method: str) -> "RangeTest":
        """Return the curve with the suggestion of a method, or with the reason why there is none."""
        suggestion = self.suggest(method)
        return replace(self, suggestion=suggestion, reason="" if suggestion else self._reason(method))

    def _reason(self, method: str) -> str:
        curve = self.smoothed[self.skipped :]
        if len(self.rates) < FEWEST_POINTS:
            return f"the loss was not finite after {len(self.rates)} steps"
        if curve.min() >= curve[0]:
            return "the loss never fell"
        return f"the method {method} finds no point on its curve"


def range_test(
    model: LanguageModel,
    training: TrainingContext,
    start: float,
    end: float,
    steps: int,
    smoothing: float = 0.9,
    diverged: float = 4.0,
    table: Path | None = None,
    progressed: Callable[[float, float], None] = lambda fraction, loss: None,
) -> RangeTest:
    """Raise the learning rate from `start` to `end` by a constant factor per update and record the loss.

    The loss at a point is that of its batch (of all `accumulate` batches) before the update. A skipped update is not
    a point. The test ends early where the smoothed loss exceeds its lowest value by the factor `diverged`, or is not
    finite. Data shorter than the test is repeated.

    Args:
        model: untrained model, left unchanged.
        training: corpus and settings.
        start: first learning rate.
        end: last learning rate.
        steps: number of updates.
        smoothing: weight of the past in the moving average.
        diverged: factor above the lowest smoothed loss at which the test stops.
        table: path of the CSV file, one row per update; None for no file.
        progressed: called with the share of the steps done and the loss.

    Returns:
        The curve, without a suggestion.
    """
    rows = Table(table, ["step", "lr", "loss", "smoothed"]) if table else None
    rates: list[float] = []
    losses: list[float] = []
    averages: list[float] = []
    average, best, skipped = 0.0, math.inf, 0
    with own_randomness(training.seed):
        loop = training.prepare_training(untrained_copy(model), start, 0.0)
        while len(rates) < steps and skipped < MOST_SKIPPED:
            step = len(rates)
            lr = start * (end / start) ** (step / (steps - 1))
            set_learning_rate(loop.optimizer, lr)
            loss = float(loop.update())
            if loop.state.skipped:
                # The weights did not move: the next update is tried at the same learning rate.
                skipped += 1
                continue
            if not math.isfinite(loss):
                break
            average = smoothing * average + (1 - smoothing) * loss
            corrected = average / (1 - smoothing ** (step + 1))
            rates.append(lr)
            losses.append(loss)
            averages.append(corrected)
            if rows:
                rows.add({"step": step + 1, "lr": lr, "loss": loss, "smoothed": corrected})
            progressed((step + 1) / steps, loss)
            best = min(best, corrected)
            if step > steps // 10 and corrected > diverged * best:
                break
    return RangeTest(np.array(rates), np.array(losses), np.array(averages), steps)
