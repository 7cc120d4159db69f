"""A run folder is data, perhaps a stranger's: nothing in it may lead out of it, nor be larger than its kind can be."""

import os
from pathlib import Path

from torch_linguist.errors import LinguistError

TEXT_LIMIT = 16 * 2**20
"""Bytes of the largest `config.yaml` or `summary.json` that is read; ours have some thousands."""


def check_contained(folder: Path) -> None:
    """Refuses a run folder from which a link leads outside: what is read or written there would not be the run's.

    The folder itself may be reached by a link.

    Args:
        folder: of the run.

    Raises:
        LinguistError: a link leads out of the folder or nowhere; the message names it.
    """
    root = folder.resolve()
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent) / name
            if path.is_symlink() and not _leads_inside(path, root):
                raise LinguistError(
                    f"{folder}: {path.relative_to(root)} is a link to {path.readlink()}, outside the run folder; "
                    "put a copy in its place if you trust it"
                )


def read_small_text(path: Path) -> str:
    """The text of a file of a run folder.

    Raises:
        LinguistError: it is larger than `TEXT_LIMIT`, cannot be read, or is not UTF-8.
    """
    try:
        if (size := path.stat().st_size) > TEXT_LIMIT:
            raise LinguistError(f"{path}: has {size:,} bytes, more than any that tl-train writes; it is not read")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LinguistError(f"{path}: is no text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise LinguistError(f"{path}: cannot be read ({error.strerror})") from error


def _leads_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # A link to nothing, or a circle of links.
        return False


__all__ = ["TEXT_LIMIT", "check_contained", "read_small_text"]
