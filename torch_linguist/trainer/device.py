"""Where a model runs, and in which precision its matrix products do."""

import contextlib
import functools
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from torch_linguist.data.cache import default_cache_dir
from torch_linguist.errors import ConfigError
from torch_linguist.runs.files import write_json

BFLOAT16_GAINS = "bfloat16.json"
"""Name of the file in the cache's folder that keeps what was measured of each machine."""


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
    """How many times faster this CPU multiplies in bfloat16 than in float32: measured once a machine, and kept.

    A repeated measurement near the border would have the same command train in one precision today, in the other
    tomorrow.
    """
    path = default_cache_dir() / BFLOAT16_GAINS
    machine = f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    gains = _known_gains(path)
    if machine not in gains:
        gains[machine] = _measured_gain()
        # Where nothing can be written, it is measured again next time.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, gains)
    return gains[machine]


def _known_gains(path: Path) -> dict[str, float]:
    """What earlier measurements left; nothing where the file is not there or not whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(machine): float(gain) for machine, gain in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _processor() -> str:
    """The processor's name, which several machines that share a folder differ by."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _measured_gain() -> float:
    """The ratio of the fastest of six products each, in a few milliseconds."""

    def fastest(dtype: torch.dtype) -> float:
        left, right = torch.ones(512, 512, dtype=dtype), torch.ones(512, 1024, dtype=dtype)
        seconds = []
        for _ in range(6):
            begin = time.perf_counter()
            left @ right
            seconds.append(time.perf_counter() - begin)
        return min(seconds)

    return fastest(torch.float32) / fastest(torch.bfloat16)


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
