"""The folder of a run: its name is unique, its files are written whole."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from torch_linguist.errors import ConfigError, LinguistError


def create_run_folder(output_dir: Path, name: str | None, default: str) -> Path:
    """Makes a folder that no other run has, also when two ask for it in the same instant.

    Args:
        output_dir: the folder of all runs; made if it is not there.
        name: the run's name; None for `default` with the date and time.
        default: what a run without a name is called.

    Returns:
        The new folder. Where the name is taken, `-2`, `-3`, ... is added to it.

    Raises:
        LinguistError: the folder cannot be made.
        ConfigError: the name is not one of a folder.
    """
    if name is not None and (not name.strip() or name == ".." or Path(name).name != name):
        raise ConfigError(f"name={name!r}: must be the name of a folder, without slashes")
    stem = name or f"{default}-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            folder = output_dir / (stem if number == 1 else f"{stem}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise LinguistError(
            f"output_dir={output_dir}: cannot be written ({error.strerror}); choose another by output_dir=FOLDER"
        ) from error
    raise LinguistError(f"name={name}: 9,999 runs have this name already; choose another")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and goes when it does not.

    Both its content and its name are on the disk when this returns: a power cut leaves the old file or the new one.

    Args:
        path: of the file; an earlier one is replaced only by a whole new one.
    """
    # Not by `tempfile`, whose files are their owner's alone: a run folder is read by whom its owner's umask lets.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    # Windows opens no folders; there the names are as lasting as its file system makes them.
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes a file as a whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON, whole or not at all; numbers that JSON does not know become null."""
    write_text(path, json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Plain types with None in place of the numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
