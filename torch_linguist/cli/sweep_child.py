"""`tl-train` as a run of a sweep: it ends, and saves what it has, when the sweep is killed."""

import ctypes
import os
import signal
import sys

from torch_linguist.cli.train import main

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Lets the system send SIGTERM when the parent dies, where the system can (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent == 1 or os.getppid() != parent:
        # It died before it could be asked; process 1 takes over whom a parent leaves behind.
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main())
