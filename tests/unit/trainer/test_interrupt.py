"""Signals that end a run."""

import signal
import time

import pytest

from torch_linguist.distributed import processes
from torch_linguist.trainer.interrupt import Interrupted, StopRequest, graceful_interrupt


def test_the_first_signal_asks_and_the_second_ends(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with graceful_interrupt() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop()
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGINT)
        assert caught.value.signal_number == signal.SIGINT
    assert signal.getsignal(signal.SIGTERM) is before
    assert "once more stops at once" in capfd.readouterr().err
    with graceful_interrupt() as stop, pytest.raises(Interrupted), stop.ending_at_once():
        signal.raise_signal(signal.SIGTERM)


def test_several_processes_exchange_their_requests_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 100 updates a second, the other process has its signal after 150 of them."""
    now, exchanges = 0.0, 0

    def summed(received: float, seconds: float) -> list[float]:
        nonlocal exchanges
        exchanges += 1
        return [received + (now > 1.5), 2 * seconds]

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    monkeypatch.setattr(processes, "all_reduce_sum", summed)
    stop = StopRequest()
    stopped_at = []
    for update in range(1, 1001):
        now += 0.01
        stop.agree()
        if stop():
            stopped_at.append(update)
    assert 150 < stopped_at[0] <= 250
    assert exchanges <= 13
    assert not stop.received
