"""Where the time and the memory of a training go: torch.profiler over some updates.

It leaves `profile.csv`, a row an operation, and `profile/trace.json`, which Perfetto (ui.perfetto.dev) and
chrome://tracing open. The updates themselves are the same with and without it, only slower while it looks.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile, record_function

from torch_linguist.distributed import processes
from torch_linguist.runs.csv_table import Table
from torch_linguist.runs.files import whole_file
from torch_linguist.trainer.callback import Callback
from torch_linguist.trainer.settings import TrainerSettings

WARM_UP = 10
"""Updates before: kernels are chosen and memory is taken in the first ones."""

UPDATES = 5
"""Updates that are looked at."""

FILE, TRACE = "profile.csv", "profile/trace.json"

COLUMNS = ("operation", "device", "calls", "self_ms", "total_ms", "share", "memory_mib")
"""Of `profile.csv`. Calls, milliseconds and memory are those of one update, on average; `self_ms` leaves out the
operations inside; `share` is that of `self_ms` in all of its device; `memory_mib` is what the operation itself took
less what it gave back, on the device and on the CPU together, empty for kernels of a GPU."""

UPDATE = "update"
"""The row that holds an update as a whole; its own time is that of Python between the operations."""


class Profiling:
    """Profiles some updates of one training, if it is wanted.

    It begins after `WARM_UP` updates, earlier in a training that is over by then, and ends after `UPDATES`, or where
    something else than an update comes in between: a validation, a checkpoint, the end.

    Args:
        folder: of the run.
        settings: say whether it is wanted, and how long the training is.
        observer: is told when the table is there.
    """

    def __init__(self, folder: Path, settings: TrainerSettings, observer: Callback) -> None:
        self._folder, self._observer = folder, observer
        self._wanted = settings.profile and processes.is_main_process()
        self._max_steps = settings.max_steps or math.inf
        self._begin: int | None = None
        self._done = 0
        self._profiler: profile | None = None

    @contextmanager
    def update(self, step: int, progress: float) -> Iterator[None]:
        """The block is one update, and profiled if it is its turn.

        Args:
            step: updates before it.
            progress: of the training, 0 to 1.
        """
        if not self._wanted:
            yield
            return
        if self._profiler is None and self._is_time(step, progress):
            self._profiler = _profiler()
            self._profiler.start()
        if self._profiler is None:
            yield
            return
        try:
            with record_function(UPDATE):
                yield
        except BaseException:
            self._drop()
            raise
        self._done += 1
        if self._done == UPDATES:
            self.end(step + 1)

    def _is_time(self, step: int, progress: float) -> bool:
        """Whether the warm-up is over, or what is left of the training so short that it would leave nothing."""
        self._begin = step if self._begin is None else self._begin
        total = min(self._max_steps, step / progress if progress > 0 else math.inf)
        return step - self._begin >= WARM_UP or total - step <= UPDATES

    def _drop(self) -> None:
        """Leaves no profiler running behind a training that failed."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def end(self, step: int) -> None:
        """Writes what was profiled up to this update, once; nothing happens where nothing was."""
        if self._profiler is None:
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
        self._observer.profiled(self._folder / FILE, step)
        slowest = ", ".join(f"{row['operation']} {row['share']:.0%}" for row in rows[:3])
        self._observer.noted(
            f"profile of updates {step - self._done + 1} to {step}: {slowest} of the time; more in {FILE} and in "
            f"TensorBoard, and a timeline in {TRACE} (open it at ui.perfetto.dev)"
        )


def profile_rows(averages: Sequence[FunctionEventAvg], updates: int) -> list[dict[str, str | int | float | None]]:
    """The rows of `profile.csv`, the device of the training first, the slowest operation first.

    On a GPU its kernels have rows of their own: the time of the operations that launched them, on the CPU, is another.

    Args:
        averages: of the profiler, by operation.
        updates: how many were profiled.
    """
    rows: list[dict[str, str | int | float | None]] = []
    for event in averages:
        on_cpu = event.device_type == DeviceType.CPU
        if not on_cpu and event.is_user_annotation:
            continue  # A stretch of the CPU's time, laid over the kernels that it launched.
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
    # Its library would write two lines of its own to the terminal; it reads this when it is first used.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    return profile(
        activities=activities, profile_memory=True, acc_events=True
    )  # Without, it warns of cycles that there are not.


__all__ = ["COLUMNS", "FILE", "TRACE", "Profiling", "profile_rows"]
