"""Learning-rate range test (Smith 2017, "Cyclical learning rates for training neural networks").

The test runs on a copy of the model with its own data order and random state: the model and every random state stay
bit for bit as they were.

One difference: a model that starts from the token frequencies learns little in so few updates, and the losses of two
batches differ by far more than that. Each loss is therefore compared with the loss of the untrained model on the same
batch, which removes the differences between batches.
"""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from torch_linguist.data import Batch
from torch_linguist.model import LanguageModel, State, device_of
from torch_linguist.model.module_modes import autocast
from torch_linguist.optim.optimizers import set_learning_rate
from torch_linguist.pipeline.lr_suggestions import suggest
from torch_linguist.runs.csv_table import Table
from torch_linguist.trainer.context import TrainingContext, untrained_copy
from torch_linguist.trainer.randomness import own_randomness

MOST_SKIPPED = 5
"""Updates that a test may skip for a non-finite loss or gradient before the model counts as diverged."""

FEWEST_POINTS = 5
"""Points that a suggestion needs."""

SIGNIFICANT = 5.0
"""Standard errors that the smoothed loss must fall. The lowest of 64 points of pure noise reaches 4 in 5% of tests."""


@dataclass(frozen=True)
class RangeTest:
    """Curve of a range test.

    Attributes:
        rates: learning rates, ascending [n].
        losses: training losses less the differences between batches, nats per token [n].
        smoothed: exponential moving average of the losses with bias correction [n].
        level: loss of the untrained model on the first batch, nats per token.
        steps: number of updates the test was to make.
        smoothing: weight of the past in the moving average.
        suggestion: the suggested learning rate, or None.
        reason: why there is no suggestion; empty if there is one.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    level: float
    steps: int
    smoothing: float = 0.9
    suggestion: float | None = None
    reason: str = ""

    @property
    def _averaged(self) -> int:
        """Number of points at the beginning, a tenth of the test, where the moving average says little."""
        return min(self.steps // 10, max(0, len(self.rates) - FEWEST_POINTS))

    @property
    def _lowest(self) -> int:
        """Index of the lowest smoothed loss."""
        return self._averaged + int(self.smoothed[self._averaged :].argmin())

    @property
    def fall(self) -> float:
        """How far the smoothed loss fell below that of the untrained model, in nats per token."""
        return self.level - float(self.smoothed[self._lowest])

    @property
    def noise(self) -> float:
        """Standard error of the smoothed loss up to its lowest point, in nats per token.

        It comes from the differences between consecutive losses, which a trend hardly changes.
        """
        steps = np.diff(self.losses[: max(self._lowest, 2 * FEWEST_POINTS) + 1])
        return float(steps.std()) / math.sqrt(2) * math.sqrt((1 - self.smoothing) / (1 + self.smoothing))

    @property
    def begin(self) -> int:
        """Index where the loss begins to fall: the last point before the lowest that is within noise of the start."""
        flat = np.flatnonzero(self.smoothed[: self._lowest + 1] >= self.level - 2 * self.noise)
        last = max(self._averaged, int(flat[-1]) if len(flat) else 0)
        return min(last, len(self.rates) - FEWEST_POINTS)

    def suggest(self, method: str) -> float | None:
        """Return the learning rate that a method picks on the falling part of the curve; None if nothing falls."""
        if len(self.rates) < FEWEST_POINTS or self.fall <= SIGNIFICANT * self.noise:
            return None
        return suggest(method, self.rates[self.begin :], self.smoothed[self.begin :])

    def with_suggestion(self, method: str) -> "RangeTest":
        """Return the curve with the suggestion of a method, or with the reason why there is none."""
        suggestion = self.suggest(method)
        return replace(self, suggestion=suggestion, reason="" if suggestion else self._reason(method))

    def _reason(self, method: str) -> str:
        if len(self.rates) < FEWEST_POINTS:
            return f"the loss was not finite after {len(self.rates)} steps"
        if self.fall <= 0:
            return "the loss never fell"
        if self.fall <= SIGNIFICANT * self.noise:
            return f"the loss fell by {self.fall:.2g} nats, with a standard error of {self.noise:.1g}: noise"
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

    The loss at a point is that of its batches before the update, less what the untrained model loses on them beyond its
    loss on the first ones. A skipped update is not a point. The test ends early where the smoothed loss exceeds its
    lowest value by the factor `diverged`, or is not finite. Data shorter than the test is repeated.

    Args:
        model: untrained model, left unchanged.
        training: corpus and settings.
        start: first learning rate; this and the next four are the settings of `LRFind`.
        end: last learning rate.
        steps: number of updates.
        smoothing: weight of the past in the moving average.
        diverged: factor above the lowest smoothed loss at which the test stops.
        table: path of the CSV file, one row per update; None for no file.
        progressed: called with the share of the steps done and the loss.
    """
    rows = Table(table, ["step", "lr", "batch_loss", "loss", "smoothed"]) if table else None
    curve: list[tuple[float, float, float]] = []
    average, best, skipped, level = 0.0, math.inf, 0, math.nan
    untrained = UntrainedModel(model, training.settings.precision)
    with own_randomness(training.seed), closing(training.prepare_training(untrained_copy(model), start, 0.0)) as loop:
        while len(curve) < steps and skipped < MOST_SKIPPED:
            step = len(curve)
            lr = start * (end / start) ** (step / (steps - 1))
            set_learning_rate(loop.optimizer, lr)
            batch_loss = float(loop.update())
            assert loop.state.update is not None
            untrained_loss = untrained.loss(loop.state.update.batches)
            level = untrained_loss if math.isnan(level) else level
            loss = batch_loss - untrained_loss + level
            if loop.state.skipped:
                # The weights did not move: the next update is tried at the same learning rate.
                skipped += 1
                continue
            if not math.isfinite(loss):
                break
            average = smoothing * average + (1 - smoothing) * loss
            corrected = average / (1 - smoothing ** (step + 1))
            curve.append((lr, loss, corrected))
            if rows:
                rows.add({"step": step + 1, "lr": lr, "batch_loss": batch_loss, "loss": loss, "smoothed": corrected})
            progressed((step + 1) / steps, loss)
            best = min(best, corrected)
            if step > steps // 10 and corrected > diverged * best:
                break
    rates, losses, averages = np.array(curve).reshape(-1, 3).T
    return RangeTest(rates, losses, averages, level, steps, smoothing)


class UntrainedModel:
    """A copy of a model as it is before training, which reads the batches of the training.

    Args:
        model: model to copy.
        precision: `fp32` or `bf16`.
    """

    def __init__(self, model: LanguageModel, precision: str) -> None:
        self._model, self._precision = copy.deepcopy(model).train(), precision
        self._device = device_of(model)
        self._state: State | None = None

    @torch.no_grad()
    def loss(self, batches: Sequence[Batch]) -> float:
        """Return the mean loss on the next batches in nats per token, with the state carried as in training."""
        total, tokens = 0.0, 0
        for batch in batches:
            rows = len(batch.tokens)
            if batch.reset or self._state is None or self._state[0].shape[1] != rows:
                self._state = self._model.initial_state(rows)
            with autocast(self._device, self._precision):
                inputs, targets = batch.tokens.to(self._device), batch.targets.to(self._device)
                nll, state = self._model.nll(inputs, targets, self._state)
            self._state = [new.to(old.dtype) for new, old in zip(state, self._state, strict=True)]
            total, tokens = total + float(nll.double().sum()), tokens + nll.numel()
        return total / tokens
