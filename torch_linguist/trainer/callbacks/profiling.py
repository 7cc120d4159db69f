"""Profiling: time and memory of each operation, by torch.profiler over a few updates.

The results are `profile.csv`, with a row per operation, and `profile/trace.json`, which Perfetto (ui.perfetto.dev) and
chrome://tracing open. Profiled updates compute the same values, only more slowly.
"""

import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile, record_function

from torch_linguist.distributed import processes
from torch_linguist.runs.csv_table import Table
from torch_linguist.runs.files import whole_file
from torch_linguist.trainer.callback import Callback

if TYPE_CHECKING:
    from torch_linguist.trainer.fit import Fit

WARM_UP = 10
"""Updates before profiling starts: the first ones choose kernels and allocate memory."""

UPDATES = 5
"""Updates that are profiled."""

FILE, TRACE = "profile.csv", "profile/trace.json"

COLUMNS = ("operation", "device", "calls", "self_ms", "total_ms", "share", "memory_mib")
"""Columns of `profile.csv`. Calls, milliseconds and memory are means per update. `self_ms` excludes the operations
inside; `share` is its share of all `self_ms` of the device. `memory_mib` is memory allocated minus memory freed by the
operation itself, on device and CPU together; empty for GPU kernels."""

UPDATE = "update"
"""Name of the row that stands for a whole update; its own time is spent in Python between the operations."""


class Profiling(Callback):
    """Profiles a few updates of a training.

    Profiling starts after `WARM_UP` updates, or earlier if the training would end before. It ends after `UPDATES`
    updates, or at the first validation, checkpoint or end of the training.

    Args:
        folder: run folder.
        max_steps: updates of the training; None if another limit ends it.
    """

    def __init__(self, folder: Path, max_steps: int | None) -> None:
        self._folder = folder
        self._max_steps = max_steps or math.inf
        self._wanted = processes.is_main_process()
        self._first_step: int | None = None
        self._done = 0
        self._profiler: profile | None = None
        self._update = ExitStack()

    def before_update(self, training: "Fit") -> None:
        if self._wanted and self._profiler is None and self._is_time(training.state.step, training.state.progress):
            self._profiler = _profiler()
            self._profiler.start()
        if self._profiler is not None:
            self._update.enter_context(record_function(UPDATE))

    def after_update(self, training: "Fit") -> None:
        if self._profiler is not None:
            self._update.close()
            self._done += 1
            if self._done == UPDATES:
                self._end(training)

    def before_validation(self, training: "Fit") -> None:
        self._end(training)

    def before_checkpoint(self, training: "Fit") -> None:
        self._end(training)

    def training_failed(self, training: "Fit") -> None:
        self._end(training)

    def close(self) -> None:
        self._update.close()
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def _is_time(self, step: int, progress: float) -> bool:
        """Return whether the warm-up is over, or the rest of the training would be too short after it."""
        self._first_step = step if self._first_step is None else self._first_step
        total = min(self._max_steps, step / progress if progress > 0 else math.inf)
        return step - self._first_step >= WARM_UP or total - step <= UPDATES

    def _end(self, training: "Fit") -> None:
        """Write the results, if there are any."""
        if self._profiler is None or not self._done:
            return
        profiler, self._profiler, self._wanted = self._profiler, None, False
        profiler.stop()
        trace = self._folder / TRACE
        trace.parent.mkdir(exist_ok=True)
        with whole_file(trace) as temporary:
            profiler.export_chrome_trace(str(temporary))
        table = Table(self._folder / FILE, COLUMNS)
        rows = profile_rows(profiler.key_averages(), self._done)
        for row in rows:
            table.add(row)
        step = training.state.step
        training.callbacks.profiled(self._folder / FILE, step)
        slowest = ", ".join(f"{row['operation']} {row['share']:.0%}" for row in rows[:3])
        training.callbacks.noted(
            f"profile of updates {step - self._done + 1} to {step}: {slowest} of the time; more in {FILE} and in "
            f"TensorBoard, and a timeline in {TRACE} (open it at ui.perfetto.dev)"
        )


def profile_rows(averages: Sequence[FunctionEventAvg], updates: int) -> list[dict[str, str | int | float | None]]:
    """Return the rows of `profile.csv`: GPU kernels before CPU operations, slowest first."""
    rows: list[dict[str, str | int | float | None]] = []
    for event in averages:
        on_cpu = event.device_type == DeviceType.CPU
        if not on_cpu and event.is_user_annotation:
            continue  # A span of CPU time over the kernels launched in it, not a kernel.
        memory = (event.self_cpu_memory_usage + event.self_device_memory_usage) / 2**20 / updates
        rows.append(
            {
                "operation": event.key,
                "device": event.device_type.name.lower(),
                "calls": event.count / updates,
                "self_ms": (event.self_cpu_time_total if on_cpu else event.self_device_time_total) / 1e3 / updates,
                "total_ms": (event.cpu_time_total if on_cpu else event.device_time_total) / 1e3 / updates,
                "memory_mib": memory if on_cpu else None,
            }
        )
    totals: dict[str, float] = {}
    for row in rows:
        device, own = str(row["device"]), float(row["self_ms"] or 0)
        totals[device] = totals.get(device, 0.0) + own
    for row in rows:
        row["share"] = float(row["self_ms"] or 0) / (totals[str(row["device"])] or 1.0)
    return sorted(rows, key=lambda row: (row["device"] == "cpu", -float(row["self_ms"] or 0)))


def _profiler() -> profile:
    # Silences two lines that the library would print; it is read at the first use.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    # Without acc_events, torch warns about profiling cycles, which are not used here.
    return profile(activities=activities, profile_memory=True, acc_events=True)
