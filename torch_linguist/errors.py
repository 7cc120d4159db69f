"""Errors that the user can fix: each message names the field, the value and the way out."""

from collections.abc import Collection


class LinguistError(ValueError):
    """Base class of the errors that the user can fix; the message is one line."""


class ConfigError(LinguistError):
    """A configuration key, value or choice is wrong; the commands end with exit code 2."""


class DataError(LinguistError):
    """A corpus, a tokenizer or a token cache cannot be read or is too small."""


class TrainingError(LinguistError):
    """Training cannot continue: the loss is not finite, a limit is missing, a checkpoint does not fit."""


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
