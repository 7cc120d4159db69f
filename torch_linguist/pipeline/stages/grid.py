"""Stage `grid`: weight decay x the best learning rates, a short training each."""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch_linguist.errors import require, require_positive
from torch_linguist.model import LanguageModel
from torch_linguist.pipeline.grid_table import COLUMNS, read_points, row_of
from torch_linguist.pipeline.halving import Halving
from torch_linguist.pipeline.short_training import NOISE, Trial, run_trial, tied_with_best
from torch_linguist.pipeline.stages.stage import Stage, StageResult
from torch_linguist.runs.csv_table import Table
from torch_linguist.trainer.context import MEMORY_PASSES, TrainingContext

if TYPE_CHECKING:
    from torch_linguist.pipeline.run_context import RunContext


ENOUGH_PASSES = 3
"""Passes over the training split below which a point shows little of weight decay."""

DECAY_COST = 0.05
"""Largest loss, in nats per token, that the usual weight decay may cost in a point below `ENOUGH_PASSES`.

Early in a training weight decay only costs. On the words of tiny Shakespeare it costs 0.01 nats after a third of a pass
and gains 0.4 after four passes; see docs/log.md.
"""


@dataclass(frozen=True)
class GridResult:
    """Result of a grid.

    Attributes:
        best: the chosen point; None if no point finished.
        points: all points, in the order of the grid.
        tied: number of points within noise of the lowest validation loss.
        resumed: number of points that an earlier part of the run trained.
    """

    best: Trial | None
    points: list[Trial]
    tied: int = 0
    resumed: int = 0


@dataclass(frozen=True)
class Grid(Stage):
    """Tries weight decay x the best learning rates, with a short training for each point.

    Attributes:
        weight_decay: values to try; None for 0, a quarter of the usual weight decay, and the usual one. See
            `TrainingContext.usual_weight_decay`.
        learning_rates: how many of the best learning rates take part.
        steps: updates per point.
        epochs: passes over the training split per point, in place of `steps`; None for those. What regularization does
            shows over several passes only.
        eval_tokens: validation tokens that judge a point; None for all.
        halving: one in so many points continues after each part of its training (`steps` / halving, and so on down);
            the others are stopped. None trains every point to its end. See `Halving`.
    """

    name = "grid"
    title = "short trainings: weight decay x learning rate"
    requires = ("initialize",)
    artifacts: ClassVar = {"grid": "grid.csv", "grid_plot": "grid.png"}
    tables = ("grid.csv",)

    weight_decay: Sequence[float] | None = None
    learning_rates: int = 2
    steps: int = 60
    epochs: float | None = None
    eval_tokens: int | None = 20_000
    halving: int | None = None

    def __post_init__(self) -> None:
        require(self.halving is None or self.halving > 1, f"grid.halving={self.halving}: must be null or at least 2")
        require_positive("grid", self, "learning_rates", "steps", "epochs", "eval_tokens")
        require(
            self.weight_decay is None or len(self.weight_decay) > 0,
            "grid.weight_decay=[]: must hold a value, or be null",
        )
        for value in self.weight_decay or ():
            require(value >= 0, f"grid.weight_decay={value}: must be at least 0")

    def is_needed(self, context: "RunContext") -> bool:
        return context.plan.weight_decay is None

    def prepare(self, context: "RunContext") -> None:
        context.candidate_rates()

    def about(self, context: "RunContext") -> str:
        return f"{len(self._pairs(context.training, context.candidate_rates()))} {self.title}"

    def _pairs(self, training: TrainingContext, rates: Sequence[float]) -> list[tuple[float, float]]:
        usual = training.usual_weight_decay(rates[0])
        decays = self.weight_decay or [0.0, float(f"{usual / 4:.2g}"), usual]
        return [(lr, decay) for lr in rates[: self.learning_rates] for decay in decays]

    def updates(self, training: TrainingContext) -> int:
        """Return the number of updates per point."""
        if self.epochs is None:
            return self.steps
        return math.ceil(self.epochs * len(training.corpus.train) / training.tokens_per_update)

    def search(
        self,
        model: LanguageModel,
        training: TrainingContext,
        rates: Sequence[float],
        table: Path,
        progressed: Callable[[float, float], None] = lambda fraction, loss: None,
        resume: bool = False,
    ) -> GridResult:
        """Train a copy of the model at every point, from the same weights, seed and data order.

        Args:
            model: untrained model, left unchanged.
            training: corpus and settings.
            rates: learning rates, best first; the first `learning_rates` of them take part.
            table: path of the CSV file, one row per point.
            progressed: called with the share of the stage done and the loss.
            resume: whether the points in the file count, so that only the missing ones are trained. Otherwise the
                file is replaced.

        Returns:
            The points and the one to train with: that with the lowest validation loss, or, of those within noise of
            it, that with the best-ranked learning rate and the weight decay nearest to the usual one. If the weight
            decays are the default ones and the points too short to judge them, the usual one may cost up to
            `DECAY_COST`. A point that diverges is a row like any other.

        Raises:
            LinguistError: with `resume`, a row does not belong to this grid.
        """
        pairs, steps = self._pairs(training, rates), self.updates(training)
        earlier = read_points(table, pairs, steps) if resume else {}
        halving = Halving(self.halving, steps) if self.halving else None
        rows = Table(table, COLUMNS, append=bool(earlier))
        points: list[Trial] = []
        for index, (lr, decay) in enumerate(pairs):

            def stretch(fraction: float, loss: float, index: int = index) -> None:
                progressed((index + fraction) / len(pairs), loss)

            if index in earlier:
                points.append(earlier[index])
                if halving:
                    halving.record(earlier[index].rungs)
                continue
            looks = {"rungs": tuple(halving.losses), "satisfied": halving.goes_on} if halving else {}
            point = run_trial(model, training, lr, decay, steps, self.eval_tokens, stretch, **looks)  # type: ignore[arg-type]
            points.append(point)
            rows.add(row_of(index, point, model.num_parameters()))
        best, tied = self._best(points, training, rates)
        return GridResult(best, points, tied, len(earlier))

    def _best(
        self, points: Sequence[Trial], training: TrainingContext, rates: Sequence[float]
    ) -> tuple[Trial | None, int]:
        """Return the point to train with, None if all diverged, and the number of points within noise of the best."""
        usual = training.usual_weight_decay(rates[0])
        preference = {lr: rank for rank, lr in reversed(list(enumerate(rates)))}

        def rank(point: Trial) -> tuple[int, float]:
            return preference[point.lr], abs(point.weight_decay - usual)

        tied = tied_with_best(points)
        best = min(tied, key=rank, default=None)
        if best is not None and self._takes_usual(training):
            best = min(tied_with_best([one for one in points if one.lr == best.lr], DECAY_COST), key=rank)
        return best, len(tied)

    def run(self, context: "RunContext") -> StageResult:
        table, rates, plan = context.folder / "grid.csv", context.candidate_rates(), context.plan
        result = self.search(context.model, context.training, rates, table, context.report(self), resume=plan.resume)
        best, count = result.best, len(result.points)
        if best is None:
            return StageResult(
                f"all {count} points diverged",
                {"lr": None, "weight_decay": None},
                done=False,
                error="grid: every point diverged (grid.csv); lower optim.lr or trainer.gradient_clip",
            )
        facts = {"lr": best.lr, "weight_decay": best.weight_decay, "points": count}
        self.restore(context, facts)
        usual = context.training.usual_weight_decay(rates[0])
        meaning = f"{usual:g}, under which weights remember the last {MEMORY_PASSES} passes over the text"
        notes = self._notes_on_length(context.training, meaning)
        if result.tied > 1 and not self._takes_usual(context.training):
            notes.append(
                f"grid: {result.tied} of {count} points differ by less than {NOISE} nats, which is noise; taking the "
                f"best-ranked learning rate and the weight decay nearest to {meaning}"
            )
        if plan.config_text:
            line = shlex.join(["tl-train", "--config-dir", str(context.folder)])
            point = f"optim.lr={best.lr!r} optim.weight_decay={best.weight_decay!r}"
            notes.append(f"grid: the best point by itself: {line} {point}")
        verdict = f"best: optim.lr={best.lr:.3g} optim.weight_decay={best.weight_decay:g}"
        return StageResult(f"{verdict}, valid loss {best.valid_loss:.4f}", facts, notes)

    def _notes_on_length(self, training: TrainingContext, meaning: str) -> list[str]:
        """Return a note if the points are too short to show what weight decay does."""
        passes = self._passes(training)
        if passes >= ENOUGH_PASSES:
            return []
        taken = f"; taking {meaning}, unless it costs over {DECAY_COST} nats" if self._takes_usual(training) else ""
        return [
            f"grid: a point reads the training split {passes:.2g} times, too short to show what weight decay does over "
            f"many passes{taken}; grid.epochs={ENOUGH_PASSES} grid.halving=3 shows it"
        ]

    def _takes_usual(self, training: TrainingContext) -> bool:
        """Return whether the usual weight decay is taken unless it costs much: no values are given to judge."""
        return self.weight_decay is None and self._passes(training) < ENOUGH_PASSES

    def _passes(self, training: TrainingContext) -> float:
        """Return the passes over the training split that a point makes."""
        return self.updates(training) * training.tokens_per_update / len(training.corpus.train)

    def restore(self, context: "RunContext", facts: Mapping[str, Any]) -> None:
        if facts.get("lr") is None:
            return
        plan, results = context.plan, context.results
        results.learning_rate = float(facts["lr"]) if plan.lr is None else plan.lr
        results.weight_decay = float(facts["weight_decay"]) if plan.weight_decay is None else plan.weight_decay

    def plot(self, folder: Path, facts: Mapping[str, Any]) -> None:
        from torch_linguist.report.plots import plot_grid  # matplotlib: no update waits for it

        plot_grid(folder / "grid.csv", folder / "grid.png")
