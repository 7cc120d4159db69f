"""Device of a model, precision of its matrix products, and peak memory."""

import contextlib
import copy
import functools
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from torch_linguist.data.cache import default_cache_dir
from torch_linguist.model import LanguageModel
from torch_linguist.model.module_modes import allow_recurrent_gradients
from torch_linguist.runs.devices import choose_device
from torch_linguist.runs.files import write_json
from torch_linguist.runs.platform import peak_resident_mib, processor_name

LOG = logging.getLogger("torch_linguist.trainer")

TOLERANCE = 1e-3
"""Largest accepted difference of a loss or a gradient, relative to its largest value."""

ROWS, CHUNK = 3, 9
"""Size of the batch that is compared between devices; two chunks, so that the state is carried once."""

BFLOAT16_GAINS = "bfloat16.json"
"""File in the cache folder with the measured gain of bfloat16 on each machine."""


# Apple's MPS backend has trained recurrent models wrongly without any error (pytorch#92615, pytorch#107294).
def checked_device(name: str, model: LanguageModel) -> torch.device:
    """Return the device to train a model on; `auto` is MPS only if a step there equals the step on the CPU.

    Args:
        name: `trainer.device`.
        model: model to train, on the CPU.

    Raises:
        ConfigError: the device is not available.
    """
    device = choose_device(name)
    if name != "auto" or device.type != "mps" or step_agrees(model, device):
        return device
    LOG.warning("trainer.device=auto: a step on MPS differs from the step on the CPU; training on the CPU")
    return torch.device("cpu")


def step_agrees(model: LanguageModel, device: torch.device) -> bool:
    """Return whether losses and gradients of a small batch are the same on a device and on the CPU."""
    try:
        found = _step(model, device)
    except (RuntimeError, TypeError):  # An operation or a type that the device lacks.
        return False
    expected = _step(model, torch.device("cpu"))
    return len(found) == len(expected) and all(map(_close, found, expected))


def _step(model: LanguageModel, device: torch.device) -> list[Tensor]:
    """Return the losses [ROWS, CHUNK] of two chunks, and the gradients, without dropout."""
    # A copy, so that neither the model nor the random states change.
    copied = copy.deepcopy(model).eval().to(device)
    allow_recurrent_gradients(copied)
    source = torch.Generator().manual_seed(1)
    tokens = torch.randint(model.vocab_size, (ROWS, 2 * CHUNK + 1), generator=source).to(device)
    state = [part.to(device) for part in copied.initial_state(ROWS)]
    losses = []
    for begin in (0, CHUNK):
        chunk = tokens[:, begin : begin + CHUNK + 1]
        nll, state = copied.nll(chunk[:, :-1], chunk[:, 1:], state)
        losses.append(nll)
    weights = [weight for weight in copied.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(torch.stack(losses).mean(), weights, allow_unused=True) if weights else ()
    return [values.detach().cpu() for values in (*losses, *gradients) if values is not None and values.numel()]


def _close(found: Tensor, expected: Tensor) -> bool:
    if found.is_sparse or expected.is_sparse:
        found, expected = found.to_dense(), expected.to_dense()
    limit = TOLERANCE * float(expected.abs().max().clamp_min(1e-6))
    # A comparison with NaN is false.
    return found.shape == expected.shape and bool((found - expected).abs().max() <= limit)


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
