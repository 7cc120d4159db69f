"""Device of a model, precision of its matrix products, and peak memory."""

import contextlib
import functools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from torch_linguist.data.cache import default_cache_dir
from torch_linguist.errors import ConfigError, require
from torch_linguist.runs.files import write_json
from torch_linguist.runs.platform import peak_resident_mib, processor_name

BFLOAT16_GAINS = "bfloat16.json"
"""File in the cache folder with the measured gain of bfloat16 on each machine."""


DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices; `cuda:1` names one of several."""


def choose_device(name: str = "auto") -> torch.device:
    """Return the named device; for `auto` the first available of CUDA, MPS and CPU (see also `checked_device`).

    Raises:
        ConfigError: the device is not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    require(name.partition(":")[0] in DEVICES, f"trainer.device={name}: must be one of auto, {', '.join(DEVICES)}")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"trainer.device={name}: not available here ({_first_line(error)}); try cpu") from error
    return device


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush denormal numbers to zero within the block.

    Probabilities close to zero lead to products so small that the processor computes them ten times slower.
    """
    smallest = torch.tensor(torch.finfo(torch.float64).tiny, dtype=torch.float64)
    before = bool(smallest / 2 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def choose_precision(name: str, device: torch.device) -> str:
    """Return `fp32` or `bf16`; `auto` is bf16 on devices where its matrix products are faster."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if bfloat16_gain() > 1.5 else "fp32"
    return "fp32"


@functools.cache
def bfloat16_gain() -> float:
    """Return how many times faster this CPU multiplies in bfloat16 than in float32, measured once per machine.

    If it were measured anew, a value near the threshold could change the precision of the same command.
    """
    path = default_cache_dir() / BFLOAT16_GAINS
    machine = f"{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    gains = _known_gains(path)
    if machine not in gains:
        gains[machine] = measure_bfloat16_gain()
        # If nothing can be written, it is measured again next time.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, gains)
    return gains[machine]


def _known_gains(path: Path) -> dict[str, float]:
    """Return the stored measurements; none if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(machine): float(gain) for machine, gain in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def measure_bfloat16_gain() -> float:
    """Measure the gain, as the ratio of the fastest of six products each; takes a few milliseconds."""

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
    """Return the peak memory in MiB: of the GPU, or else the resident set of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_resident_mib()


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
