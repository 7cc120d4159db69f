"""One process at a time works in a run folder."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from torch_linguist.errors import LinguistError
from torch_linguist.runs.files import write_json

LOCK = ".lock"
OWNER = ".owner.json"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Holds a run folder for the block.

    The kernel gives the lock back when its process ends, however it ends: what a killed run leaves bars nobody.

    Args:
        folder: of the run.

    Raises:
        LinguistError: another process works in it (the message names it), or nothing can be written there.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LinguistError(
            f"{folder}: {_owner(folder)} is at work in this run; wait for it, stop it, or start another run"
        ) from error
    except OSError as error:
        raise LinguistError(
            f"{folder}: cannot be written ({error.strerror}); free it, or copy the run elsewhere"
        ) from error
    try:
        write_json(folder / OWNER, {"pid": os.getpid(), "host": socket.gethostname()})
        yield
        (folder / OWNER).unlink(missing_ok=True)
    finally:
        lock.release()


def _owner(folder: Path) -> str:
    """Who holds the lock, in words."""
    try:
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return f"process {int(owner['pid'])} on {str(owner['host'])[:60]}"
    except (OSError, ValueError, KeyError, TypeError):
        # It has only just taken the lock.
        return "another process"
