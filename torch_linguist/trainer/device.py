"""Where a model runs, and in which precision its matrix products do."""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torch_linguist.errors import ConfigError


def choose_device(name: str = "auto") -> torch.device:
    """The device named, or the best there is: CUDA, then MPS, then CPU.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"trainer.device={name}: not available here ({_first_line(error)}); try cpu") from error
    return device


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Within the block numbers below the smallest normal one count as zero; afterwards it is as it was.

    Probabilities close to zero make products so small that the processor computes them ten times slower.
    """
    smallest = torch.tensor(torch.finfo(torch.float64).tiny, dtype=torch.float64)
    before = bool(smallest / 2 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def choose_precision(name: str, device: torch.device) -> str:
    """`fp32` or `bf16`; `auto` takes bfloat16 where the device's matrix products gain by it."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if _bfloat16_gain() > 1.5 else "fp32"
    return "fp32"


@functools.cache
def _bfloat16_gain() -> float:
    """How many times faster this CPU multiplies in bfloat16 than in float32, measured in a few milliseconds."""

    def fastest(dtype: torch.dtype) -> float:
        left, right = torch.ones(512, 512, dtype=dtype), torch.ones(512, 1024, dtype=dtype)
        seconds = []
        for _ in range(6):
            begin = time.perf_counter()
            left @ right
            seconds.append(time.perf_counter() - begin)
        return min(seconds)

    return fastest(torch.float32) / fastest(torch.bfloat16)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a model's forward pass runs."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def peak_memory_mib(device: torch.device) -> float:
    """Largest memory so far in MiB: the device's own where it has one, else the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
