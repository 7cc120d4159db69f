"""Folders for the temporary files of large models, and progress messages."""

import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from torch_linguist.errors import DataError
from torch_linguist.model.ngram.columns import WORKERS, DiskStore
from torch_linguist.model.ngram.counts import WordArray
from torch_linguist.runs.platform import belongs_to_user

logger = logging.getLogger("torch_linguist.model.ngram")

MEBIBYTE = 1 << 20
MINIMUM_MIB = 16
PREFIX = "torch_linguist-ngrams-"

# Measured bytes per token of a stretch and per row of a part, intermediate results included.
STRETCH_BYTES = 150
ROW_BYTES = 200
# Age in seconds at which the files of a killed process are deleted.
_ABANDONED = 7 * 24 * 3600
_SECONDS_BETWEEN_MESSAGES = 10.0


def counting_bytes(tokens: int, order: int) -> int:
    """Return the approximate memory for counting and estimating in memory, in bytes."""
    return tokens * (48 + 24 * (order - 1))


def temporary_bytes(tokens: int, order: int) -> int:
    """Return the largest possible size of the temporary files in bytes, reached if all n-grams are distinct."""
    return tokens * (order - 1) * 48


def fingerprint(ids: WordArray, *settings: object) -> str:
    """Return a digest of a stream and of settings."""
    found = hashlib.blake2b(repr(settings).encode(), digest_size=12)
    for begin in range(0, len(ids), MEBIBYTE):
        found.update(ids[begin : begin + MEBIBYTE].tobytes())
    return found.hexdigest()


@contextmanager
def workspace(identity: str, memory_limit_mib: int, space: int) -> Iterator[DiskStore]:
    """Provide a store in the system's folder for temporary files.

    The files are deleted when the block ends or raises an exception. If the process is killed or interrupted, they
    remain, and the next process with the same identity continues from them.

    Args:
        identity: digest of everything that the result depends on.
        memory_limit_mib: working memory of both threads together, in MiB.
        space: largest size of the files in bytes, for the message.

    Raises:
        DataError: the files cannot be written.
    """
    place = Path(tempfile.gettempdir())
    _delete_abandoned(place)
    limit = memory_limit_mib * MEBIBYTE
    try:
        folder, lock = _folder(place, identity)
        free = shutil.disk_usage(place).free
        logger.log(
            logging.INFO if free > space else logging.WARNING,
            "working in files to stay within %d MiB of memory: up to %s of temporary files in %s, which has %s free "
            "(TMPDIR sets the folder)",
            memory_limit_mib,
            _gigabytes(space),
            place,
            _gigabytes(free),
        )
        try:
            yield DiskStore(folder, rows=limit // (2 * WORKERS * ROW_BYTES), block=limit // 2 // 8)
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            lock.release()
    except OSError as error:
        raise DataError(
            f"{place}: the temporary files cannot be written ({error.strerror or error}); they take up to "
            f"{_gigabytes(space)}: free some space, or set TMPDIR to another folder"
        ) from error
    shutil.rmtree(folder, ignore_errors=True)


def stretch_tokens(memory_limit_mib: int) -> int:
    """Return the number of tokens that each thread counts at a time."""
    return memory_limit_mib * MEBIBYTE // WORKERS // STRETCH_BYTES


def _folder(place: Path, identity: str) -> tuple[Path, FileLock]:
    """Return the locked folder of an identity; a new folder if another process or user has it."""
    folder = place / f"{PREFIX}{identity}"
    folder.mkdir(mode=0o700, exist_ok=True)
    trusted = not folder.is_symlink() and belongs_to_user(folder)
    for candidate in (folder, None):
        if candidate is None or trusted:
            found = candidate or Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
            lock = FileLock(found / "lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            if (found / DiskStore.MANIFEST).is_file():
                logger.info("continuing in %s", found)
            return found, lock
    raise AssertionError("a new folder has no other owner")


def _delete_abandoned(place: Path) -> None:
    """Delete folders that no process has used for a week."""
    for folder in place.glob(f"{PREFIX}*"):
        try:
            newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if time.time() - newest > _ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # Another user's folder, or deleted meanwhile.
            continue


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"


class Progress:
    """Messages about a long step, at most one every ten seconds.

    Args:
        what: name of the step.
        total: number of units.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self._begin = self._said = time.monotonic()

    def advance(self, units: int) -> None:
        """Count finished units."""
        self.done += units
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN_MESSAGES:
            self._said = now
            left = (now - self._begin) / self.done * (self.total - self.done)
            logger.info("%s: %.0f%%, about %.0f s left", self.what, 100 * self.done / self.total, left)
