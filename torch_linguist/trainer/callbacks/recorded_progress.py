"""Recorded progress: what makes a time-limited training repeatable.

Under `max_minutes`, learning rates and validations depend on the clock. `pace.csv` records the progress at which each
update began, so that another training can repeat the same learning rates and validations without a clock.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch_linguist.errors import TrainingError
from torch_linguist.runs.csv_table import drop_rows_after
from torch_linguist.runs.files import write_text, writing
from torch_linguist.trainer.callback import Callback
from torch_linguist.trainer.callbacks.metrics_log import METRICS

if TYPE_CHECKING:
    from torch_linguist.trainer.fit import Fit

FILE = "pace.csv"
COLUMNS = ("step", "progress")


@dataclass(frozen=True)
class RecordedProgress:
    """The course of a time-limited training.

    Attributes:
        progress: progress at the beginning of each update, from 0 to 1.
        validated: updates after which a validation took place.
    """

    progress: Sequence[float]
    validated: frozenset[int]

    def at(self, step: int) -> float:
        """Return the progress after `step` updates; 1 where the training ended."""
        return self.progress[step] if step < len(self.progress) else 1.0


def read_recorded_progress(folder: Path) -> RecordedProgress | None:
    """Read the recorded progress of a run; None if the run had no time limit.

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
        path = folder / METRICS
        validated = frozenset(int(row["step"]) for row in _rows(path) if row["valid_loss"])
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise TrainingError(f"{path}: is damaged ({error}); the run cannot be repeated from it") from error
    return RecordedProgress(progress, validated)


class ProgressRecorder(Callback):
    """Writes `pace.csv`, several rows at a time.

    Args:
        folder: run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._pending: list[str] = []

    def training_started(self, training: "Fit") -> None:
        if training.resumed_from is not None:
            drop_rows_after(self._path, training.state.step)
        if training.resumed_from is None or not self._path.is_file():
            write_text(self._path, ",".join(COLUMNS) + "\n")

    def before_update(self, training: "Fit") -> None:
        progress = training.state.progress
        assert math.isfinite(progress)
        self._pending.append(f"{training.state.step + 1},{progress!r}\n")

    def logged(self, scalars: Mapping[str, float], step: int) -> None:
        self._flush()

    def before_checkpoint(self, training: "Fit") -> None:
        self._flush()

    def _flush(self) -> None:
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.writelines(self._pending)
        self._pending.clear()


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
