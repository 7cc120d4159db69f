"""What a sweep is made of: runs, how they ended, and the row that each leaves.

Nothing here knows Hydra: a run is a list of arguments, a folder, and the `summary.json` that appears in it.
"""

import json
import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FINISHED = "finished"
FAILED = "failed"
INTERRUPTED = "interrupted"
PRUNED = "pruned"
STATUSES = (FINISHED, FAILED, INTERRUPTED, PRUNED)

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
        point: number of the combination of values that it belongs to; runs of one point differ in their seed alone.
        refusal: why the run cannot even start; None if it can.
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
        """The swept keys with their values, as a person types them."""
        return " ".join(f"{key}={value}" for key, value in self.swept.items()) or "(no key is swept)"


@dataclass(frozen=True)
class Ended:
    """How the process of a run ended.

    Attributes:
        exit_code: negative for the signal that killed it; None where even that is not known.
        seconds: from start to end, imports and data included.
        error: what went wrong outside the process, such as a worker that died; empty otherwise.
    """

    exit_code: int | None
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a run ended, with its results.

    Attributes:
        run: which.
        results: the columns `RESULTS` of its row.
    """

    run: Run
    results: Mapping[str, Any]

    @property
    def status(self) -> str:
        """finished, failed, interrupted or pruned."""
        return str(self.results["status"])

    @property
    def error(self) -> str:
        """One line; empty if it finished."""
        return str(self.results["error"] or "")

    @property
    def seconds(self) -> float:
        """From start to end."""
        return float(self.results["seconds"] or 0)

    @property
    def exit_code(self) -> int | None:
        """Of the process; negative for the signal that killed it."""
        value = self.results["exit_code"]
        return None if value is None else int(value)

    @property
    def valid_loss(self) -> float | None:
        """Of the validation split, nats per token; None where there is none that counts."""
        return _finite(self.results["valid_loss"])

    @property
    def valid_perplexity(self) -> float | None:
        """Of the validation split, per token."""
        return _finite(self.results["valid_perplexity"])

    def row(self) -> dict[str, Any]:
        """The run's row of the table."""
        start = {"index": self.run.index, "folder": self.run.folder.name}
        return start | dict(self.results) | dict(self.run.swept)


def outcome_of(run: Run, ended: Ended, pruned_at: float | None = None) -> Outcome:
    """The outcome of a run whose process has ended.

    Args:
        run: which.
        ended: how its process ended.
        pruned_at: its last validation loss, if it was stopped because it was losing.
    """
    summary = read_summary(run.folder)
    code = ended.exit_code
    if code == 0 and summary.get("status") == FINISHED:
        return Outcome(run, results_of(run, FINISHED, ended, "", summary))
    if pruned_at is not None:
        results = results_of(run, PRUNED, ended, "stopped: it was losing", summary)
        return Outcome(run, {**results, "valid_loss": pruned_at})
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM):
        return Outcome(run, results_of(run, INTERRUPTED, ended, "interrupted", summary))
    return Outcome(run, results_of(run, FAILED, ended, ended.error or _error_line(run.log, code), summary))


def refused(run: Run) -> Outcome:
    """The outcome of a run that cannot start."""
    return Outcome(run, results_of(run, FAILED, Ended(2, 0.0), run.refusal or "", {}))


def results_of(run: Run, status: str, ended: Ended, error: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The columns `RESULTS` of a run."""
    return {
        "seed": _pick(summary, "seed"),
        "status": status,
        "exit_code": ended.exit_code,
        "parameters": _pick(summary, "parameters"),
        "lr": _pick(summary, "lr"),
        "weight_decay": _pick(summary, "weight_decay"),
        "train_tokens": _pick(summary, "train", "tokens"),
        "seconds": round(ended.seconds, 2),
        "valid_loss": _pick(summary, "valid", "loss"),
        "valid_perplexity": _pick(summary, "valid", "perplexity"),
        "test_perplexity": _pick(summary, "test", "perplexity"),
        # A row is a line of the file, so that a file that ends in half a row can be told by its last sign.
        "error": " ".join(error.split()),
        "command": run.command,
    }


def finished_before(run: Run) -> Outcome | None:
    """The outcome of a run that finished without anybody there to write its row; None if it did not."""
    summary = read_summary(run.folder)
    if summary.get("status") != FINISHED:
        return None
    begin, end = (run.folder / "config.yaml"), (run.folder / "summary.json")
    seconds = end.stat().st_mtime - begin.stat().st_mtime if begin.is_file() else 0.0
    return Outcome(run, results_of(run, FINISHED, Ended(0, max(0.0, seconds)), "", summary))


def read_summary(folder: Path) -> dict[str, Any]:
    """A run's `summary.json`; empty where there is none or it cannot be read."""
    try:
        content = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _error_line(log: Path, code: int | None) -> str:
    """The line of a run's output that says why it failed."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"killed by {name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")
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


def _pick(content: Mapping[str, Any], *names: str) -> Any:
    value: Any = content
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _finite(value: Any) -> float | None:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
