"""Where a run is, read from the tables that grow in its folder."""

import csv
import math
from pathlib import Path

STAGES = (
    ("fit", "metrics.csv"),
    ("grid", "grid.csv"),
    ("lr_find", "lr_trials.csv"),
    ("lr_find", "lr_finder.csv"),
    ("overfit", "overfit.csv"),
)
"""Stages with the tables that they leave, the later ones first."""
LATER_LOSSES = ("train_loss", "loss")


class Watch:
    """Reads what is new in the tables of a run, and no more than that.

    Args:
        folder: of the run; need not be there yet.

    Attributes:
        stage: the run is in; empty before the first row.
        step: updates done of the long training.
        loss: the last training loss.
        valid_losses: every validation loss of the long training so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stage, self.step = "", 0
        self.loss: float | None = None
        self.valid_losses: list[float] = []
        self._name, self._offset, self._columns = "", 0, list[str]()

    def look(self) -> bool:
        """Reads on; whether there is a new validation loss."""
        stage, name = next((one for one in STAGES if (self.folder / one[1]).is_file()), STAGES[-1])
        before = len(self.valid_losses)
        if name != self._name:
            self.stage, self._name, self._offset = stage, name, 0
        try:
            self._read(self.folder / name)
        except OSError:
            # Not there yet, or just being replaced.
            return False
        return len(self.valid_losses) > before

    def _read(self, path: Path) -> None:
        size = path.stat().st_size
        if size < self._offset:
            # A run that goes on has dropped rows that it does again.
            self._offset = 0
        if self._offset == 0:
            self.valid_losses.clear()
        with path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content.rfind(b"\n") + 1
        lines = list(csv.reader(content[:whole].decode("utf-8", errors="replace").splitlines()))
        if self._offset == 0 and lines:
            self._columns = lines.pop(0)
        self._offset += whole
        for line in lines:
            self._take(dict(zip(self._columns, line, strict=False)))

    def _take(self, row: dict[str, str]) -> None:
        self.step = int(_number(row.get("step")) or self.step)
        for column in LATER_LOSSES:
            loss = _number(row.get(column))
            if loss is not None:
                self.loss = loss
        valid = _number(row.get("valid_loss"))
        if valid is not None and self.stage == "fit":
            self.valid_losses.append(valid)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
