"""What the stages of a run share: the plan, the model, the training context, and the results so far."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch_linguist.checkpoint import load_model
from torch_linguist.checkpoint.storage import TRUSTED
from torch_linguist.evaluation import Score
from torch_linguist.model import LanguageModel
from torch_linguist.trainer import CallbackList, TrainingContext
from torch_linguist.trainer.context import MEMORY_PASSES
from torch_linguist.trainer.interrupt import StopRequest

if TYPE_CHECKING:
    from torch_linguist.pipeline.plan import Plan
    from torch_linguist.pipeline.stages.stage import Stage


@dataclass
class RunResults:
    """Results that stages hand to later ones.

    Attributes:
        learning_rate: the learning rate to train with: given by the plan, or chosen by `lr_find` or `grid`.
        weight_decay: the weight decay to train with: given by the plan, or chosen by `grid`.
        ranked_rates: learning rates that `lr_find` tried, best first.
        checkpoint: checkpoint that the long training continues from; None if it starts anew.
        steps: updates of the long training so far.
        scores: scores by model, then by split: those of the best model first, then those of the baselines.
        verdict: sentence that compares the best model with its baselines; None before the scores.
    """

    learning_rate: float | None = None
    weight_decay: float | None = None
    ranked_rates: list[float] = field(default_factory=list)
    checkpoint: Path | None = None
    steps: int = 0
    scores: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    verdict: str | None = None

    @classmethod
    def given(cls, plan: "Plan") -> Self:
        """Return the results before the first stage: what the plan gives."""
        return cls(learning_rate=plan.lr, weight_decay=plan.weight_decay)


@dataclass(frozen=True)
class RunContext:
    """Everything that a stage works with.

    Attributes:
        plan: what to do.
        model: the model; `initialize` and `fit` change it, the other stages work on copies.
        training: corpus, optimizer, schedule and settings.
        callbacks: called with everything that happens in the run.
        stop: returns whether a signal has asked the run to stop.
        summary: content of `summary.json` so far; a stage may add entries.
        results: results of the stages so far.
    """

    plan: "Plan"
    model: LanguageModel
    training: TrainingContext
    callbacks: CallbackList
    stop: StopRequest
    summary: dict[str, Any]
    results: RunResults

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.plan.folder

    @property
    def counted(self) -> bool:
        """Whether the model is fitted by counting."""
        return self.model.is_counted

    def report(self, stage: "Stage") -> Callable[[float, float], None]:
        """Return a function that reports the share of a stage done and its loss, and stops the stage on a signal."""

        def progressed(fraction: float, loss: float) -> None:
            self.stop.check()
            self.callbacks.progressed(stage.name, fraction, {"train_loss": loss})

        return progressed

    def learning_rate(self) -> float:
        """Return the learning rate to train with; the plan's fallback, with a note, if no stage has chosen one."""
        if self.results.learning_rate is None:
            self.results.learning_rate = self.plan.fallback_lr
            self.callbacks.noted(
                f"optim.lr=auto without the stage lr_find: taking lr_find.default={self.plan.fallback_lr}"
            )
        return self.results.learning_rate

    def weight_decay(self) -> float:
        """Return the weight decay to train with; the usual one, with a note, if no stage has chosen one."""
        if self.results.weight_decay is None:
            usual = self.training.usual_weight_decay(self.learning_rate())
            self.results.weight_decay = usual
            self.callbacks.noted(
                f"optim.weight_decay=auto without the stage grid: taking {usual:g}, under which weights remember the "
                f"last {MEMORY_PASSES} passes over the text"
            )
        return self.results.weight_decay

    def candidate_rates(self) -> list[float]:
        """Return the learning rates for the grid, best first: those that `lr_find` ranked, or the only one."""
        return self.results.ranked_rates or [self.learning_rate()]

    def best_model(self) -> LanguageModel:
        """Load `checkpoints/best.pt` onto the device of the run."""
        own = type(self.model).__module__.partition(".")[0] + "."
        best = load_model(self.folder / "checkpoints" / "best.pt", trusted=(*TRUSTED, own))
        return best.to(self.training.settings.device)
