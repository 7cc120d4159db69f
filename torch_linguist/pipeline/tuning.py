"""The stages before the long training: what is known of the model, and which rates it shall be trained with.

What draws is imported when a stage has something to draw: no first update shall wait for matplotlib.
"""

import shlex
from collections.abc import Callable
from dataclasses import asdict

from torch_linguist.errors import LinguistError
from torch_linguist.model import LanguageModel
from torch_linguist.pipeline.plan import Plan
from torch_linguist.pipeline.progress import Progress
from torch_linguist.pipeline.stages.check import check_untrained
from torch_linguist.pipeline.stages.grid import run_grid
from torch_linguist.pipeline.stages.lr_find import find_learning_rate
from torch_linguist.pipeline.stages.overfit import overfit
from torch_linguist.runs.files import write_json
from torch_linguist.trainer import Callback, TrainingContext
from torch_linguist.trainer.interrupt import StopRequest

UNTUNED_WEIGHT_DECAY = 0.01
"""Of a run whose weight decay is `auto` and whose stages leave the grid out."""


class Tuning:
    """The stages `check`, `overfit`, `lr_find` and `grid` of one run.

    Args:
        plan: what to do.
        model: untrained; is not changed.
        context: corpus and settings.
        progress: of the run.
        observer: is told.
        stop: asked after each update whether the stage should end now.

    Attributes:
        lr: the learning rate, None while nobody has chosen it.
        weight_decay: likewise.
    """

    def __init__(
        self,
        plan: Plan,
        model: LanguageModel,
        context: TrainingContext,
        progress: Progress,
        observer: Callback,
        stop: StopRequest,
    ) -> None:
        self._plan, self._model, self._context = plan, model, context
        self._progress, self._observer, self._stop = progress, observer, stop
        self._folder = plan.folder
        self.lr, self.weight_decay = plan.lr, plan.weight_decay
        self._ranked: list[float] = []

    def run(self, stage: str) -> None:
        """Carries out a stage, or takes over what an earlier part of the run found.

        Raises:
            Interrupted: somebody has asked the run to end; the stage is not done.
            LinguistError: every point of the grid diverged.
        """
        stages = {"check": self._check, "overfit": self._overfit, "lr_find": self._lr_find, "grid": self._grid}
        facts = self._progress.done(stage)
        if facts is None:
            stages[stage]()
            return
        self._progress.take_over(stage)
        if stage == "lr_find" and self._plan.lr is None and facts.get("lr") is not None:
            self.lr, self._ranked = float(facts["lr"]), [float(lr) for lr in facts["ranked"]]
        elif stage == "grid" and facts.get("lr") is not None:
            self.lr = float(facts["lr"]) if self._plan.lr is None else self._plan.lr
            self.weight_decay = (
                float(facts["weight_decay"]) if self._plan.weight_decay is None else self._plan.weight_decay
            )

    def learning_rate(self) -> float:
        """The learning rate; the default where nobody has chosen one."""
        if self.lr is None:
            self.lr = self._plan.lr_find.default
            self._observer.noted(f"optim.lr=auto without the stage lr_find: taking lr_find.default={self.lr}")
        return self.lr

    def decay(self) -> float:
        """The weight decay; the default where nobody has chosen one."""
        if self.weight_decay is None:
            self.weight_decay = UNTUNED_WEIGHT_DECAY
            self._observer.noted(f"optim.weight_decay=auto without the stage grid: taking {self.weight_decay}")
        return self.weight_decay

    def _report_loss(self, stage: str) -> Callable[[float, float], None]:
        def report(fraction: float, loss: float) -> None:
            self._stop.check()
            self._observer.progressed(stage, fraction, {"train_loss": loss})

        return report

    def _check(self) -> None:
        with self._progress.stage("check", "the untrained loss against ln(vocabulary)") as finish:
            result = check_untrained(self._model, self._context, self._plan.check)
            write_json(self._folder / "check.json", asdict(result))
            finish(f"untrained loss {result.loss:.3f}, ln(vocabulary) {result.expected:.3f}", asdict(result))
        if not result.passed:
            self._observer.noted(
                f"check: the untrained loss is more than {self._plan.check.tolerance:.0%} away from ln(vocabulary): "
                "its first logits are too large, or a target leaks into the input"
            )

    def _overfit(self) -> None:
        settings = self._plan.overfit
        table = self._folder / "overfit.csv"
        with self._progress.stage("overfit", "learning a few batches by heart") as finish:
            result = overfit(self._model, self._context, settings, table, self._report_loss("overfit"))
            from torch_linguist.report.plots import plot_overfit

            plot_overfit(table, self._folder / "overfit.png", settings.target)
            verdict = f"loss {result.first_loss:.2f} → {result.loss:.3f} in {result.steps} updates"
            finish(f"{verdict} on {result.tokens} tokens", asdict(result))
        if not result.passed:
            self._observer.noted(
                f"overfit: the loss stayed above {settings.target:g}; "
                "give it more updates (overfit.max_steps) or another overfit.lr, or look for a fault in the model"
            )

    def _lr_find(self) -> None:
        if self._plan.lr is not None:
            self._ranked = [self._plan.lr]
            return
        settings, folder = self._plan.lr_find, self._folder
        with self._progress.stage("lr_find", "range test and short trials") as finish:
            result = find_learning_rate(self._model, self._context, settings, folder, self._report_loss("lr_find"))
            trials = folder / "lr_trials.csv" if result.trials else None
            from torch_linguist.report.plots import plot_lr_finder

            plot_lr_finder(
                folder / "lr_finder.csv", folder / "lr_finder.png", result.test.suggestion, result.lr, trials
            )
            self.lr, self._ranked = result.lr, result.ranked
            suggested = f"{result.test.suggestion:.2g}" if result.test.suggestion else "nothing"
            verdict = f"learning rate {result.lr:.2g} (suggested {suggested}, {len(result.trials)} trials)"
            finish(verdict, {"lr": result.lr, "suggestion": result.test.suggestion, "ranked": result.ranked})
        if result.test.suggestion is None:
            self._observer.noted(
                f"lr_find: the range test suggests nothing ({result.test.reason}); "
                f"taking lr_find.default={settings.default:g}, which comes from optim.fallback_lr"
            )

    def _grid(self) -> None:
        if self._plan.weight_decay is not None:
            return
        settings, table = self._plan.grid, self._folder / "grid.csv"
        lrs = self._ranked or [self.learning_rate()]
        points = len(settings.weight_decay) * min(len(lrs), settings.learning_rates)
        with self._progress.stage("grid", f"{points} short trainings: weight decay x learning rate") as finish:
            result = run_grid(
                self._model, self._context, settings, lrs, table, self._report_loss("grid"), resume=self._plan.resume
            )
            from torch_linguist.report.plots import plot_grid

            plot_grid(table, self._folder / "grid.png")
            if result.best is None:
                finish(f"all {points} points diverged", {"lr": None, "weight_decay": None}, done=False)
            else:
                self.lr, self.weight_decay = result.best.lr, result.best.weight_decay
                verdict = f"best: optim.lr={self.lr:.3g} optim.weight_decay={self.weight_decay:g}"
                facts = {"lr": self.lr, "weight_decay": self.weight_decay, "points": points}
                finish(f"{verdict}, valid loss {result.best.valid_loss:.4f}", facts)
        if result.best is not None and self._plan.config_text:
            line = shlex.join(["tl-train", "--config-dir", str(self._folder)])
            best = f"optim.lr={result.best.lr!r} optim.weight_decay={result.best.weight_decay!r}"
            self._observer.noted(f"grid: the best point by itself: {line} {best}")
        if result.best is None:
            raise LinguistError("grid: every point diverged (grid.csv); lower optim.lr or trainer.gradient_clip")
