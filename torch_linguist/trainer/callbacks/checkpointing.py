"""Which states of the long training lie on the disk: the best weights, the last state, and those before it."""

import logging
import time
from pathlib import Path
from typing import Any

from torch_linguist.checkpoint.storage import checkpoint_content, copied_weights, read_checkpoint, write_checkpoint
from torch_linguist.errors import TrainingError
from torch_linguist.model import LanguageModel
from torch_linguist.trainer.settings import CheckpointSettings

LAST = "last.pt"
BEST = "best.pt"

SHARE = 0.015
"""Most of the training's time that checkpoints after validations may take; those at intervals come on top."""

LOG = logging.getLogger("torch_linguist.trainer")


def checkpoint_line(folder: Path, keep: int) -> list[Path]:
    """The places of the states that are kept, the youngest first: `last.pt`, `previous.pt`, `previous-2.pt` ..."""
    names = [LAST, *("previous.pt" if age == 1 else f"previous-{age}.pt" for age in range(1, keep))]
    return [folder / name for name in names]


def newest_state(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The youngest state of a training that can be read.

    Args:
        folder: `checkpoints/` of a run.

    Returns:
        Where it lies, and its content; None where no state was written yet. A damaged one is passed over, and
        a warning says so.

    Raises:
        TrainingError: there are states, and all of them are damaged.
    """
    written = [path for path in checkpoint_line(folder, 1 + len(list(folder.glob("previous*.pt")))) if path.is_file()]
    damage: TrainingError | None = None
    for path in written:
        try:
            content = read_checkpoint(path)
        except TrainingError as error:
            LOG.warning(
                "%s; %s", error, "trying the one before it" if path != written[-1] else "there is none before it"
            )
            damage = error
            continue
        return path, content
    if damage is not None:
        raise damage
    return None


class Checkpointing:
    """Writes the checkpoints of one training, and knows what that costs.

    The best weights wait in memory until the state is written too, so that the two on the disk belong together and
    the cost of both is held down.

    Args:
        folder: `checkpoints/` of the run.
        settings: how many, how often.

    Attributes:
        seconds: that writing has taken, of this training's whole life.
    """

    def __init__(self, folder: Path, settings: CheckpointSettings) -> None:
        self.best_path, self.last_path = folder / BEST, folder / LAST
        self.seconds = 0.0
        self._line = checkpoint_line(folder, settings.keep)
        self._settings = settings
        self._best: dict[str, Any] | None = None
        self._written_at = time.monotonic()
        self._written_step = -1
        self._outdated = False

    def is_due(self, step: int) -> bool:
        """Whether an interval since the last write is over."""
        minutes, steps = self._settings.every_minutes, self._settings.every_steps
        late = minutes is not None and time.monotonic() - self._written_at >= 60 * minutes
        return late or (steps is not None and step - max(0, self._written_step) >= steps)

    def can_afford(self, seconds: float) -> bool:
        """Whether one more write, beside those at intervals, keeps to its share of a training of so many seconds."""
        return self.seconds <= SHARE * seconds

    def hold_best(self, model: LanguageModel, progress: dict[str, Any]) -> None:
        """Takes a copy of the best weights so far; the next `write` brings it to the disk."""
        self._best = checkpoint_content(model, progress) | {"weights": copied_weights(model)}

    def write(self, model: LanguageModel, progress: dict[str, Any], step: int) -> None:
        """Writes the best weights where they are new, then the state of the training.

        Raises:
            TrainingError: the disk takes no more.
        """
        begin = time.monotonic()
        self.write_best()
        self._write(self.last_path, checkpoint_content(model, progress), self._line[1:])
        self._written_at, self._written_step, self._outdated = time.monotonic(), step, False
        self.seconds += self._written_at - begin

    def write_best(self) -> None:
        """Writes the best weights where they are new."""
        if self._best is not None:
            self._write(self.best_path, self._best)
            self._best = None

    def outdate(self) -> None:
        """There is something to keep that the last write knows nothing of, though no update was made."""
        self._outdated = True

    def is_current(self, step: int) -> bool:
        """Whether all there is to keep at this update lies on the disk."""
        return not self._outdated and self._best is None and self._written_step == step

    def begin_at(self, step: int, seconds: float, path: Path) -> None:
        """Goes on for a training that is taken up again from a checkpoint.

        A younger one than that is damaged: it must not push a whole one out of the line.
        """
        self._written_step, self.seconds = step, seconds
        if path in self._line:
            for younger in self._line[: self._line.index(path)]:
                younger.unlink(missing_ok=True)

    def _write(self, path: Path, content: dict[str, Any], previous: list[Path] | None = None) -> None:
        try:
            write_checkpoint(path, content, previous or ())
        except (OSError, RuntimeError) as error:  # torch's own writer knows no OSError
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise TrainingError(
                f"{path}: cannot be written ({reason}); the checkpoint before it is whole: make room, then go on with "
                f"tl-train resume={path.parent.parent}"
            ) from error
