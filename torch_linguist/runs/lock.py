"""Lock of a run folder: only one process at a time works in it."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from torch_linguist.errors import LinguistError
from torch_linguist.runs.files import remove_abandoned, write_json

LOCK = ".lock"
OWNER = ".owner.json"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock a run folder for the duration of the block.

    The kernel releases the lock when its process ends, so a killed run never blocks a later one.

    Raises:
        LinguistError: another process, named in the message, has the lock, or the folder cannot be written.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LinguistError(
            f"{folder}: is in use by {_owner(folder)}; wait for it, stop it, or start another run"
        ) from error
    except OSError as error:
        raise LinguistError(
            f"{folder}: cannot be written ({error.strerror}); change its permissions, or copy the run elsewhere"
        ) from error
    try:
        remove_abandoned(folder)
        write_json(folder / OWNER, {"pid": os.getpid(), "host": socket.gethostname()})
        yield
        (folder / OWNER).unlink(missing_ok=True)
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Return whether a process works in a run folder."""
    if not (folder / LOCK).is_file():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _owner(folder: Path) -> str:
    """Return a description of the process that has the lock."""
    try:
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return f"process {int(owner['pid'])} on {str(owner['host'])[:60]}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        # It has the lock, but has not written its name yet.
        return "another process"
