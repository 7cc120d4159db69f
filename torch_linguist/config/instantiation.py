"""Objects of a configuration's nodes."""

import functools
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from torch_linguist.config.plain import one_line
from torch_linguist.errors import ConfigError, LinguistError


def instantiate(node: DictConfig, key: str = "", **extra: Any) -> Any:
    """Build the object that a node describes.

    Args:
        node: node with a `_target_`.
        key: key of the node, for the error message.
        extra: further arguments of the class.

    Raises:
        LinguistError: the class refuses its arguments.
    """
    try:
        return hydra.utils.instantiate(node, _convert_="all", **extra)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, LinguistError):
            raise cause from error
        raise ConfigError(f"{f'{key}: ' if key else ''}{one_line(cause)}") from error


def partial(node: DictConfig, **extra: Any) -> "functools.partial[Any]":
    """Return the class that a node names with its arguments bound, to be called with the remaining ones."""
    made = hydra.utils.instantiate(node, _convert_="all", _partial_=True, **extra)
    assert isinstance(made, functools.partial)
    return made
