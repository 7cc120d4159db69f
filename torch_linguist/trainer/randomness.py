"""Seeds and random states of Python, NumPy and torch on every device."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from torch_linguist.distributed import processes

SEED_STRIDE = 1_000_003
"""Distance between the seeds of two processes, so that their dropout masks differ."""


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; torch, which draws the dropout masks, differently in each process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed + SEED_STRIDE * processes.rank())


def random_state() -> dict[str, Any]:
    """Return all random states of this process, as plain types and tensors."""
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


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Restore the result of `random_state`; devices that do not exist here are ignored."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def shared_random_state(device: torch.device, generator: torch.Generator | None = None) -> dict[str, Any]:
    """Return the random states of this process and torch's random state of every process.

    Args:
        device: device of the model in this process.
        generator: source of what all processes draw alike; None with one process.
    """
    state = random_state()
    if generator is not None:
        state["shared"] = generator.get_state()
    own = {"torch": state["torch"]}
    if device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(device)
    return state | {"processes": processes.all_gather_object(own) if processes.world_size() > 1 else []}


def restore_shared_random_state(
    state: Mapping[str, Any], seed: int, device: torch.device, generator: torch.Generator | None = None
) -> int:
    """Restore the result of `shared_random_state`, perhaps in another number of processes.

    Args:
        state: result of `shared_random_state`.
        seed: seed for a process that did not exist when the state was saved.
        device: device of the model in this process.
        generator: source of what all processes draw alike; None with one process, whose own source draws it.

    Returns:
        The number of processes that saved the state.
    """
    restore_random_state(state)
    saved, rank = state["processes"], processes.rank()
    if rank >= len(saved) and not processes.is_main_process():
        torch.manual_seed(seed + SEED_STRIDE * rank)
    elif rank < len(saved) and processes.world_size() > 1:
        torch.set_rng_state(saved[rank]["torch"])
        if "cuda" in saved[rank] and device.type == "cuda":
            torch.cuda.set_rng_state(saved[rank]["cuda"], device)
    if generator is not None:
        own = state["cuda"][device.index or 0] if device.type == "cuda" and "cuda" in state else state["torch"]
        generator.set_state(state.get("shared", own))
    elif "shared" in state:
        if device.type == "cuda":
            torch.cuda.set_rng_state(state["shared"], device)
        else:
            torch.set_rng_state(state["shared"])
    return len(saved) or 1


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed everything for the block and restore every random state afterwards."""
    before = random_state()
    try:
        seed_everything(seed)
        yield
    finally:
        restore_random_state(before)
