"""`sweep.json`: what a sweep's folder belongs to, so that the same sweep goes on there and no other one does."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from torch_linguist.errors import LinguistError
from torch_linguist.runs.files import write_json

NAME = "sweep.json"


def write_record(folder: Path, identity: Mapping[str, Any]) -> None:
    """Notes what the folder belongs to.

    Args:
        folder: of the sweep.
        identity: whatever makes a sweep another one, as JSON has it.
    """
    write_json(folder / NAME, dict(identity))


def read_record(folder: Path) -> dict[str, Any] | None:
    """What a folder belongs to; None where it is no sweep's, or its record is damaged."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def check_record(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuses a folder that belongs to something else.

    Raises:
        LinguistError: it is no sweep's, or that of other overrides; what differs is named.
    """
    found = read_record(folder)
    if found is None:
        raise LinguistError(f"{folder}: is there already and is not the folder of a sweep; choose another name=")
    for key, value in identity.items():
        if found.get(key) != value:
            raise LinguistError(
                f"{folder}: belongs to another sweep ({_difference(key, found.get(key), value)}); "
                "choose another name=, or give the same overrides to go on with it"
            )


def find_unfinished(output_dir: Path, identity: Mapping[str, Any]) -> list[Path]:
    """The folders of the same sweep below a folder that are not marked as complete, the newest first."""
    folders = [path.parent for path in output_dir.glob(f"*/{NAME}")]
    same = []
    for folder in folders:
        found = read_record(folder)
        if found is not None and not found.get("complete") and all(found.get(k) == v for k, v in identity.items()):
            same.append(folder)
    return sorted(same, key=lambda folder: ((folder / NAME).stat().st_mtime_ns, folder.name), reverse=True)


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Holds the sweep's folder for the block.

    Raises:
        LinguistError: another process holds it.
    """
    lock = FileLock(folder / "sweep.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LinguistError(
            f"{folder}: another tl-grid is at work on it; let it end, or choose another name="
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether another process is at work on a sweep's folder."""
    lock = FileLock(folder / "sweep.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _difference(key: str, found: Any, given: Any) -> str:
    if isinstance(found, list) and isinstance(given, list):
        only = [*(f"without {line}" for line in given if line not in found)]
        only += [f"with {line}" for line in found if line not in given]
        return ", ".join(map(str, only[:3])) or f"{key} in another order"
    return f"{key}={found}, not {given}"
