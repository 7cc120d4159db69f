"""The runs of a sweep, how they ended, and the row of results that each one leaves.

Nothing here depends on Hydra: a run is a list of arguments, a folder, and the `summary.json` written to it.
"""

import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_linguist.errors import LinguistError
from torch_linguist.runs.platform import is_kill, stop_signals
from torch_linguist.runs.safe_reading import read_json

FINISHED = "finished"
FAILED = "failed"
INTERRUPTED = "interrupted"
PRUNED = "pruned"
STATUSES = (FINISHED, FAILED, INTERRUPTED, PRUNED)

RESULTS: Mapping[str, tuple[str, ...]] = {
    "seed": ("seed",),
    "status": (),
    "exit_code": (),
    "parameters": ("parameters",),
    "lr": ("lr",),
    "weight_decay": ("weight_decay",),
    "train_tokens": ("train", "tokens"),
    "seconds": (),
    "valid_loss": ("valid", "loss"),
    "valid_perplexity": ("valid", "perplexity"),
    "test_perplexity": ("test", "perplexity"),
    "error": (),
    "command": (),
}
"""Columns that follow `index`, `folder` and the swept keys, with their place in `summary.json` where they have one."""


@dataclass(frozen=True)
class Point:
    """One combination of values.

    Attributes:
        overrides: overrides of `tl-train`.
        swept: key to value, as text, of the keys that differ between points.

    Example:
        >>> Point(("model=lstm", "seed=1"), {"seed": "1"}).swept
        {'seed': '1'}
    """

    overrides: tuple[str, ...]
    swept: Mapping[str, str]


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        index: number of the run, from 1.
        folder: run folder, created by the run.
        log: file that receives the output of the run.
        arguments: arguments of the training program.
        command: command line that repeats the run, for display.
        swept: key to value of the keys that differ between the runs.
        point: number of the combination of values; runs of one point differ only in their seed.
        refusal: reason why the run cannot start; None if it can.
    """

    index: int
    folder: Path
    log: Path
    arguments: tuple[str, ...]
    command: str
    swept: Mapping[str, str]
    point: int = 0
    refusal: str | None = None

    @property
    def label(self) -> str:
        """The swept keys with their values, as on a command line."""
        return " ".join(f"{key}={value}" for key, value in self.swept.items()) or "(no key is swept)"


@dataclass(frozen=True)
class ProcessExit:
    """How the process of a run ended.

    Attributes:
        exit_code: exit code, negative for the signal that killed the process; None if unknown.
        seconds: duration of the process, imports and data preparation included.
        error: failure outside the process, such as a worker that died; empty otherwise.
    """

    exit_code: int | None
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a run ended, with its results.

    Attributes:
        run: the run.
        results: the `RESULTS` columns of its row.
    """

    run: SweepRun
    results: Mapping[str, Any]

    @property
    def status(self) -> str:
        """One of `STATUSES`."""
        return str(self.results["status"])

    @property
    def error(self) -> str:
        """One line that says why the run failed; empty if it finished."""
        return str(self.results["error"] or "")

    @property
    def seconds(self) -> float:
        """Duration of the run."""
        return float(self.results["seconds"] or 0)

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process; negative for the signal that killed it."""
        value = self.results["exit_code"]
        return None if value is None else int(value)

    @property
    def valid_loss(self) -> float | None:
        """Validation loss in nats per token; None if there is none or it is not finite."""
        return _finite(self.results["valid_loss"])

    @property
    def valid_perplexity(self) -> float | None:
        """Validation perplexity per token; None if there is none or it is not finite."""
        return _finite(self.results["valid_perplexity"])

    def row(self) -> dict[str, Any]:
        """Return the run's row of the table."""
        start = {"index": self.run.index, "folder": self.run.folder.name}
        return start | dict(self.results) | dict(self.run.swept)


def outcome_of(run: SweepRun, ended: ProcessExit, pruned_at: float | None = None) -> Outcome:
    """Return the outcome of a run whose process has ended.

    Args:
        run: the run.
        ended: how its process ended.
        pruned_at: last validation loss of a run that was stopped because it was losing; None otherwise.
    """
    summary = read_summary(run.folder)
    code = ended.exit_code
    if code == 0 and summary.get("status") == FINISHED:
        return _outcome(run, FINISHED, ended, "", summary)
    if pruned_at is not None:
        pruned = _outcome(run, PRUNED, ended, "stopped: it was losing", summary)
        return Outcome(run, {**pruned.results, "valid_loss": pruned_at})
    if code in [exit_code for number in stop_signals() for exit_code in (128 + number, -number)]:
        return _outcome(run, INTERRUPTED, ended, "interrupted", summary)
    return _outcome(run, FAILED, ended, ended.error or _error_line(run.log, code), summary)


def refused_outcome(run: SweepRun) -> Outcome:
    """Return the outcome of a run that cannot start."""
    return _outcome(run, FAILED, ProcessExit(2, 0.0), run.refusal or "", {})


def finished_before(run: SweepRun) -> Outcome | None:
    """Return the outcome of a run that finished after its sweep was killed; None if it did not finish."""
    summary = read_summary(run.folder)
    if summary.get("status") != FINISHED:
        return None
    begin, end = (run.folder / "config.yaml"), (run.folder / "summary.json")
    seconds = end.stat().st_mtime - begin.stat().st_mtime if begin.is_file() else 0.0
    return _outcome(run, FINISHED, ProcessExit(0, max(0.0, seconds)), "", summary)


def _outcome(run: SweepRun, status: str, ended: ProcessExit, error: str, summary: Mapping[str, Any]) -> Outcome:
    own = {
        "status": status,
        "exit_code": ended.exit_code,
        "seconds": round(ended.seconds, 2),
        # One row is one line of the file, so that a partial row at its end can be recognized.
        "error": " ".join(error.split()),
        "command": run.command,
    }
    return Outcome(run, {name: own.get(name, _value_at(summary, path)) for name, path in RESULTS.items()})


def read_summary(folder: Path) -> dict[str, Any]:
    """Return a run's `summary.json`, or an empty dict if it is missing or damaged."""
    try:
        content = read_json(folder / "summary.json")
    except LinguistError:
        return {}
    return content if isinstance(content, dict) else {}


def _error_line(log: Path, code: int | None) -> str:
    """Return the line of a run's output that says why it failed."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"killed by {name}" + (" (out of memory?)" if is_kill(code) else "")
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    if code == 0:
        return "it ended without a summary.json"
    return lines[-1] if lines else f"exit code {code}"


def _value_at(content: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = content if path else None
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _finite(value: Any) -> float | None:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
