"""Overrides of a command line: read with Hydra's grammar, and checked key by key before Hydra sees them."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from torch_linguist.config.catalog import Choice, unknown_choice
from torch_linguist.config.checking.node_checks import INJECTED
from torch_linguist.config.checking.signatures import (
    INTERPRETED,
    MismatchError,
    convert,
    hints_of,
    parameters_of,
    show,
    takes_text,
    unknown_key,
)
from torch_linguist.config.checking.targets import locate
from torch_linguist.config.plain import exists
from torch_linguist.config.schema import RootConfig
from torch_linguist.errors import ConfigError

Groups = Mapping[str, Mapping[str, Choice]]


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides with Hydra's grammar.

    Raises:
        ConfigError: an override cannot be parsed.
    """
    parser = OverridesParser.create()
    return [_parsed(parser, line) for line in overrides]


def _parsed(parser: OverridesParser, line: str) -> Override:
    """Parse an override. A value outside the grammar that is clearly one text, such as `~/a=b`, is taken as typed."""
    try:
        return parser.parse_override(line)
    except HydraException as error:
        key, equals, value = line.partition("=")
        if not equals:
            raise ConfigError(f"{line}: not an override; write key=value") from error
        if value and not any(sign in value for sign in _STRUCTURE):
            with suppress(HydraException):
                return parser.parse_override(f"{key}={quoted(value)}")
        inner = value.replace('"', '\\"')
        raise ConfigError(
            f"{line}: cannot be read; quote a text with special characters twice: '{key}=\"{inner}\"'"
        ) from error


_STRUCTURE = tuple(",[](){}'\"")
"""Signs of lists, calls, mappings and quotes: a value with one of them may be a mistake rather than a text."""


def quoted(text: str) -> str:
    """Return a text as the value of an override, whatever characters it holds."""
    return QuotedString(text, Quote.double).with_quotes()


def choice_names(override: Override) -> list[str]:
    """Return the choices that the override of a group names: one or several."""
    value = override.value()
    return [show(name) for name in (value if isinstance(value, list) else [value]) if name is not None]


def check_choice(override: Override, groups: Groups) -> None:
    """Check the form of an override and, if it is one of a group, the choices that it names.

    Raises:
        ConfigError: the override lists values for a sweep, sets Hydra's own keys, or names no valid choice.
    """
    line, key = str(override.input_line), override.key_or_group
    if override.is_sweep_override():
        way_out = "quote a text that holds a comma" if "(" not in line else "quote a text that holds brackets"
        raise ConfigError(f"{line}: is a list of values for tl-grid; {way_out}: '{key}=\"…\"'")
    if override.is_hydra_override() or key == "hydra":
        raise ConfigError(f"{line}: Hydra's own settings have no effect here; see output_dir, name and --config-dir")
    if key == "stage":
        raise ConfigError(f"{line}: stages are listed; write stages=[check,fit], or set keys such as lr_find.steps=40")
    if key not in groups:
        return
    if override.is_delete():
        raise ConfigError(f"{line}: a run needs a choice of the group {key}; choose one of {', '.join(groups[key])}")
    if override.value() is None and key != "experiment":
        raise ConfigError(f"{line}: a choice is needed. Choices: {', '.join(groups[key])}")
    for name in choice_names(override):
        if name not in groups[key]:
            raise unknown_choice(key, name, groups[key])


def checked_line(override: Override, base: DictConfig, groups: Groups) -> str:
    """Return the override for Hydra after checking that its key exists.

    Args:
        override: override of a key, not of a group.
        base: configuration of the chosen groups.
        groups: all groups.

    Raises:
        ConfigError: there is no such key, or a root key has a value of the wrong type.
    """
    key = override.key_or_group
    parent, _, leaf = key.rpartition(".")
    target = _target(parent, base)
    line = as_typed(override, _hint(key, base))
    if override.is_add() or override.is_force_add():
        return line
    if exists(base, key):
        _check_root_value(key, override)
        return line
    if target and not override.is_delete() and leaf in parameters_of(target) and leaf not in INJECTED.get(parent, ()):
        # The class has the key, its YAML file omits it.
        return f"++{line}"
    error = unknown_key(key, override.value(), _keys(base))
    elsewhere = _choices_with(key, groups)
    raise ConfigError(f"{error}. It is a key of {', '.join(elsewhere)}") if elsewhere else error


def _target(parent: str, base: DictConfig) -> Any:
    """Return the class or function of a node; None if it has none."""
    node = OmegaConf.select(base, parent, throw_on_missing=False) if parent else None
    return locate(parent, str(node["_target_"])) if isinstance(node, DictConfig) and "_target_" in node else None


def _hint(key: str, base: DictConfig) -> Any:
    parent, _, leaf = key.rpartition(".")
    target = _target(parent, base)
    return hints_of(target).get(leaf) if target else _ROOT_HINTS.get(key)


def is_text_key(key: str, base: DictConfig) -> bool:
    """Return whether a key of the configuration takes a text, so that what looks like a number is one."""
    return takes_text(_hint(key, base))


_ROOT_HINTS = {**inspect.get_annotations(RootConfig), "resume": bool | str}


def as_typed(override: Override, hint: Any) -> str:
    """Return the line of an override; where the key takes a text, a value that looks like a number stays as typed.

    Hydra reads `2024_01_05` as 20240105, `1.10` as 1.1 and `1e3` as 1000.0.
    """
    line = str(override.input_line)
    value = None if override.is_delete() else override.value()
    if not isinstance(value, int | float) or isinstance(value, bool) or not takes_text(hint):
        return line
    key, _, typed = line.partition("=")
    return f"{key}={quoted(typed.strip())}"


def _check_root_value(key: str, override: Override) -> None:
    hint = inspect.get_annotations(RootConfig).get(key)
    if hint is None or override.is_delete():
        return
    try:
        convert(override.value(), hint)
    except MismatchError as error:
        raise ConfigError(f"{key}={show(override.value())}: {error}") from None


def _keys(config: DictConfig) -> list[str]:
    """Return every key, such as `model.hidden_size`, without Hydra's own and those for the instantiation."""
    found: list[str] = []
    pending: list[tuple[str, DictConfig]] = [("", config)]
    while pending:
        prefix, node = pending.pop()
        for name in map(str, node):
            if name in INTERPRETED or name == "hydra":
                continue
            found.append(f"{prefix}{name}")
            child = node._get_node(name)
            if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
                pending.append((f"{prefix}{name}.", child))
    return found


def _choices_with(key: str, groups: Groups) -> list[str]:
    """Return the choices of the key's group that have it, such as `model=transformer` for `model.num_heads`."""
    group, _, rest = key.partition(".")
    if group not in groups or group == "experiment" or not rest:
        return []
    found = []
    for choice in groups[group].values():
        node = OmegaConf.load(choice.path)
        if isinstance(node, DictConfig) and exists(node, rest):
            found.append(f"{group}={choice.name}")
    return found
