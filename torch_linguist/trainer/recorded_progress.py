"""The pace of a training that a clock limits: what makes it repeatable.

Under `max_minutes` the learning rate of an update depends on how much time has passed, and so do the updates after
which it is validated. `pace.csv` keeps the progress at which each update began, so that another training can go
through the same learning rates and validations without a clock.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_linguist.errors import TrainingError

FILE = "pace.csv"
COLUMNS = ("step", "progress")


@dataclass(frozen=True)
class RecordedProgress:
    """The course that a training took.

    Attributes:
        progress: at the beginning of each update, 0 to 1.
        validated: updates after which it was validated.
    """

    progress: Sequence[float]
    validated: frozenset[int]

    def at(self, step: int) -> float:
        """The progress after so many updates; 1 where the training ended."""
        return self.progress[step] if step < len(self.progress) else 1.0


def read_recorded_progress(folder: Path) -> RecordedProgress | None:
    """The pace of a run; None of one that no clock limited.

    Args:
        folder: of the run; holds `pace.csv` and `metrics.csv`.

    Raises:
        TrainingError: a file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        progress: list[float] = []
        for row in _rows(path):
            if int(row["step"]) != len(progress) + 1 or not 0 <= float(row["progress"]) <= 1:
                raise ValueError(f"row {len(progress) + 1}")
            progress.append(float(row["progress"]))
        path = folder / "metrics.csv"
        validated = frozenset(int(row["step"]) for row in _rows(path) if row["valid_loss"])
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise TrainingError(f"{path}: is damaged ({error}); the run cannot be repeated from it") from error
    return RecordedProgress(progress, validated)


class RecordedProgressTable:
    """Writes `pace.csv`, some rows at a time.

    Args:
        path: of the file; an old one is replaced unless `append`.
        append: whether rows are added to those that the file holds.
    """

    def __init__(self, path: Path, append: bool = False) -> None:
        self._path = path
        self._pending: list[tuple[int, float]] = []
        if not (append and path.is_file()):
            path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")

    def add(self, step: int, progress: float) -> None:
        """Notes the progress at which an update begins; `flush` writes it."""
        assert math.isfinite(progress)
        self._pending.append((step, progress))

    def flush(self) -> None:
        """Writes what is pending."""
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{step},{progress!r}\n" for step, progress in self._pending)
        self._pending.clear()


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


__all__ = ["RecordedProgress", "RecordedProgressTable", "read_recorded_progress"]
