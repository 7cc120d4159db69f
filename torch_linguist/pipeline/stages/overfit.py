"""Stage `overfit`: a model that cannot learn a few batches by heart will not learn a corpus."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from torch_linguist.data import Batch
from torch_linguist.model import LanguageModel
from torch_linguist.optim.optimizers import set_learning_rate
from torch_linguist.runs.csv_table import Table
from torch_linguist.trainer.context import TrainingContext, make_batches, untrained_copy
from torch_linguist.trainer.randomness import own_randomness
from torch_linguist.trainer.settings import OverfitSettings


class RepeatedBatches:
    """The same few batches over and over, each from a fresh state; a `BatchSource`.

    Args:
        batches: what is repeated.
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
class OverfitResult:
    """Attributes:
    loss: of the last pass, nats per token.
    first_loss: before the first update.
    steps: updates it took.
    tokens: tokens that were learned by heart.
    passed: whether the target was reached.
    """  # noqa: D205

    loss: float
    first_loss: float
    steps: int
    tokens: int
    passed: bool


def overfit(
    model: LanguageModel,
    context: TrainingContext,
    settings: OverfitSettings,
    table: Path,
    progressed: Callable[[float, float], None] = lambda fraction, loss: None,
) -> OverfitResult:
    """Trains a copy of the model, without dropout, on a few batches until it knows them by heart.

    Args:
        model: untrained; is not changed.
        context: corpus and settings.
        settings: how many batches, for how long, to which loss.
        table: a CSV file, a row an update.
        progressed: told the share of `max_steps` done and the loss.

    Returns:
        How far the loss came down.
    """
    small = replace(context.settings, batch_size=settings.batch_size, sequence_length=settings.sequence_length)
    source = make_batches(context.corpus.train, small, bool(model.context_length), context.seed)
    learned = [source.next() for _ in range(settings.batches)]
    batches = RepeatedBatches(learned)
    rows = Table(table, ["step", "loss"])
    losses: list[float] = []
    with own_randomness(context.seed):
        pupil = untrained_copy(model, dropout=False)
        # The learning rate is one of AdamW, whatever optimizer the long training takes.
        loop = replace(context, make_optimizer=torch.optim.AdamW).prepare_training(pupil, settings.lr, 0.0, batches)
        for step in range(settings.max_steps):
            # A short warm-up keeps the first updates of Adam, whose moments are still empty, from overshooting.
            set_learning_rate(loop.optimizer, settings.lr * min(1.0, (step + 1) / 10))
            losses.append(float(loop.update()))
            rows.add({"step": loop.state.step, "loss": losses[-1]})
            progressed((step + 1) / settings.max_steps, losses[-1])
            recent = losses[-settings.batches :]
            if len(recent) == settings.batches and max(recent) <= settings.target:
                break
    recent = losses[-settings.batches :]
    return OverfitResult(
        loss=sum(recent) / len(recent),
        first_loss=losses[0],
        steps=len(losses),
        tokens=sum(batch.targets.numel() for batch in learned),
        passed=max(recent) <= settings.target,
    )
