"""Safe reading of run folders from others: no link leads outside, and no file is unreasonably large."""

import os
from pathlib import Path

from torch_linguist.errors import LinguistError

TEXT_LIMIT = 16 * 2**20
"""Largest size in bytes of a `config.yaml` or `summary.json` that is read; usual ones have a few thousand."""


def check_contained(folder: Path) -> None:
    """Check that no link leads out of a run folder, where reading or writing would affect other files.

    The folder itself may be a link.

    Args:
        folder: run folder.

    Raises:
        LinguistError: a link, named in the message, leads out of the folder or nowhere.
    """
    root = folder.resolve()
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent) / name
            if path.is_symlink() and not _leads_inside(path, root):
                raise LinguistError(
                    f"{folder}: {path.relative_to(root)} is a link to {path.readlink()}, outside the run folder; "
                    "replace it by a copy if you trust it"
                )


def read_small_text(path: Path) -> str:
    """Return the text of a file in a run folder.

    Raises:
        LinguistError: the file is larger than `TEXT_LIMIT`, cannot be read, or is not UTF-8.
    """
    try:
        if (size := path.stat().st_size) > TEXT_LIMIT:
            raise LinguistError(f"{path}: has {size:,} bytes, more than tl-train ever writes; refusing to read it")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LinguistError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise LinguistError(f"{path}: cannot be read ({error.strerror})") from error


def _leads_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # A broken or circular link.
        return False


__all__ = ["TEXT_LIMIT", "check_contained", "read_small_text"]
