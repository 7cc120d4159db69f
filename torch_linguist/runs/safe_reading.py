"""Safe reading of run folders from others: no link leads outside, no file is a device, none is unreasonably large."""

import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

from torch_linguist.errors import LinguistError

TEXT_LIMIT = 16 * 2**20
"""Largest size in bytes of a `config.yaml` or `summary.json` that is read; usual ones have a few thousand."""

FOREIGN = ("wandb",)
"""Folders that a tracker writes in a run folder: W&B links to its own logs from there."""


def check_contained(folder: Path) -> None:
    """Check that a run folder holds only files and folders, and that no link leads out of it.

    Reading or writing through such a link would affect other files; reading a pipe or a device may never end.

    The folder itself may be a link. What lies in `FOREIGN` folders is not checked, because nothing here reads it.

    Raises:
        LinguistError: a link leads out of the folder or nowhere, or there is a pipe, socket or device.
    """
    root = folder.resolve()
    for parent, folders, files in os.walk(root):
        names = (*folders, *files)
        if Path(parent) == root:
            folders[:] = [name for name in folders if name not in FOREIGN]
        for name in names:
            path = Path(parent) / name
            if path.is_symlink() and not _leads_inside(path, root):
                raise LinguistError(
                    f"{folder}: {path.relative_to(root)} is a link to {path.readlink()}, outside the run folder; "
                    "replace it by a copy if you trust it"
                )
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
                raise LinguistError(
                    f"{folder}: {path.relative_to(root)} is a pipe, socket or device, no file; delete it"
                )


def read_small_text(path: Path) -> str:
    """Return the text of a file in a run folder.

    Raises:
        LinguistError: the file is no regular file, is larger than `TEXT_LIMIT`, cannot be read, or is not UTF-8.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise LinguistError(f"{path}: is no regular file; refusing to read it")
        if (size := status.st_size) > TEXT_LIMIT:
            raise LinguistError(f"{path}: has {size:,} bytes, more than tl-train ever writes; refusing to read it")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LinguistError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise LinguistError(f"{path}: cannot be read ({error.strerror})") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file in a run folder.

    Raises:
        LinguistError: as `read_small_text`, or the file is not JSON.
    """
    text = read_small_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LinguistError(f"{path}: is not readable as JSON ({error})") from error


def check_archive(path: Path, compressed_limit: int = 0) -> None:
    """Check that a zip archive does not unpack to much more than its own size.

    torch stores tensors uncompressed; a compressed archive of some kilobytes could unpack to any size.

    Args:
        path: the file; whatever is no zip archive passes, for its reader to refuse.
        compressed_limit: largest total size of the compressed entries, unpacked, in bytes.

    Raises:
        LinguistError: the entries are larger.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        return
    compressed = sum(one.file_size for one in entries if one.compress_type != zipfile.ZIP_STORED)
    if compressed > compressed_limit or sum(one.file_size for one in entries) > path.stat().st_size + compressed:
        raise LinguistError(f"{path}: unpacks to more than torch-linguist ever writes; refusing to unpack it")


def _leads_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # A broken or circular link.
        return False
