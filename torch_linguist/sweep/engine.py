"""The loop of a sweep: starts runs, so many at a time, and takes what becomes of each."""

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

from torch_linguist.sweep.launchers import Job, Launcher, LocalLauncher
from torch_linguist.sweep.run_process import order_path, task_of
from torch_linguist.sweep.run_progress import Watch
from torch_linguist.sweep.outcomes import FAILED, Outcome, Run, outcome_of, refused

POLL_SECONDS = 0.05
WATCH_SECONDS = 0.5
PROGRAM = (sys.executable, "-P", "-m", "torch_linguist.cli.train")


class Source(Protocol):
    """Where runs come from: a list, or a search that learns from those that ended."""

    def next(self) -> Run | None:
        """The next run; None if there is none left."""

    def ended(self, outcome: Outcome) -> None:
        """Told how a run ended."""

    def is_losing(self, run: Run, losses: Sequence[float]) -> bool:
        """Whether a run with these validation losses so far is not worth its time."""


class Listed:
    """Runs that are known beforehand.

    Args:
        runs: in the order in which they start.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._waiting = list(runs)

    def next(self) -> Run | None:
        return self._waiting.pop(0) if self._waiting else None

    def ended(self, outcome: Outcome) -> None:
        return

    def is_losing(self, run: Run, losses: Sequence[float]) -> bool:
        return False


class Audience:
    """Is told what happens; does nothing itself."""

    def started(self, run: Run) -> None:
        """A run was handed over."""

    def ended(self, outcome: Outcome) -> None:
        """A run ended, or could not start."""

    def stopping(self, active: int) -> None:
        """The rest is given up; so many runs are asked to end."""

    def looked(self, watches: Mapping[int, Watch]) -> None:
        """Where the runs are, by their index; a few times a second."""


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


@dataclass
class _Active:
    run: Run
    job: Job
    watch: Watch
    pruned: bool = False


@dataclass
class Engine:
    """Makes the runs of a source.

    Attributes:
        source: of the runs.
        jobs: runs at a time.
        keep_going: whether the others go on when a run fails; if not, those that run are interrupted.
        signals: a first signal interrupts the runs and lets them save; a second kills them.
        audience: is told what happens.
        launcher: where the runs are carried out.
        environment: variables that are set for each run.
        program: the command line before a run's arguments.
    """

    source: Source
    jobs: int
    keep_going: bool
    signals: SignalCounter
    audience: Audience = field(default_factory=Audience)
    launcher: Launcher = field(default_factory=LocalLauncher)
    environment: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = PROGRAM

    def carry_out(self) -> list[Outcome]:
        """Makes the runs.

        Returns:
            The outcomes, in the order in which the runs ended; runs that never started have none.
        """
        self._active: list[_Active] = []
        self._outcomes: list[Outcome] = []
        self._asked, self._killed, self._looked = False, False, 0.0
        try:
            while self._start() or self._active:
                self._obey()
                self._collect()
                self._look()
                if self._active:
                    time.sleep(POLL_SECONDS)
        finally:
            # Reached with live runs only by an error of ours (a full disk): none may be left behind.
            self._end_all(lambda one: one.job.kill())
            self._wait(30.0)
        return self._outcomes

    def _stopping(self) -> bool:
        failed = any(one.status == FAILED for one in self._outcomes)
        return self.signals.count > 0 or (not self.keep_going and failed)

    def _start(self) -> bool:
        """Hands over as many runs as there is room for; whether any was taken from the source."""
        taken = False
        while len(self._active) < self.jobs and not self._stopping():
            run = self.source.next()
            if run is None:
                break
            taken = True
            if run.refusal is not None:
                self._end(refused(run))
                continue
            task = task_of(run, self.program, self.environment)
            for order in ("interrupt", "kill"):
                order_path(task, order).unlink(missing_ok=True)
            self.audience.started(run)
            self._active.append(_Active(run, self.launcher.start(task), Watch(run.folder)))
        return taken

    def _obey(self) -> None:
        if self._stopping() and not self._asked:
            self._asked = True
            self.audience.stopping(len(self._active))
            self._end_all(lambda one: one.job.interrupt())
        if self.signals.count > 1 and not self._killed:
            self._killed = True
            self._end_all(lambda one: one.job.kill())

    def _collect(self) -> None:
        for one in list(self._active):
            ended = one.job.poll()
            if ended is not None:
                self._active.remove(one)
                if one.watch.look() and not one.pruned:
                    # What it did since the last look is what others are held against too.
                    self.source.is_losing(one.run, one.watch.valid_losses)
                losses = one.watch.valid_losses if one.pruned else []
                self._end(outcome_of(one.run, ended, losses[-1] if losses else None))

    def _end(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self.audience.ended(outcome)
        self.source.ended(outcome)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < WATCH_SECONDS:
            return
        self._looked = now
        for one in self._active:
            if one.watch.look() and not one.pruned and self.source.is_losing(one.run, one.watch.valid_losses):
                one.pruned = True
                one.job.kill()
        self.audience.looked({one.run.index: one.watch for one in self._active})

    def _end_all(self, order: Callable[[_Active], None]) -> None:
        for one in self._active:
            order(one)

    def _wait(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while self._active and time.monotonic() < limit:
            self._active = [one for one in self._active if one.job.poll() is None]
            time.sleep(POLL_SECONDS)
