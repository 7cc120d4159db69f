"""Stage `grid`: weight decay x the best learning rates, a short training each, a row in `grid.csv` as each ends.

Losing points can be stopped early by successive halving, in its form for points that come one after the other (Li et
al. 2020, "A system for massively parallel hyperparameter tuning"): at each rung a point goes on only if its validation
loss is among the best share of those that have come so far. The paper promotes points later, too; here a point that is
stopped stays so, since nothing of its training is kept.
"""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_linguist.errors import LinguistError
from torch_linguist.model import LanguageModel
from torch_linguist.pipeline.short_training import Trial, run_trial
from torch_linguist.runs.csv_table import Table
from torch_linguist.runs.files import whole_file
from torch_linguist.trainer.context import TrainingContext
from torch_linguist.trainer.settings import GridSettings

COLUMNS = (
    "point",
    "lr",
    "weight_decay",
    "parameters",
    "steps",
    "train_loss",
    "train_perplexity",
    "valid_loss",
    "valid_perplexity",
    "seconds",
    "status",
    "error",
    "rungs",
)
LARGEST_LOSS = 700.0
"""Nats whose exponential float64 still holds."""
LEAST_RUNG = 10
"""Updates before the first look at a point."""


@dataclass(frozen=True)
class GridResult:
    """What the grid came to.

    Attributes:
        best: the point with the lowest validation loss; None where no point finished.
        points: all of them, in the order of the grid.
        resumed: how many of them an earlier start had done.
    """

    best: Trial | None
    points: list[Trial]
    resumed: int = 0


class Halving:
    """Decides at each rung whether a point goes on.

    Args:
        factor: of so many points that come to a rung, one goes on.
        steps: updates of a whole point.
    """

    def __init__(self, factor: int, steps: int) -> None:
        self.factor = factor
        rungs: list[int] = []
        while (rung := steps // factor ** (len(rungs) + 1)) >= LEAST_RUNG:
            rungs.append(rung)
        self.losses: dict[int, list[float]] = {rung: [] for rung in reversed(rungs)}

    def goes_on(self, step: int, loss: float) -> bool:
        """Notes a loss and says whether it is among the best share of those at its rung."""
        losses = self.losses[step]
        losses.append(loss)
        return loss <= sorted(losses)[math.ceil(len(losses) / self.factor) - 1]

    def note(self, looks: Iterable[tuple[int, float]]) -> None:
        """Takes up the looks of a point that an earlier start has done."""
        for step, loss in looks:
            if step in self.losses:
                self.losses[step].append(loss)


def run_grid(
    model: LanguageModel,
    context: TrainingContext,
    settings: GridSettings,
    learning_rates: Sequence[float],
    table: Path,
    progressed: Callable[[float, float], None] = lambda fraction, loss: None,
    resume: bool = False,
) -> GridResult:
    """Trains a copy of the model at every point, from the same weights, seed and data order.

    Args:
        model: untrained; is not changed.
        context: corpus and settings.
        settings: the weight decays, and the length of each training.
        learning_rates: best first; the first `settings.learning_rates` of them take part.
        table: a CSV file, a row a point.
        progressed: told the share of the stage done and the loss.
        resume: whether the rows that the file holds count, so that only the missing points are trained. Half a row at
            its end is dropped. Without it the file begins anew.

    Returns:
        The points and the best of them; a point that diverges is a row like any other.

    Raises:
        LinguistError: with `resume`, a row is not one of this grid.
    """
    pairs = [(lr, decay) for lr in learning_rates[: settings.learning_rates] for decay in settings.weight_decay]
    earlier = read_points(table, pairs, settings.steps) if resume else {}
    halving = Halving(settings.halving, settings.steps) if settings.halving else None
    rows = Table(table, COLUMNS, append=bool(earlier))
    points: list[Trial] = []
    for index, (lr, decay) in enumerate(pairs):

        def stretch(fraction: float, loss: float, index: int = index) -> None:
            progressed((index + fraction) / len(pairs), loss)

        if index in earlier:
            points.append(earlier[index])
            if halving:
                halving.note(earlier[index].rungs)
            continue
        looks = {"rungs": tuple(halving.losses), "satisfied": halving.goes_on} if halving else {}
        point = run_trial(model, context, lr, decay, settings.steps, settings.eval_tokens, stretch, **looks)  # type: ignore[arg-type]
        points.append(point)
        rows.add(_row(index, point, model.num_parameters()))
    finished = [point for point in points if point.status == "finished"]
    return GridResult(min(finished, key=lambda point: point.valid_loss, default=None), points, len(earlier))


def read_points(table: Path, pairs: Sequence[tuple[float, float]], steps: int) -> dict[int, Trial]:
    """The points that the file of an earlier start holds; it is left with their whole rows alone.

    Args:
        table: the CSV file; may be absent.
        pairs: learning rate and weight decay of each point.
        steps: updates of a whole point.

    Returns:
        Number of the point to what it came to.

    Raises:
        LinguistError: a row is not one of this grid.
    """
    if not table.is_file():
        return {}
    content = table.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].decode("utf-8", errors="replace").splitlines()
    rows = list(csv.reader(lines))
    if not rows:
        return {}
    points: dict[int, Trial] = {}
    for number, cells in enumerate(rows[1:], start=2):
        row = dict(zip(COLUMNS, cells, strict=False))
        try:
            index, point = int(row["point"]), _trial(row)
            fits = rows[0] == list(COLUMNS) and len(cells) == len(COLUMNS) and index not in points
            fits = fits and pairs[index] == (point.lr, point.weight_decay) and index >= 0
            fits = fits and (point.steps == steps or point.status != "finished")
        except (ValueError, KeyError, IndexError):
            fits = False
        if not fits:
            raise LinguistError(
                f"{table}, line {number}: is no row of this grid; remove the file, and its points are trained again"
            )
        points[index] = point
    with whole_file(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return points


def _row(index: int, point: Trial, parameters: int) -> dict[str, object]:
    diverged = point.status == "diverged"
    return {
        "point": index,
        "lr": point.lr,
        "weight_decay": float(point.weight_decay),
        "parameters": parameters,
        "steps": point.steps,
        "train_loss": point.train_loss,
        "train_perplexity": _perplexity(point.train_loss),
        "valid_loss": point.valid_loss,
        "valid_perplexity": math.inf if diverged else _perplexity(point.valid_loss),
        "seconds": point.seconds,
        "status": point.status,
        "error": point.error,
        "rungs": " ".join(f"{step}:{loss!r}" for step, loss in point.rungs),
    }


def _trial(row: Mapping[str, str]) -> Trial:
    """The point of a row.

    Raises:
        ValueError: a cell is not what belongs there.
    """
    if row["status"] not in ("finished", "diverged", "stopped"):
        raise ValueError(row["status"])
    looks = [look.partition(":") for look in row["rungs"].split()]
    return Trial(
        lr=float(row["lr"]),
        weight_decay=float(row["weight_decay"]),
        steps=int(row["steps"]),
        train_loss=float(row["train_loss"]),
        valid_loss=float(row["valid_loss"]),
        seconds=float(row["seconds"]),
        status=row["status"],
        error=row["error"],
        rungs=tuple((int(step), float(loss)) for step, _, loss in looks),
    )


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, LARGEST_LOSS)) if math.isfinite(loss) else math.inf
