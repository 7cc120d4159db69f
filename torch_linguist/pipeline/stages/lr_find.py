"""Stage `lr_find`: a range test, then short trials around its suggestion."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch_linguist.errors import require, require_one_of, require_positive
from torch_linguist.model import LanguageModel
from torch_linguist.pipeline.lr_suggestions import METHODS
from torch_linguist.pipeline.range_test import RangeTest, range_test
from torch_linguist.pipeline.short_training import NOISE, Trial, run_trial, tied_with_best
from torch_linguist.pipeline.stages.stage import Stage, StageResult
from torch_linguist.runs.csv_table import Table
from torch_linguist.trainer.context import TrainingContext

if TYPE_CHECKING:
    from torch_linguist.pipeline.run_context import RunContext

MOST_EXTRA_TRIALS = 3
"""Trials that may be added outward when the best one lies at the edge of those tried."""

TRIAL_COLUMNS = ("lr", "train_loss", "valid_loss", "steps", "seconds", "status")


@dataclass(frozen=True)
class FoundRate:
    """Result of the search.

    Attributes:
        lr: learning rate to train with.
        test: the range test.
        trials: short trainings, in the order in which they ran; empty if there were none.
        ranked: learning rates tried, best first.
        tied: number of trials within noise of the best.
    """

    lr: float
    test: RangeTest
    trials: list[Trial]
    ranked: list[float]
    tied: int = 0


@dataclass(frozen=True)
class LRFind(Stage):
    """Finds the learning rate: an exponential range test, then short trials around its suggestion.

    Attributes:
        start: first learning rate of the range test.
        end: last learning rate.
        steps: updates from the first to the last.
        smoothing: weight of the past in the moving average of the loss.
        diverged: factor above the lowest smoothed loss at which the test stops.
        suggestion: `valley`, `steep`, `minimum` or `slide`.
        trial_factors: learning rates of the trials as multiples of the suggestion.
        trial_steps: updates per trial; 0 takes the suggestion as it is.
        default: learning rate where the test suggests nothing.
        eval_tokens: validation tokens that judge a trial; None for all.
    """

    name = "lr_find"
    title = "range test and short trials"
    requires = ("initialize",)
    artifacts: ClassVar = {
        "lr_finder": "lr_finder.csv",
        "lr_finder_plot": "lr_finder.png",
        "lr_trials": "lr_trials.csv",
    }
    tables = ("lr_trials.csv", "lr_finder.csv")

    start: float = 1e-4
    end: float = 1.0
    steps: int = 64
    smoothing: float = 0.9
    diverged: float = 4.0
    suggestion: str = "valley"
    trial_factors: Sequence[float] = field(default_factory=lambda: [1 / 3, 1.0, 3.0])
    trial_steps: int = 80
    default: float = 3e-3
    eval_tokens: int | None = 20_000

    def __post_init__(self) -> None:
        require_positive("lr_find", self, "start", "end", "diverged", "default", "eval_tokens")
        for factor in self.trial_factors:
            require(factor > 0, f"lr_find.trial_factors={factor}: must be greater than 0")
        require(self.end > self.start, f"lr_find.end={self.end}: must be greater than lr_find.start={self.start}")
        require(self.steps >= 10, f"lr_find.steps={self.steps}: must be at least 10")
        require(self.trial_steps >= 0, f"lr_find.trial_steps={self.trial_steps}: must be at least 0")
        require(0 <= self.smoothing < 1, f"lr_find.smoothing={self.smoothing}: must be at least 0 and less than 1")
        require_one_of("lr_find.suggestion", self.suggestion, METHODS)

    def is_needed(self, context: "RunContext") -> bool:
        return context.plan.lr is None

    def range_test(
        self,
        model: LanguageModel,
        training: TrainingContext,
        table: Path | None = None,
        progressed: Callable[[float, float], None] = lambda fraction, loss: None,
    ) -> RangeTest:
        """Run the range test with the settings of the stage; see `torch_linguist.pipeline.range_test`."""
        test = range_test(
            model, training, self.start, self.end, self.steps, self.smoothing, self.diverged, table, progressed
        )
        return test.with_suggestion(self.suggestion)

    def find(
        self,
        model: LanguageModel,
        training: TrainingContext,
        folder: Path,
        progressed: Callable[[float, float], None] = lambda fraction, loss: None,
        test: RangeTest | None = None,
    ) -> FoundRate:
        """Run the range test and trials around its suggestion; if the best lies at an edge, further ones beyond it.

        Args:
            model: untrained model, left unchanged.
            training: corpus and settings.
            folder: folder for `lr_finder.csv` and `lr_trials.csv`.
            progressed: called with the share of the stage done and the loss.
            test: an existing range test with these settings; None to run one.

        Returns:
            The learning rate with the lowest validation loss, or the one nearest to `default` of those within noise of
            it; the suggestion itself without trials; `default` if the test suggests nothing or no trial converges.
        """
        planned = len(self.trial_factors) if self.trial_steps else 0
        whole = self.steps + planned * self.trial_steps
        done = 0

        def stretch(part: int) -> Callable[[float, float], None]:
            return lambda fraction, loss: progressed(min(1.0, (done + fraction * part) / whole), loss)

        test = test or self.range_test(model, training, folder / "lr_finder.csv", stretch(self.steps))
        done += self.steps
        center = test.suggestion
        if center is None or not planned:
            chosen = self.default if center is None else center
            return FoundRate(chosen, test, [], [chosen])

        rows = Table(folder / "lr_trials.csv", TRIAL_COLUMNS)
        trials: list[Trial] = []

        def attempt(lr: float) -> None:
            nonlocal done
            part = self.trial_steps
            trial = run_trial(model, training, lr, 0.0, part, self.eval_tokens, stretch(part))
            done += part
            trials.append(trial)
            rows.add({column: getattr(trial, column) for column in TRIAL_COLUMNS})

        for factor in sorted(self.trial_factors):
            attempt(center * factor)
        for _ in range(MOST_EXTRA_TRIALS):
            further = beyond_the_edge(trials)
            if further is None:
                break
            attempt(further)
        tied = tied_with_best(trials)
        if not tied:
            return FoundRate(self.default, test, trials, [self.default])
        best = min(tied, key=lambda trial: abs(math.log(trial.lr / self.default)))
        others = [trial for trial in trials if trial.status == "finished" and trial is not best]
        ranked = [best, *sorted(others, key=lambda trial: trial.valid_loss)]
        return FoundRate(best.lr, test, trials, [trial.lr for trial in ranked], len(tied))

    def run(self, context: "RunContext") -> StageResult:
        found = self.find(context.model, context.training, context.folder, context.report(self))
        suggestion = found.test.suggestion
        facts = {"lr": found.lr, "suggestion": suggestion, "ranked": found.ranked}
        self.restore(context, facts)
        notes = []
        if suggestion is None:
            notes.append(
                f"lr_find: the range test suggests nothing ({found.test.reason}); "
                f"taking lr_find.default={self.default:g}"
            )
        elif found.tied > 1:
            notes.append(
                f"lr_find: {found.tied} of {len(found.trials)} trials differ by less than {NOISE} nats, which is "
                f"noise; taking the learning rate nearest to lr_find.default={self.default:g}"
            )
        suggested = f"{suggestion:.2g}" if suggestion else "nothing"
        verdict = f"learning rate {found.lr:.2g} (suggested {suggested}, {len(found.trials)} trials)"
        return StageResult(verdict, facts, notes)

    def restore(self, context: "RunContext", facts: Mapping[str, Any]) -> None:
        if context.plan.lr is None and facts.get("lr") is not None:
            context.results.learning_rate = float(facts["lr"])
            context.results.ranked_rates = [float(lr) for lr in facts["ranked"]]

    def plot(self, folder: Path, facts: Mapping[str, Any]) -> None:
        from torch_linguist.report.plots import plot_lr_finder  # matplotlib: no update waits for it

        curve, trials = folder / "lr_finder.csv", folder / "lr_trials.csv"
        plot_lr_finder(curve, folder / "lr_finder.png", facts["suggestion"], facts["lr"], trials)


def beyond_the_edge(trials: Sequence[Trial]) -> float | None:
    """Return the next learning rate outward if the lowest or the highest tried is the best by more than noise."""
    ordered = sorted(trials, key=lambda trial: trial.lr)
    if len(ordered) < 2 or len(tied_with_best(trials)) > 1:
        return None
    best = min(range(len(ordered)), key=lambda index: ordered[index].valid_loss)
    if not math.isfinite(ordered[best].valid_loss):
        return ordered[0].lr / 3
    if best == 0:
        return ordered[0].lr ** 2 / ordered[1].lr
    if best == len(ordered) - 1:
        return ordered[-1].lr ** 2 / ordered[-2].lr
    return None
