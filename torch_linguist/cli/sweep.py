"""The engine of a grid: each run in a process and a folder of its own, a row in a CSV file as each ends.

It knows nothing of Hydra: a run is a list of arguments, a folder, and the `summary.json` that appears in it.
"""

import csv
import io
import json
import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

FINISHED = "finished"
FAILED = "failed"
INTERRUPTED = "interrupted"

POLL_SECONDS = 0.05
RESULTS = (
    "seed",
    "status",
    "exit_code",
    "parameters",
    "lr",
    "weight_decay",
    "train_tokens",
    "seconds",
    "valid_loss",
    "valid_perplexity",
    "test_perplexity",
    "error",
    "command",
)
"""Columns after `index`, `folder` and the swept keys."""


@dataclass(frozen=True)
class Run:
    """One run to be made.

    Attributes:
        index: from 1.
        folder: that the run will make.
        log: file that takes what the run prints.
        arguments: of `tl-train`.
        command: that repeats the run, for people.
        swept: key to value of the keys that differ between the runs.
        refusal: why the run cannot even start; None if it can.
    """

    index: int
    folder: Path
    log: Path
    arguments: tuple[str, ...]
    command: str
    swept: Mapping[str, str]
    refusal: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: which.
        status: finished, failed or interrupted.
        exit_code: of the process; negative for the signal that killed it.
        seconds: from start to end, imports and data included.
        error: one line; empty if it finished.
        summary: the run's `summary.json`; empty if it wrote none.
    """

    run: Run
    status: str
    exit_code: int
    seconds: float
    error: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def valid_perplexity(self) -> float | None:
        """Of the validation split, per token."""
        value = _pick(self.summary, "valid", "perplexity")
        return float(value) if isinstance(value, int | float) else None

    def row(self) -> dict[str, Any]:
        """The run's row of the table."""
        summary = self.summary
        results = {
            "seed": _pick(summary, "seed"),
            "status": self.status,
            "exit_code": self.exit_code,
            "parameters": _pick(summary, "parameters"),
            "lr": _pick(summary, "lr"),
            "weight_decay": _pick(summary, "weight_decay"),
            "train_tokens": _pick(summary, "train", "tokens"),
            "seconds": round(self.seconds, 2),
            "valid_loss": _pick(summary, "valid", "loss"),
            "valid_perplexity": _pick(summary, "valid", "perplexity"),
            "test_perplexity": _pick(summary, "test", "perplexity"),
            "error": self.error,
            "command": self.run.command,
        }
        return {"index": self.run.index, "folder": self.run.folder.name} | results | dict(self.run.swept)


class ResultTable:
    """A CSV file that grows by whole rows.

    Args:
        path: of the file; the header is written at once.
        swept: keys that differ between the runs.
    """

    def __init__(self, path: Path, swept: Sequence[str]) -> None:
        self.path = path
        # A swept key that is a column anyway (seed) keeps the place of the swept ones.
        self.columns = ["index", "folder", *swept, *(name for name in RESULTS if name not in swept)]
        self._write(self.columns)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row, on disk when this returns."""
        self._write(["" if row.get(name) is None else row[name] for name in self.columns])

    def _write(self, values: Sequence[Any]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerow(values)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            # One write a row: whoever reads the file meanwhile sees whole rows.
            file.write(text.getvalue())
            file.flush()
            os.fsync(file.fileno())


class SignalCounter:
    """Counts SIGINT and SIGTERM while it is entered, instead of letting them end the process.

    Attributes:
        count: how many came.
        last: number of the last one.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._count)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.last = number


def run_all(
    runs: Sequence[Run],
    *,
    jobs: int,
    keep_going: bool,
    signals: SignalCounter,
    on_start: Callable[[Run], None],
    on_end: Callable[[Outcome], None],
    on_stop: Callable[[int], None],
    program: Sequence[str] | None = None,
) -> list[Outcome]:
    """Makes the runs, `jobs` at a time.

    Args:
        runs: in the order in which they start.
        jobs: processes at a time; the cores are divided among them.
        keep_going: whether the others go on when a run fails; if not, those that run are interrupted.
        signals: a first signal interrupts the runs and lets them save; a second kills them.
        on_start: told of each run that starts.
        on_end: told of each run that ends, also of one that could not start.
        on_stop: told once, with how many runs are asked to end, when the rest is given up.
        program: the command line before a run's arguments; None for `tl-train`.

    Returns:
        The outcomes, in the order in which the runs ended; runs that never started have none.
    """
    environment = child_environment(jobs)
    command = list(program or (sys.executable, "-P", "-m", "torch_linguist.cli.train"))
    waiting = list(runs)
    outcomes: list[Outcome] = []
    active: list[_Process] = []
    asked = False
    try:
        while waiting or active:
            stopping = signals.count > 0 or (not keep_going and any(one.status == FAILED for one in outcomes))
            if stopping:
                waiting.clear()
                if not asked:
                    asked = True
                    on_stop(len(active))
                    for process in active:
                        process.child.send_signal(signal.SIGINT)
            if signals.count > 1:
                for process in active:
                    process.child.kill()
            while waiting and len(active) < jobs:
                run = waiting.pop(0)
                if run.refusal is not None:
                    outcomes.append(Outcome(run, FAILED, 2, 0.0, run.refusal))
                    on_end(outcomes[-1])
                    # Whether the others go on is decided anew after each failure.
                    break
                on_start(run)
                active.append(_Process(run, command, environment))
            for process in [process for process in active if process.child.poll() is not None]:
                active.remove(process)
                outcomes.append(process.outcome())
                on_end(outcomes[-1])
            if active:
                time.sleep(POLL_SECONDS)
    finally:
        # Reached with live children only by an error of ours (a full disk): none may be left behind.
        for process in active:
            process.child.kill()
            process.child.wait()
    return outcomes


def child_environment(jobs: int) -> dict[str, str]:
    """The environment of a run: its share of the cores, and the same torch_linguist as ours."""
    environment = dict(os.environ)
    if jobs > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
            environment.setdefault(name, str(max(1, cores // jobs)))
    home = str(Path(__file__).resolve().parents[2])
    if home not in (*site.getsitepackages(), site.getusersitepackages()):
        # From a checkout that is not installed; `-P` keeps the rest of the current folder out of the import path.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (home, environment.get("PYTHONPATH"))))
    return environment


class _Process:
    """A run that has started. In a session of its own, so that Ctrl-C reaches it through us alone."""

    def __init__(self, run: Run, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.run = run
        self.start = time.monotonic()
        with run.log.open("wb") as log:
            self.child = subprocess.Popen(
                [*command, *run.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )

    def outcome(self) -> Outcome:
        """How it ended."""
        code = self.child.returncode
        seconds = time.monotonic() - self.start
        summary = read_summary(self.run.folder)
        if code == 0 and summary:
            return Outcome(self.run, FINISHED, code, seconds, summary=summary)
        if code in (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM):
            return Outcome(self.run, INTERRUPTED, code, seconds, "interrupted", summary)
        return Outcome(self.run, FAILED, code, seconds, _error_line(self.run.log, code), summary)


def read_summary(folder: Path) -> dict[str, Any]:
    """A run's `summary.json`; empty where there is none or it cannot be read."""
    try:
        content = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _error_line(log: Path, code: int) -> str:
    """The line of a run's output that says why it failed."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"killed by {name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    if code == 0:
        return "it ended without a summary.json"
    return lines[-1] if lines else f"exit code {code}"


def _pick(content: Mapping[str, Any], *names: str) -> Any:
    value: Any = content
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


__all__ = [
    "FAILED",
    "FINISHED",
    "INTERRUPTED",
    "Outcome",
    "ResultTable",
    "Run",
    "SignalCounter",
    "child_environment",
    "read_summary",
    "run_all",
]
