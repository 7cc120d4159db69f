"""Signals that end a run."""

import os
import signal

import pytest

from torch_linguist.trainer.interrupt import Interrupted, graceful_interrupt


def test_the_first_signal_asks_and_the_second_ends(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with graceful_interrupt() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGINT)
        assert caught.value.signal_number == signal.SIGINT
    assert signal.getsignal(signal.SIGTERM) is before
    assert "once more stops at once" in capfd.readouterr().err
    with graceful_interrupt() as stop, pytest.raises(Interrupted), stop.ending_at_once():
        os.kill(os.getpid(), signal.SIGTERM)
