"""The loop of a sweep: start runs, a fixed number at a time, and collect how each one ended."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

from torch_linguist.sweep.launchers import Job, Launcher, LocalLauncher
from torch_linguist.sweep.outcomes import FAILED, Outcome, SweepRun, outcome_of, refused_outcome
from torch_linguist.sweep.run_process import make_task, order_path
from torch_linguist.sweep.run_progress import RunProgress

POLL_SECONDS = 0.05
PROGRESS_SECONDS = 0.5


class RunSource(Protocol):
    """Where runs come from: a list, or a search that learns from the runs that have ended."""

    def next(self) -> SweepRun | None:
        """Return the next run, or None if there are no more."""

    def ended(self, outcome: Outcome) -> None:
        """Record how a run ended."""

    def is_losing(self, run: SweepRun, losses: Sequence[float]) -> bool:
        """Return whether a run with these validation losses should be stopped."""


class ListedRuns:
    """Runs that are known in advance.

    Args:
        runs: the runs, in the order in which they start.
    """

    def __init__(self, runs: Sequence[SweepRun]) -> None:
        self._waiting = list(runs)

    def next(self) -> SweepRun | None:
        return self._waiting.pop(0) if self._waiting else None

    def ended(self, outcome: Outcome) -> None:
        return

    def is_losing(self, run: SweepRun, losses: Sequence[float]) -> bool:
        return False


class SweepCallback:
    """Follows a sweep. Every method does nothing here; subclasses override what they need."""

    def begun(self, total: int, before: int) -> None:
        """The sweep begins; `before` of its `total` runs ended in an earlier start."""

    def run_started(self, run: SweepRun) -> None:
        """A run was handed to the launcher."""

    def run_ended(self, outcome: Outcome) -> None:
        """A run ended, or could not start."""

    def stopping(self, active: int) -> None:
        """No further runs start; the `active` ones were asked to save and end."""

    def progressed(self, progress: Mapping[int, RunProgress]) -> None:
        """The progress of the active runs by run index; called about twice a second."""

    def noted(self, message: str) -> None:
        """A message for the user, in one line."""

    def close(self) -> None:
        """The sweep is over, successfully or not."""


class SignalCounter:
    """Counts SIGINT and SIGTERM inside a `with` block instead of letting them end the process.

    Attributes:
        count: number of signals received.
        last: number of the last signal.
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


@dataclass
class _ActiveRun:
    run: SweepRun
    job: Job
    progress: RunProgress
    pruned: bool = False


@dataclass
class SweepEngine:
    """Carries out the runs of a source.

    Attributes:
        source: the runs.
        program: command line that precedes the arguments of each run.
        jobs: number of runs at a time.
        keep_going: whether the other runs continue when one fails; otherwise the active runs are interrupted.
        signals: the first signal interrupts the active runs and lets them save; the second kills them.
        callback: follows the sweep.
        launcher: where the runs are carried out.
        environment: environment variables added for each run.
    """

    source: RunSource
    program: Sequence[str]
    jobs: int
    keep_going: bool
    signals: SignalCounter
    callback: SweepCallback = field(default_factory=SweepCallback)
    launcher: Launcher = field(default_factory=LocalLauncher)
    environment: Mapping[str, str] = field(default_factory=dict)

    def carry_out(self) -> list[Outcome]:
        """Carry out the runs.

        Returns:
            The outcomes in the order in which the runs ended. Runs that never started have none.
        """
        self._active: list[_ActiveRun] = []
        self._outcomes: list[Outcome] = []
        self._interrupted, self._killed, self._last_look = False, False, 0.0
        try:
            while self._start_runs() or self._active:
                self._handle_stop()
                self._collect()
                self._update_progress()
                if self._active:
                    time.sleep(POLL_SECONDS)
        finally:
            # Runs are still active here only after an error of our own, such as a full disk. Leave none behind.
            self._for_each_active(lambda one: one.job.kill())
            self._wait(30.0)
        return self._outcomes

    def _stopping(self) -> bool:
        failed = any(one.status == FAILED for one in self._outcomes)
        return self.signals.count > 0 or (not self.keep_going and failed)

    def _start_runs(self) -> bool:
        """Start as many runs as there are free jobs; return whether any run was taken from the source."""
        taken = False
        while len(self._active) < self.jobs and not self._stopping():
            run = self.source.next()
            if run is None:
                break
            taken = True
            if run.refusal is not None:
                self._end(refused_outcome(run))
                continue
            task = make_task(run, self.program, self.environment)
            for order in ("interrupt", "kill"):
                order_path(task, order).unlink(missing_ok=True)
            self.callback.run_started(run)
            self._active.append(_ActiveRun(run, self.launcher.start(task), RunProgress(run.folder)))
        return taken

    def _handle_stop(self) -> None:
        if self._stopping() and not self._interrupted:
            self._interrupted = True
            self.callback.stopping(len(self._active))
            self._for_each_active(lambda one: one.job.interrupt())
        if self.signals.count > 1 and not self._killed:
            self._killed = True
            self._for_each_active(lambda one: one.job.kill())

    def _collect(self) -> None:
        for one in list(self._active):
            ended = one.job.poll()
            if ended is None:
                continue
            self._active.remove(one)
            if one.progress.update() and not one.pruned:
                # Other runs are compared with its last validations too.
                self.source.is_losing(one.run, one.progress.valid_losses)
            losses = one.progress.valid_losses if one.pruned else []
            self._end(outcome_of(one.run, ended, losses[-1] if losses else None))

    def _end(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self.callback.run_ended(outcome)
        self.source.ended(outcome)

    def _update_progress(self) -> None:
        now = time.monotonic()
        if now - self._last_look < PROGRESS_SECONDS:
            return
        self._last_look = now
        for one in self._active:
            if one.progress.update() and not one.pruned and self.source.is_losing(one.run, one.progress.valid_losses):
                one.pruned = True
                one.job.kill()
        self.callback.progressed({one.run.index: one.progress for one in self._active})

    def _for_each_active(self, order: Callable[[_ActiveRun], None]) -> None:
        for one in self._active:
            order(one)

    def _wait(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while self._active and time.monotonic() < limit:
            self._active = [one for one in self._active if one.job.poll() is None]
            time.sleep(POLL_SECONDS)
