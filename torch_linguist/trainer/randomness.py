"""Seeds and random states, of Python, NumPy and torch on every device."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from torch_linguist.distributed import processes


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch on every device; torch, whose dropout it is, differently in each process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(processes.process_seed(seed))


def random_state() -> dict[str, Any]:
    """All random states, as plain types and tensors."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Puts back what `random_state` gave; a device that is not here is left alone."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seeds everything for the block and leaves every random state as it was."""
    before = random_state()
    try:
        seed_everything(seed)
        yield
    finally:
        restore_random_state(before)
