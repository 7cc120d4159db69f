"""Snapshot ensembles: one training, several models, mixed (Huang et al. 2017).

The learning-rate schedule runs several times, and the weights at the end of each cycle are kept. Unlike in the paper,
the mixture is weighted: expectation-maximization on the validation split chooses the weights.

Shape legend: K members, N tokens.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from torch_linguist.checkpoint.shards import gathered_on_disk
from torch_linguist.checkpoint.storage import checkpoint_content, load_model, save_checkpoint, write_checkpoint
from torch_linguist.distributed import processes
from torch_linguist.evaluation.scoring import stream_nll
from torch_linguist.evaluation.uncertainty import Parts, paired_difference, parts_of
from torch_linguist.model.mixture import Population, fit_weights, mixture_nll
from torch_linguist.trainer.callback import Callback
from torch_linguist.trainer.callbacks.checkpointing import BEST

if TYPE_CHECKING:
    from torch_linguist.trainer.fit import Fit

Floats = NDArray[np.float64]


def cycle_progress(progress: float, cycles: int) -> float:
    """Return the progress within the current cycle, from 0 to 1."""
    return progress * cycles % 1.0 if progress < 1 else 1.0


class Snapshots(Callback):
    """Writes `checkpoints/snapshot-1.pt`, `snapshot-2.pt`, ... at the end of each cycle.

    Args:
        folder: `checkpoints/` of the run.
        count: number of cycles.

    Attributes:
        done: number of cycles that have ended.
        is_new: whether the last update ended a cycle.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self.done, self.is_new = 0, False

    def training_started(self, training: "Fit") -> None:
        self.done = self._cycle(training)

    def after_update(self, training: "Fit") -> None:
        cycle = self._cycle(training)
        self.is_new = cycle > self.done
        if self.is_new:
            self.done = cycle
            with training.overhead():
                content = checkpoint_content(training.evaluated_model, training.counters())
                path = snapshot_path(self._folder, cycle)
                gathered_on_disk(content, path, partial(write_checkpoint, path))

    def _cycle(self, training: "Fit") -> int:
        return int(training.state.progress * self._count + 1e-9)


class PopulationAtEnd(Callback):
    """Mixes the snapshots at the end of the training; the mixture replaces `best.pt` if it is clearly better on valid.

    It must have a lower loss than the best single model of the training, and the 95% interval of its gain over the best
    snapshot, paired by document (or block of lines), must lie above zero.

    Args:
        folder: `checkpoints/` of the run.
        count: number of snapshots.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count

    def training_ended(self, training: "Fit") -> None:
        if training.status != "finished" or not processes.is_main_process():
            return
        paths = [snapshot_path(self._folder, cycle) for cycle in range(1, self._count + 1)]
        members = [load_model(path, trusted_packages(training)) for path in paths if path.is_file()]
        if len(members) < 2:
            return
        context = training.context
        valid, tokens = context.corpus.valid, context.settings.eval_tokens
        chunk_length, stride = context.score.chunk_length, context.score.stride
        parts = [stream_nll(member, valid, tokens, chunk_length=chunk_length, stride=stride) for member in members]
        losses = torch.from_numpy(np.stack([np.concatenate(list(part)) for part in parts]))
        weights = fit_weights(losses)
        mixed = float(mixture_nll(losses, weights).mean())
        shares = ", ".join(
            f"{float(loss):.4f} (weight {weight:.2f})" for loss, weight in zip(losses.mean(1), weights, strict=True)
        )
        clear = _is_clearly_better(mixture_nll(losses, weights).numpy(), losses.numpy(), parts_of(valid).offsets)
        kept = mixed < training.state.best_loss and clear
        single = "the better single model" if clear else "a single model: the mixture gains nothing beyond noise"
        verdict = f"best.pt holds {'the mixture' if kept else single}"
        training.callbacks.noted(f"snapshots: valid losses {shares}; mixture {mixed:.4f}; {verdict}")
        if kept:
            population = Population.of(members, weights)
            save_checkpoint(self._folder / BEST, population, training.counters() | {"best_loss": mixed})
            training.state.best_loss, training.state.best_step = mixed, training.state.step


def _is_clearly_better(mixed: Floats, members: Floats, offsets: NDArray[np.int64]) -> bool:
    """Return whether a mixture's nll [N] is below that of the best of K members [K, N] beyond noise, paired by part."""
    parts = Parts("parts", np.unique(np.minimum(offsets, len(mixed))))
    best = members[members.mean(axis=1).argmin()]
    return paired_difference(parts.sums(best), parts.sums(mixed), parts.lengths).interval.low > 0


def snapshot_path(folder: Path, cycle: int) -> Path:
    """Return the path of the snapshot at the end of a cycle (1-based)."""
    return folder / f"snapshot-{cycle}.pt"


def trusted_packages(training: "Fit") -> tuple[str, ...]:
    """Return the packages whose models a snapshot of this training may hold."""
    return ("torch_linguist.", type(training.model).__module__.partition(".")[0] + ".")
