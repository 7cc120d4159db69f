"""The first Ctrl-C (or SIGTERM) asks a training to end well; the second ends it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether somebody has asked the run to end. Calling it tells.

    Attributes:
        signal_number: of the signal that asked; 0 while none has.
    """

    def __init__(self) -> None:
        self.signal_number = 0

    def __call__(self) -> bool:
        return self.signal_number != 0


@contextmanager
def graceful_interrupt() -> Iterator[StopRequest]:
    """Within the block the first SIGINT or SIGTERM sets the request, the second raises KeyboardInterrupt.

    Outside the main thread, where Python allows no handlers, signals do what they did before.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request.signal_number:
            raise KeyboardInterrupt
        request.signal_number = number

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
