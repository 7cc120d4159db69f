"""`tl-train` as a run of a sweep: it saves its state and ends when the sweep is killed."""

import ctypes
import os
import signal
import sys

from torch_linguist.cli.train import main

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Ask the system to send SIGTERM when the parent dies, where it supports that (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent == 1 or os.getppid() != parent:
        # The parent died before the request; process 1 adopts orphans.
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main())
