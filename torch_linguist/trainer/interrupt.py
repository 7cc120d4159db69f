"""Graceful interruption: the first Ctrl-C (or SIGTERM) lets a run end well, the second ends it at once."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from torch_linguist.distributed import processes
from torch_linguist.distributed.torchrun import is_launched
from torch_linguist.runs.platform import stop_signals

ECHO = 5.0
"""Seconds within which torchrun forwards a signal that its processes have already received from the terminal."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the run.

    Args:
        signal_number: number of the signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.signal_number = signal_number


class StopRequest:
    """A request to end the run. Calling it returns whether the run should end, the same in all processes.

    Attributes:
        signal_number: number of the signal that this process received; 0 before one arrives.
        agreed: whether any process had received a signal when the processes last exchanged their requests.
        at_once: whether the first signal raises `Interrupted`, because there is nothing to save.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self.agreed = False
        self.at_once = False
        self._updates, self._interval, self._asked_at = 0, 1, time.monotonic()

    @property
    def received(self) -> bool:
        """Whether this process has received a signal."""
        return self.signal_number != 0

    def __call__(self) -> bool:
        # Several processes stop after the same update, namely the one in which they exchanged the request.
        return self.agreed or (self.received and processes.world_size() == 1)

    def agree(self) -> None:
        """Exchange the requests of all processes, about once a second; every process calls this after each update.

        The number of updates until the next exchange follows from their common speed, so it is the same in all.
        """
        if processes.world_size() == 1:
            return
        self._updates += 1
        if self._updates < self._interval:
            return
        received, seconds = processes.all_reduce_sum(self.received, time.monotonic() - self._asked_at)
        self.agreed |= received > 0
        speed = self._updates * processes.world_size() / max(seconds, 1e-6)
        self._updates, self._interval, self._asked_at = 0, max(1, int(speed)), time.monotonic()

    def check(self) -> None:
        """End the current work if the run should end.

        Raises:
            Interrupted: the run should end.
        """
        if self():
            raise Interrupted(self.signal_number or signal.SIGTERM)

    @contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """Raise `Interrupted` at the first signal within the block."""
        self.check()
        self.at_once = True
        try:
            yield
        finally:
            self.at_once = False


@contextmanager
def graceful_interrupt() -> Iterator[StopRequest]:
    """Within the block, the first of `stop_signals()` sets the request and the second raises `Interrupted`.

    A signal that is ignored, such as SIGHUP under `nohup`, stays ignored. Outside the main thread, where Python allows
    no signal handlers, nothing changes.
    """
    request = StopRequest()
    first_at = 0.0
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first_at
        if request.received and is_launched() and time.monotonic() < first_at + ECHO:
            return
        first_at = time.monotonic()
        if request.received or request.at_once:
            request.signal_number = number
            raise Interrupted(number)
        request.signal_number = number
        with suppress(OSError):  # The terminal may be closed.
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, MESSAGE)

    caught = [number for number in stop_signals() if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in caught}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


MESSAGE = b"\ninterrupted: saving and scoring the best model so far; once more stops at once\n"
