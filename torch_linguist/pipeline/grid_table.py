"""`grid.csv`: one row per point, written as each point ends, so that a resumed grid trains only the rest."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.scoring import exp
from torch_linguist.pipeline.short_training import Trial
from torch_linguist.runs.csv_table import write_rows

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


def read_points(table: Path, pairs: Sequence[tuple[float, float]], steps: int) -> dict[int, Trial]:
    """Read the points that an earlier part of the run trained. An incomplete last row is removed from the file.

    Args:
        table: path of the CSV file; may be absent.
        pairs: learning rate and weight decay of each point.
        steps: updates of a complete point.

    Returns:
        The points by their index.

    Raises:
        LinguistError: a row does not belong to this grid.
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
            index, point = int(row["point"]), _point_of(row)
            fits = rows[0] == list(COLUMNS) and len(cells) == len(COLUMNS) and index not in points
            fits = fits and pairs[index] == (point.lr, point.weight_decay) and index >= 0
            fits = fits and (point.steps == steps or point.status != "finished")
        except (ValueError, KeyError, IndexError):
            fits = False
        if not fits:
            raise LinguistError(
                f"{table}, line {number}: does not belong to this grid; remove the file, and its points are trained "
                "again"
            )
        points[index] = point
    write_rows(table, rows)
    return points


def row_of(index: int, point: Trial, parameters: int) -> dict[str, object]:
    """Return the row of a point."""
    return {
        "point": index,
        "lr": point.lr,
        "weight_decay": float(point.weight_decay),
        "parameters": parameters,
        "steps": point.steps,
        "train_loss": point.train_loss,
        "train_perplexity": exp(point.train_loss) if math.isfinite(point.train_loss) else math.inf,
        "valid_loss": point.valid_loss,
        "valid_perplexity": exp(point.valid_loss) if math.isfinite(point.valid_loss) else math.inf,
        "seconds": point.seconds,
        "status": point.status,
        "error": point.error,
        "rungs": " ".join(f"{step}:{loss!r}" for step, loss in point.rungs),
    }


def _point_of(row: Mapping[str, str]) -> Trial:
    """Parse a row; raise ValueError for a cell that cannot be read."""
    if row["status"] not in ("finished", "diverged", "stopped"):
        raise ValueError(row["status"])
    rungs = [rung.partition(":") for rung in row["rungs"].split()]
    return Trial(
        lr=float(row["lr"]),
        weight_decay=float(row["weight_decay"]),
        steps=int(row["steps"]),
        train_loss=float(row["train_loss"]),
        valid_loss=float(row["valid_loss"]),
        seconds=float(row["seconds"]),
        status=row["status"],
        error=row["error"],
        rungs=tuple((int(step), float(loss)) for step, _, loss in rungs),
    )
