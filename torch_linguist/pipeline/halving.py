"""Successive halving for points that come one after the other: losing points are stopped early.

After Li et al. 2020, "A system for massively parallel hyperparameter tuning". At each rung, a point continues only if
its validation loss is among the best share of those seen there so far. The paper also promotes points later; here a
stopped point stays stopped, since nothing of its training is kept.
"""

import math
from collections.abc import Iterable

FIRST_RUNG = 10
"""Fewest updates before the first rung."""


class Halving:
    """Decides at each rung whether a point continues.

    Args:
        factor: one in `factor` points continues after a rung.
        steps: updates of a complete point.

    Attributes:
        losses: validation losses seen at each rung, by its number of updates, ascending.
    """

    def __init__(self, factor: int, steps: int) -> None:
        self.factor = factor
        rungs: list[int] = []
        while (rung := steps // factor ** (len(rungs) + 1)) >= FIRST_RUNG:
            rungs.append(rung)
        self.losses: dict[int, list[float]] = {rung: [] for rung in reversed(rungs)}

    def goes_on(self, step: int, loss: float) -> bool:
        """Record a loss and return whether it is among the best share at its rung."""
        losses = self.losses[step]
        losses.append(loss)
        return loss <= sorted(losses)[math.ceil(len(losses) / self.factor) - 1]

    def record(self, rungs: Iterable[tuple[int, float]]) -> None:
        """Record the rungs of a point that an earlier part of the run trained."""
        for step, loss in rungs:
            if step in self.losses:
                self.losses[step].append(loss)
