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
