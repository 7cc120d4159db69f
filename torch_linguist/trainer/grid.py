"""Stage `grid`: weight decay x the best learning rates, a short training each, a row in `grid.csv` as each ends."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_linguist.model import LanguageModel
from torch_linguist.trainer.settings import GridSettings
from torch_linguist.trainer.setup import Setup
from torch_linguist.trainer.table import Table
from torch_linguist.trainer.trial import Trial, run_trial

COLUMNS = (
    "point",
    "lr",
    "weight_decay",
    "steps",
    "train_loss",
    "valid_loss",
    "valid_perplexity",
    "seconds",
    "status",
)


@dataclass(frozen=True)
class GridResult:
    """What the grid came to.

    Attributes:
        best: the point with the lowest validation loss; None where every point diverged.
        points: all of them, in the order they ran.
    """

    best: Trial | None
    points: list[Trial]


def run_grid(
    model: LanguageModel,
    setup: Setup,
    settings: GridSettings,
    learning_rates: Sequence[float],
    table: Path,
    progressed: Callable[[float, float], None] = lambda fraction, loss: None,
) -> GridResult:
    """Trains a copy of the model at every point, from the same weights, seed and data order.

    Args:
        model: untrained; is not changed.
        setup: corpus and settings.
        settings: the weight decays, and the length of each training.
        learning_rates: best first; the first `settings.learning_rates` of them take part.
        table: a CSV file, a row a point.
        progressed: told the share of the stage done and the loss.

    Returns:
        The points and the best of them; a point that diverges is a row like any other.
    """
    pairs = [(lr, decay) for lr in learning_rates[: settings.learning_rates] for decay in settings.weight_decay]
    rows = Table(table, COLUMNS)
    points: list[Trial] = []
    for index, (lr, decay) in enumerate(pairs):

        def stretch(fraction: float, loss: float, index: int = index) -> None:
            progressed((index + fraction) / len(pairs), loss)

        point = run_trial(model, setup, lr, decay, settings.steps, settings.eval_tokens, stretch)
        points.append(point)
        rows.add(
            {
                "point": index,
                "lr": lr,
                "weight_decay": decay,
                "steps": point.steps,
                "train_loss": point.train_loss,
                "valid_loss": point.valid_loss,
                "valid_perplexity": math.exp(min(point.valid_loss, 700)) if point.status == "finished" else math.inf,
                "seconds": point.seconds,
                "status": point.status,
            }
        )
    finished = [point for point in points if point.status == "finished"]
    return GridResult(min(finished, key=lambda point: point.valid_loss, default=None), points)
