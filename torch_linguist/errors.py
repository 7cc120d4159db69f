"""Errors that the user can fix: each message names the field, the value and the way out."""

import errno
from collections.abc import Collection
from pathlib import Path

EXHAUSTED = (
    "can't allocate memory",
    "out of memory",
    "can't start new thread",
    "Too many open files",
    "Cannot allocate",
)
"""What torch and Python write in errors when the machine has run out of something."""


LONGEST_LINE = 800
"""Largest number of characters that `describe` returns for an error's message."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""Numbers of errors with a way out: free some space, or use another folder."""


class LinguistError(ValueError):
    """Base class of the errors that the user can fix; the message is one line.

    Example:
        >>> try:
        ...     Sampling(top_p=2.0)
        ... except LinguistError as error:
        ...     print(error)
        top_p=2.0: must be greater than 0 and at most 1 (1 keeps all)
    """


class ConfigError(LinguistError):
    """A configuration key, value or choice is wrong; the commands end with exit code 2."""


class DataError(LinguistError):
    """A corpus, a tokenizer or a token cache cannot be read or is too small."""


class TrainingError(LinguistError):
    """Training cannot continue: the loss is not finite, a limit is missing, a checkpoint does not fit."""


class WriteError(LinguistError, OSError):
    """A file cannot be written, usually because the disk is full.

    Args:
        path: the file.
        error: error of the operating system.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        # A write through an open file does not know its name.
        self._message = (
            f"{path}: cannot be written ({error.strerror or error}); free some space, or choose another folder"
        )
        super().__init__(self._message)
        self.errno, self.strerror = error.errno, error.strerror

    def __str__(self) -> str:
        return self._message


def is_exhausted(error: BaseException) -> bool:
    """Return whether the machine has run out of memory, file handles or threads, which says nothing about a file."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno in (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in EXHAUSTED)


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def require_positive(node: str, settings: object, *names: str) -> None:
    """Require attributes of a settings object to be None or greater than 0; `node` is its configuration key."""
    for name in names:
        value = getattr(settings, name)
        require(value is None or value > 0, f"{node}.{name}={value}: must be greater than 0")


def require_one_of(key: str, value: str, choices: Collection[str]) -> None:
    """Require the value of a configuration key to be one of the choices."""
    require(value in choices, f"{key}={value}: must be one of {', '.join(choices)}")


def describe(error: Exception) -> str:
    """Return an error as one line: ours unchanged, others with their type and how to see the traceback."""
    if isinstance(error, LinguistError):
        return _shortened(" ".join(str(error).split("\n")))
    if is_exhausted(error):
        reason = " ".join((getattr(error, "strerror", None) or str(error) or "out of memory").split())
        return f"the machine ran out of resources ({_shortened(reason)}); close other programs, or choose smaller sizes"
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        way_out = "; free some space, or write to another folder" if error.errno in DISK_ERRORS else ""
        return _shortened(f"{named}{error.strerror}{way_out}")
    message = " ".join(str(error).split())
    line = f"{type(error).__name__}{': ' if message else ''}{message}"
    return f"{_shortened(line)}; run again with --debug for the traceback"


def _shortened(line: str) -> str:
    # A damaged file may be quoted in the middle: what is wrong stands at the beginning, the way out at the end.
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} … {line[-LONGEST_LINE // 2 :]}"
