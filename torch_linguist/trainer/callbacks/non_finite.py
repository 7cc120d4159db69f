"""Losses that are not finite, and losses that jump: what is kept of them, and what is said."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_linguist.data import Batch

JUMP = 1.5
"""A loss above its running mean by this factor is worth a line."""

SETTLED = 20
"""Losses that the running mean needs before it can be trusted."""

PAST = 0.95
"""Weight of the past in the running mean."""


class LossWatch:
    """Notices a loss that jumps; it says so and changes nothing."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._count = 0
        self._quiet = 0

    def jump(self, loss: float) -> str | None:
        """Told each loss; in words what happened, where it lies far above those before it.

        One jump is told once: the next is looked for when the mean has had time to follow.
        """
        mean, self._quiet = self._mean, max(0, self._quiet - 1)
        jumped = self._count >= SETTLED and not self._quiet and loss > JUMP * mean
        self._count += 1
        past = min(PAST, 1 - 1 / self._count)
        self._mean = past * mean + (1 - past) * loss
        if not jumped:
            return None
        self._quiet = SETTLED
        return f"the training loss jumped to {loss:.4g}, its running mean was {mean:.4g}"

    def state_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"mean": self._mean, "count": self._count, "quiet": self._quiet}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self._mean, self._count, self._quiet = float(state["mean"]), int(state["count"]), int(state["quiet"])


def save_faulty_batch(
    folder: Path, step: int, parts: Sequence[Batch], loss: Tensor, norm: Tensor | None, lr: float
) -> Path:
    """Keeps the batches of an update whose loss or gradient was not finite, for inspection.

    Args:
        folder: of the run.
        step: the update.
        parts: its batches (several where gradients are accumulated).
        loss: nats per token.
        norm: of the gradient.
        lr: learning rate.

    Returns:
        The file: `torch.load(file, weights_only=True)` gives a dict of plain numbers and tensors [B, T].
    """
    path = folder / f"faulty_batch_{step}.pt"
    content = {
        "step": step,
        "loss": float(loss),
        "gradient_norm": None if norm is None else float(norm),
        "lr": lr,
        "batches": [{"tokens": part.tokens, "targets": part.targets, "reset": bool(part.reset)} for part in parts],
    }
    torch.save(content, path)
    return path


def fault(loss: Tensor | float, norm: Tensor | float | None) -> str | None:
    """What of an update is not finite, in words; None where all is well."""
    value = float(loss)
    if not math.isfinite(value):
        return f"the training loss is {value}"
    if norm is not None and not math.isfinite(float(norm)):
        return f"the gradient norm is {float(norm)}"
    return None
