"""Objects of a configuration's nodes."""

import functools
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from torch_linguist.config.checking.targets import locate, targets_of
from torch_linguist.config.plain import one_line
from torch_linguist.errors import ConfigError, LinguistError


def _allowed(node: DictConfig) -> dict[str, Any]:
    """Return the option by which Hydra 1.4 is given the classes that may be built: those of a checked node."""
    if not hasattr(hydra.utils, "execution_whitelist"):
        return {}
    targets = [str(target) for _, target in targets_of(OmegaConf.to_container(node))]
    # Hydra looks at what is built too, if that can be called, under the name of the module that defines its class.
    modules = [name for target in targets for name in (target, locate("", target).__module__)]
    return {"_execution_whitelist_": sorted({*targets, *(f"{name.partition('.')[0]}.*" for name in modules)})}


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
        return hydra.utils.instantiate(node, _convert_="all", **_allowed(node), **extra)
    except Exception as error:  # Hydra 1.3 wraps what a class raises, Hydra 1.4 does not.
        cause = error.__cause__ or error if isinstance(error, InstantiationException) else error
        if isinstance(cause, LinguistError):
            # Hydra 1.4 notes the place in the configuration, which `key` names already.
            cause.__notes__ = []
            raise cause from (error if error is not cause else None)
        reason = one_line(cause).partition(" full_key:")[0]
        raise ConfigError(f"{f'{key}: ' if key else ''}{reason}") from error


def partial(node: DictConfig, **extra: Any) -> "functools.partial[Any]":
    """Return the class that a node names with its arguments bound, to be called with the remaining ones."""
    made = hydra.utils.instantiate(node, _convert_="all", _partial_=True, **_allowed(node), **extra)
    assert isinstance(made, functools.partial)
    return made
