"""Configurations as plain Python and as YAML, and Hydra's errors as one line."""

import re
from collections.abc import Mapping
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from torch_linguist.errors import ConfigError


def to_plain(config: DictConfig, key: str | None = None) -> Any:
    """Return a configuration as plain Python, interpolations resolved.

    Args:
        config: configuration.
        key: return the value of this key alone; None if there is no such key.

    Raises:
        ConfigError: an interpolation names a key that does not exist.
    """
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error)) from error
    for name in key.split(".") if key else ():
        plain = plain.get(name) if isinstance(plain, dict) else None
    return plain


def to_yaml(config: DictConfig, choices: Mapping[str, str] | None = None) -> str:
    """Return a configuration as YAML, interpolations resolved.

    Args:
        config: configuration.
        choices: choice of each group; the `config.yaml` of a run folder stores them beside the values.
    """
    plain = to_plain(config)
    return OmegaConf.to_yaml(OmegaConf.create({"choices": dict(choices), **plain} if choices else plain))


def exists(config: DictConfig, key: str) -> bool:
    """Return whether a key exists; its value may be missing (`???`) or null."""
    node: Any = config
    for name in key.split("."):
        if not isinstance(node, DictConfig) or node._is_none() or name not in node.keys():  # noqa: SIM118
            return False
        node = node._get_node(name)
    return True


def one_line(error: BaseException) -> str:
    """Return the innermost reason of a Hydra or OmegaConf error on one line, with its file and key."""
    file = re.match(r"In '([^']*)'", str(error))
    inner = error.__cause__ or error.__context__
    while isinstance(inner, HydraException | OmegaConfBaseException):
        # A cause that names no key says less than the error that does.
        error = error if getattr(error, "full_key", None) and not getattr(inner, "full_key", None) else inner
        inner = inner.__cause__ or inner.__context__
    lines = str(getattr(error, "msg", None) or error).splitlines()
    text = " ".join(line.strip() for line in lines if not line.strip().startswith(("full_key:", "object_type=")))
    key = getattr(error, "full_key", None)
    return f"{f'{file[1]}.yaml: ' if file else ''}{f'{key}: ' if key else ''}{text}"
