"""Stage `overfit`: a model that cannot memorize a few batches will not learn a corpus."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from torch_linguist.data import Batch
from torch_linguist.errors import require_positive
from torch_linguist.model import LanguageModel
from torch_linguist.optim.optimizers import set_learning_rate
from torch_linguist.pipeline.stages.stage import Stage, StageResult
from torch_linguist.runs.csv_table import Table
from torch_linguist.trainer.context import TrainingContext, make_batches, untrained_copy
from torch_linguist.trainer.randomness import own_randomness

if TYPE_CHECKING:
    from torch_linguist.pipeline.run_context import RunContext


class RepeatedBatches:
    """The same few batches over and over, each from a fresh state; a `BatchSource`.

    Args:
        batches: batches to repeat.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = [batch._replace(reset=True) for batch in batches]
        self._position = 0

    @property
    def epoch(self) -> float:
        return self._position / len(self._batches)

    def next(self) -> Batch:
        batch = self._batches[self._position % len(self._batches)]
        self._position += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"position": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._position = int(state["position"])


@dataclass(frozen=True)
class MemorizedLoss:
    """Result of memorizing a few batches.

    Attributes:
        loss: mean loss of the last pass, nats per token.
        first_loss: loss before the first update.
        steps: number of updates.
        tokens: number of tokens memorized.
        passed: whether the target was reached.
    """

    loss: float
    first_loss: float
    steps: int
    tokens: int
    passed: bool


@dataclass(frozen=True)
class Overfit(Stage):
    """Trains a copy of the model, without dropout, on a few batches until it has memorized them.

    Attributes:
        batches: number of batches to repeat.
        batch_size: streams per batch.
        sequence_length: tokens per stream.
        max_steps: largest number of updates.
        target: loss in nats per token at which the stage succeeds.
        lr: learning rate of AdamW.
    """

    name = "overfit"
    title = "memorizing a few batches"
    requires = ("initialize",)
    artifacts: ClassVar = {"overfit": "overfit.csv", "overfit_plot": "overfit.png"}
    tables = ("overfit.csv",)

    batches: int = 1
    batch_size: int = 8
    sequence_length: int = 16
    max_steps: int = 200
    target: float = 0.1
    lr: float = 1e-2

    def __post_init__(self) -> None:
        require_positive("overfit", self, "batches", "batch_size", "sequence_length", "max_steps", "target", "lr")

    def memorize(
        self,
        model: LanguageModel,
        training: TrainingContext,
        table: Path,
        progressed: Callable[[float, float], None] = lambda fraction, loss: None,
    ) -> MemorizedLoss:
        """Train a copy of the model until the target or `max_steps` is reached.

        Args:
            model: untrained model, left unchanged.
            training: corpus and settings.
            table: path of the CSV file, one row per update.
            progressed: called with the share of `max_steps` done and the loss.
        """
        small = replace(training.settings, batch_size=self.batch_size, sequence_length=self.sequence_length)
        source = make_batches(training.corpus.train, small, bool(model.context_length), training.seed)
        memorized = [source.next() for _ in range(self.batches)]
        rows = Table(table, ["step", "loss"])
        losses: list[float] = []
        # `lr` is a rate for AdamW, whatever optimizer the long training uses.
        adamw = replace(training, make_optimizer=torch.optim.AdamW)
        pupil, repeated = untrained_copy(model, dropout=False), RepeatedBatches(memorized)
        with own_randomness(training.seed), closing(adamw.prepare_training(pupil, self.lr, 0.0, repeated)) as loop:
            for step in range(self.max_steps):
                # A short warm-up: Adam's moments are empty at first, and its first updates would overshoot.
                set_learning_rate(loop.optimizer, self.lr * min(1.0, (step + 1) / 10))
                losses.append(float(loop.update()))
                rows.add({"step": loop.state.step, "loss": losses[-1]})
                progressed((step + 1) / self.max_steps, losses[-1])
                recent = losses[-self.batches :]
                if len(recent) == self.batches and max(recent) <= self.target:
                    break
        recent = losses[-self.batches :]
        return MemorizedLoss(
            loss=sum(recent) / len(recent),
            first_loss=losses[0],
            steps=len(losses),
            tokens=sum(batch.targets.numel() for batch in memorized),
            passed=max(recent) <= self.target,
        )

    def run(self, context: "RunContext") -> StageResult:
        result = self.memorize(context.model, context.training, context.folder / "overfit.csv", context.report(self))
        notes = []
        if not result.passed:
            notes.append(
                f"overfit: the loss stayed above {self.target:g}; allow more updates (overfit.max_steps), try another "
                "overfit.lr, or look for a fault in the model"
            )
        verdict = f"loss {result.first_loss:.2f} → {result.loss:.3f} in {result.steps} updates"
        return StageResult(f"{verdict} on {result.tokens} tokens", asdict(result), notes)

    def plot(self, folder: Path, facts: Mapping[str, Any]) -> None:
        from torch_linguist.report.plots import plot_overfit  # matplotlib: no update waits for it

        plot_overfit(folder / "overfit.csv", folder / "overfit.png", self.target)
