"""The progress of a run, read from `progress.json` and the tables that grow in its folder."""

import csv
import json
import math
from pathlib import Path

LOSS_COLUMNS = ("train_loss", "loss")


class RunProgress:
    """Follows a run by reading only the new rows of its tables.

    Args:
        folder: run folder; it need not exist yet.

    Attributes:
        stage: current stage; empty before the first row.
        step: number of updates of the long training.
        loss: latest training loss.
        valid_losses: all validation losses of the long training so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stage, self.step = "", 0
        self.loss: float | None = None
        self.valid_losses: list[float] = []
        self._name, self._offset, self._columns = "", 0, list[str]()

    def update(self) -> bool:
        """Read the new rows; return whether there is a new validation loss."""
        before = len(self.valid_losses)
        try:
            running = json.loads((self.folder / "progress.json").read_text(encoding="utf-8"))["running"]
            name = next((table for table in running["tables"] if (self.folder / table).is_file()), "")
            if not name:
                return False
            if name != self._name:
                self.stage, self._name, self._offset = running["stage"], name, 0
            self._read(self.folder / name)
        except (OSError, ValueError, KeyError, RecursionError):
            # The file does not exist yet, or is being replaced.
            return False
        return len(self.valid_losses) > before

    def _read(self, path: Path) -> None:
        if path.stat().st_size < self._offset:
            # A resumed run dropped the rows that it repeats.
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
            self._take_row(dict(zip(self._columns, line, strict=False)))

    def _take_row(self, row: dict[str, str]) -> None:
        self.step = int(_number(row.get("step")) or self.step)
        for column in LOSS_COLUMNS:
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
