"""The first Ctrl-C (or SIGTERM) asks a run to end well; the second ends it at once."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from torch_linguist.distributed import processes

HANGUP = getattr(signal, "SIGHUP", None)
"""The terminal is gone; Windows knows no such signal."""

SIGNALS = [signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP else [])]


ECHO = 5.0
"""Seconds within which torchrun passes on a signal that the terminal has sent to its processes already."""


class Interrupted(KeyboardInterrupt):
    """A signal ends the run.

    Args:
        signal_number: which one.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.signal_number = signal_number


class StopRequest:
    """Whether somebody has asked the run to end. Calling it tells.

    Attributes:
        signal_number: of the signal that asked; 0 while none has.
        at_once: whether the first signal already ends what is being done, because there is nothing to save.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self.at_once = False

    def __call__(self) -> bool:
        return processes.stopping(self.signal_number != 0)

    def check(self) -> None:
        """Ends what is being done, where somebody has asked for it.

        Raises:
            Interrupted: somebody has.
        """
        if self():
            raise Interrupted(self.signal_number or signal.SIGTERM)

    @contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """Within the block the first signal raises Interrupted."""
        self.check()
        self.at_once = True
        try:
            yield
        finally:
            self.at_once = False


@contextmanager
def graceful_interrupt() -> Iterator[StopRequest]:
    """Within the block the first SIGINT, SIGTERM or SIGHUP sets the request, the second raises Interrupted.

    Under `nohup`, where SIGHUP is ignored, it stays so. Outside the main thread, where Python allows
    no handlers, signals do what they did before.
    """
    request = StopRequest()
    processes.listen(lambda: request.signal_number != 0)
    first_at = 0.0
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first_at
        if request.signal_number and processes.launched_processes() > 1 and time.monotonic() < first_at + ECHO:
            return
        first_at = time.monotonic()
        if request.signal_number or request.at_once:
            request.signal_number = number
            raise Interrupted(number)
        request.signal_number = number
        with suppress(OSError):  # Whoever reads the terminal may be gone.
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, MESSAGE)

    caught = [number for number in SIGNALS if number != HANGUP or signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in caught}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


MESSAGE = b"\ninterrupted: saving and scoring what there is; once more stops at once\n"
