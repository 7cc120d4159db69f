"""Checkpointing: when the best weights and the state of a training are written, and which states are kept."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_linguist.checkpoint.shards import gathered_on_disk, has_shards, remove_unused_shards, without_shards
from torch_linguist.checkpoint.storage import checkpoint_content, copied_weights, read_checkpoint, write_checkpoint
from torch_linguist.distributed import processes
from torch_linguist.errors import TrainingError
from torch_linguist.trainer.callback import Callback
from torch_linguist.trainer.settings import CheckpointSettings

if TYPE_CHECKING:
    from torch_linguist.trainer.fit import Fit

LAST = "last.pt"
BEST = "best.pt"

TIME_SHARE = 0.015
"""Largest share of the time that checkpoints after validations take; those at intervals come on top."""

CLOCK_STEPS = 8
"""Updates after which several processes read the clock for the next checkpoint."""

LOG = logging.getLogger("torch_linguist.trainer")


def checkpoint_paths(folder: Path, keep: int) -> list[Path]:
    """Return the paths of the states that are kept, newest first: `last.pt`, `previous.pt`, `previous-2.pt`, ..."""
    names = [LAST, *("previous.pt" if age == 1 else f"previous-{age}.pt" for age in range(1, keep))]
    return [folder / name for name in names]


def newest_state(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Find the newest state of a training that can be read.

    Returns:
        Its path and content, with `StoredTensor` for tensors in shards; None if no state was written yet. A damaged
        state is skipped with a warning.

    Raises:
        TrainingError: all states are damaged.
    """
    written = [path for path in checkpoint_paths(folder, 1 + len(list(folder.glob("previous*.pt")))) if path.is_file()]
    damage: TrainingError | None = None
    for path in written:
        try:
            return path, read_checkpoint(path, parts=True)
        except TrainingError as error:
            LOG.warning(
                "%s; %s", error, "trying the one before it" if path != written[-1] else "there is none before it"
            )
            damage = error
    if damage is not None:
        raise damage
    return None


class Checkpointing(Callback):
    """Writes `best.pt` and `last.pt`; of a sharded model, the parts of `last.pt` go to a folder beside it.

    The best weights wait in memory until the state is written too. So the two files on disk belong together, and the
    cost of both is limited. As the last of the callbacks it saves what the others did in the same update.

    Args:
        folder: `checkpoints/` of the run.
        settings: number and interval of checkpoints.
        at_start: whether the state before the first update is written, for a rollback.
    """

    def __init__(self, folder: Path, settings: CheckpointSettings, at_start: bool = False) -> None:
        self._best_path, self._paths = folder / BEST, checkpoint_paths(folder, settings.keep)
        self._settings, self._at_start = settings, at_start
        self._best: dict[str, Any] | None = None
        self._best_is_new = False
        self._written_at, self._written_step = time.monotonic(), -1
        self._validated, self._affordable = False, False

    def training_started(self, training: "Fit") -> None:
        self._written_at = time.monotonic()
        if training.resumed_from is not None:
            self._written_step = training.state.step
            if training.resumed_from in self._paths:
                # A newer state than the one resumed from is damaged; it must not displace a whole one.
                for newer in self._paths[: self._paths.index(training.resumed_from)]:
                    newer.unlink(missing_ok=True)
        elif self._at_start:
            self._save(training)

    def validated(self, training: "Fit", loss: float) -> None:
        state = training.state
        self._validated = True
        self._best_is_new = state.best_step == state.step
        if not training.context.sharded:
            self._hold_best(training)
        self._affordable = bool(processes.broadcast_number(state.checkpoint_seconds <= TIME_SHARE * state.seconds))

    def after_update(self, training: "Fit") -> None:
        self._hold_best(training)
        if self._affordable or (
            # The last state is written when the last validation is part of it.
            training.state.progress < 1 and self._is_due(training.state.step)
        ):
            self._save(training)

    def training_ended(self, training: "Fit") -> None:
        state = training.state
        self._hold_best(training)
        if self._validated or self._best is not None or self._written_step != state.step:
            self._save(training)
        if not state.validations:
            # A model to score, although the training was interrupted before its first validation. The state on disk
            # does not count this one.
            state.best_loss, state.best_step = training.validation_loss(), state.step
            self._best_is_new = True
            self._hold_best(training)
            self._write_best()

    def training_failed(self, training: "Fit") -> None:
        self._write_best()

    def _is_due(self, step: int) -> bool:
        minutes, steps = self._settings.every_minutes, self._settings.every_steps
        if steps is not None and step - max(0, self._written_step) >= steps:
            return True
        # Several processes follow one clock, which they do not read after each update.
        if minutes is None or step % (1 if processes.world_size() == 1 else CLOCK_STEPS):
            return False
        return bool(processes.broadcast_number(time.monotonic() - self._written_at >= 60 * minutes))

    def _hold_best(self, training: "Fit") -> None:
        """Copy the weights, or this process's parts of them, if they are the best so far; the next save writes them.

        A sharded model has its parts back only after the validation.
        """
        if self._best_is_new:
            model = training.evaluated_model
            self._best = checkpoint_content(model, training.counters()) | {"weights": copied_weights(model)}
            self._best_is_new = False

    def _save(self, training: "Fit") -> None:
        """Write the best weights if they are new, then the state of the training.

        Raises:
            TrainingError: a file cannot be written, or a loss or weight is not finite.
        """
        begin = time.monotonic()
        with training.overhead():
            training.callbacks.before_checkpoint(training)
            last, state = self._paths[0], training.state_dict()
            self._write_best()
            with _naming_way_out(last):
                content = without_shards(checkpoint_content(training.model, state), last.parent, training.state.step)
                write_checkpoint(last, content, self._paths[1:])
                remove_unused_shards(last.parent, self._paths)
        self._written_at, self._written_step = time.monotonic(), training.state.step
        self._validated, self._affordable = False, False
        training.state.checkpoint_seconds += self._written_at - begin

    def _write_best(self) -> None:
        if self._best is not None:
            with _naming_way_out(self._best_path):
                if has_shards(self._best):
                    gathered_on_disk(self._best, self._best_path, partial(write_checkpoint, self._best_path))
                else:
                    write_checkpoint(self._best_path, self._best)
            self._best = None


@contextmanager
def _naming_way_out(path: Path) -> Iterator[None]:
    """Turn the errors of writing a checkpoint within the block into one that says how to go on."""
    try:
        yield
    except TrainingError:
        raise
    except (OSError, RuntimeError) as error:  # torch's own writer raises no OSError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise TrainingError(
            f"{path}: cannot be written ({reason}); the checkpoint before it is whole: free some space, then "
            f"continue with tl-train resume={path.parent.parent}"
        ) from error
