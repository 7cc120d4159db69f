"""Files that are written as a whole or not at all."""

import glob
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch_linguist.errors import LinguistError, WriteError
from torch_linguist.runs.platform import process_exists, replace_file, sync

HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
"""Tells the machines apart that share a folder: a process number means nothing on another one."""

OWN_SUFFIX = re.compile(rf"(\d+)-{HOST}[0-9a-f]{{8}}$")
"""End of the name of a temporary file or folder of this machine, with the number of its process."""


def temporary_suffix() -> str:
    """Return the end of the name of a temporary file of this process."""
    return f"{os.getpid()}-{HOST}{secrets.token_hex(4)}"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces `path` at the end of the block, or is deleted if the block raises.

    Content and name are on disk when the block ends: after a power cut there is the old file or the new one.

    Raises:
        WriteError: the file cannot be written; the error names it.
    """
    with writing(path):
        remove_abandoned(path.parent, path.name)
        # `tempfile` would ignore the umask: only the owner could read the run.
        temporary = path.with_name(f".{path.name}.{temporary_suffix()}")
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            sync(temporary)
            replace_file(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `path` at the end of the block, or is deleted if the block raises.

    Raises:
        WriteError: the folder cannot be written; the error names it.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned_folders(path.parent, f".{path.name}.")
        temporary = path.with_name(f".{path.name}.{temporary_suffix()}")
        earlier = path.with_name(f".{path.name}.{temporary_suffix()}")
        temporary.mkdir()
        try:
            yield temporary
            if path.exists():
                replace_file(path, earlier)
            replace_file(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(earlier, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn every OSError of the block into one that names the file.

    Raises:
        WriteError: the file cannot be written.
    """
    try:
        yield
    except LinguistError:
        raise
    except OSError as error:
        raise WriteError(path, error) from error


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Delete temporary files that killed processes of this machine left in a folder.

    Args:
        folder: the folder; without a name, its subfolders are searched too.
        name: name of the file that they were to become; None for any.
    """
    for path in folder.rglob(".*.*-*") if name is None else folder.glob(f".{glob.escape(name)}.*-*"):
        if path.is_file() and _is_abandoned(path):
            # It is no reason to stop if another process deletes it first, or if it cannot be deleted.
            with suppress(OSError):
                path.unlink()


def remove_abandoned_folders(folder: Path, prefix: str) -> None:
    """Delete temporary folders of killed processes of this machine whose names start with a prefix."""
    for path in folder.glob(f"{glob.escape(prefix)}*-*"):
        if path.is_dir() and _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Yield a folder in the system's temporary folder, deleted at the end of the block.

    Folders with the same prefix that killed processes left are deleted first.
    """
    parent = Path(tempfile.gettempdir())
    remove_abandoned_folders(parent, prefix)
    folder = parent / f"{prefix}{temporary_suffix()}"
    with writing(folder):
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(path: Path) -> bool:
    """Return whether the process that named a temporary file no longer exists."""
    found = OWN_SUFFIX.search(path.name)
    return found is not None and not path.is_symlink() and not process_exists(int(found[1]))


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file as a whole or not at all; NaN and infinity become null."""
    write_text(path, json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Return plain types with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
