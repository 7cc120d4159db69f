"""From overrides on a command line to a checked configuration and to the objects that it names.

Composition is Hydra's; what a person sees of it is one line that names the key, the value and the nearest valid ones.
The schema of the root is `RootConfig`; the schema of each node with a `_target_` is the signature of that class, so
that a new component needs a class and a YAML file and no registry. torch is imported by `check_types` and later.
"""

import functools
import importlib.metadata
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from torch_linguist.config.catalog import Choice, config_root, find_groups, unknown_choice
from torch_linguist.config.nodes import AUTO, INJECTED, check_auto, check_node, is_stage, locate
from torch_linguist.config.schema import RootConfig, root_schema, store_schema
from torch_linguist.config.signatures import (
    INTERPRETED,
    MismatchError,
    check_arguments,
    convert,
    parameters_of,
    show,
    unknown_key,
)
from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.pipeline.stages.order import ORDER, in_order


@dataclass(frozen=True)
class Composition:
    """A composed configuration.

    Attributes:
        config: the values; a node with a `_target_` names the class that it is for.
        choices: group to the choice that was taken, such as `model` to `lstm`.
        overrides: what the command line said.
    """

    config: DictConfig
    choices: dict[str, str]
    overrides: tuple[str, ...]


def compose_config(
    overrides: Sequence[str], config_dirs: Sequence[Path] = (), config_name: str = "train"
) -> Composition:
    """Composes the configuration and checks every key and choice that the overrides name.

    Args:
        overrides: in Hydra's syntax: `model=gru`, `optim.lr=3e-3`, `stages=[fit]`.
        config_dirs: folders laid out like `configs/` whose groups are added.
        config_name: the root file.

    Returns:
        The configuration, not yet checked against the classes that it names (`check_types` does that).

    Raises:
        ConfigError: an override cannot be read, or names a key or a choice that does not exist.
    """
    directories = [directory.expanduser().resolve() for directory in config_dirs]
    groups = find_groups(directories)
    parsed = parse_overrides(overrides)
    for override in parsed:
        _check_override(override, groups)
    search_path = ",".join(quoted(f"file://{directory}") for directory in directories)
    choosing = [f"hydra.searchpath=[{search_path}]"] if directories else []
    for override in parsed:
        if override.key_or_group == "callbacks":
            choosing += [f"+callbacks@callbacks.{name}={name}" for name in _names(override) if name != "none"]
        elif override.key_or_group in groups:
            choosing.append(str(override.input_line))
    setting = [override for override in parsed if override.key_or_group not in groups]
    store_schema(list(groups["stage"]))
    with _initialized():
        base = _compose(config_name, choosing)
        lines = [_checked_line(override, base, groups) for override in setting]
        config = _compose(config_name, choosing + lines) if lines else base
    chosen = {str(group): choice for group, choice in config.hydra.runtime.choices.items()}
    with open_dict(config):
        del config["hydra"]
    choices = {group: str(choice) for group, choice in chosen.items() if group in groups and choice is not None}
    for override in parsed:
        if override.key_or_group == "callbacks":
            choices["callbacks"] = ",".join(_names(override))
    for key in AUTO:
        if exists(config, key):
            check_auto(key, OmegaConf.select(config, key))
    return Composition(config, choices, tuple(overrides))


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Reads overrides with Hydra's own grammar.

    Raises:
        ConfigError: one of them cannot be read.
    """
    parser = OverridesParser.create()
    parsed = []
    for line in overrides:
        try:
            parsed.append(parser.parse_override(line))
        except HydraException as error:
            key, equals, value = line.partition("=")
            if not equals:
                raise ConfigError(f"{line}: not an override; write key=value") from error
            quoted = value.replace('"', '\\"')
            raise ConfigError(
                f"{line}: cannot be read; a text with special characters is quoted twice: '{key}=\"{quoted}\"'"
            ) from error
    return parsed


def quoted(text: str) -> str:
    """A text as an override's value, whatever characters it holds."""
    return QuotedString(text, Quote.double).with_quotes()


def check_types(config: DictConfig) -> DictConfig:
    """Checks every node against the class that it names: unknown keys, wrong types, values that are missing.

    Args:
        config: from `compose_config`, or read from a run folder.

    Returns:
        The same configuration with its values converted to the classes' types, interpolations resolved.

    Raises:
        ConfigError: one line that names the key, the value and the way out.
    """
    checked = {str(name): check_node(str(name), value) for name, value in to_plain(config).items()}
    stages = {name for name, value in checked.items() if is_stage(name, value)}
    root = check_arguments("", checked, root_schema(stages - inspect.get_annotations(RootConfig).keys()))
    for name in root["stages"]:
        if name not in stages and name not in ORDER:
            known = in_order([*ORDER, *sorted(stages)])
            raise ConfigError(f"stages=[{name}]: no such stage; choose from {', '.join(known)}")
    return OmegaConf.create(root)


def instantiate(node: DictConfig, key: str = "", **extra: Any) -> Any:
    """The object that a node describes.

    Args:
        node: with a `_target_`.
        key: the node's place in the configuration, for the error message.
        extra: further arguments of the class.

    Raises:
        LinguistError: the class refuses its arguments.
    """
    try:
        return hydra.utils.instantiate(node, _convert_="all", **extra)
    except InstantiationException as error:
        raise _refusal(key, error.__cause__ or error) from error


def partial(node: DictConfig, **extra: Any) -> "functools.partial[Any]":
    """The class that a node names, its arguments bound, still to be called with the rest.

    Args:
        node: with a `_target_`.
        extra: further arguments to bind.
    """
    made = hydra.utils.instantiate(node, _convert_="all", _partial_=True, **extra)
    assert isinstance(made, functools.partial)
    return made


def to_plain(config: DictConfig, key: str | None = None) -> Any:
    """The configuration, or what a key of it holds, in plain Python, interpolations resolved.

    Raises:
        ConfigError: an interpolation leads nowhere.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_one_line(error)) from error
    for name in key.split(".") if key else ():
        plain = plain.get(name) if isinstance(plain, dict) else None
    return plain


def to_yaml(config: DictConfig, choices: Mapping[str, str] | None = None) -> str:
    """The configuration as YAML, interpolations resolved.

    Args:
        config: the values.
        choices: group to choice, which a run folder's `config.yaml` keeps beside the values.
    """
    plain = to_plain(config)
    return OmegaConf.to_yaml(OmegaConf.create({"choices": dict(choices), **plain} if choices else plain))


def _initialized() -> Any:
    """Hydra's search path set to our files; `version_base` exists up to Hydra 1.4 and is deprecated there."""
    version = tuple(int(part) for part in importlib.metadata.version("hydra-core").split(".")[:2])
    options = {"version_base": "1.3"} if version < (1, 4) else {}
    return hydra.initialize_config_dir(str(config_root()), job_name="torch_linguist", **options)


def _compose(config_name: str, overrides: list[str]) -> DictConfig:
    try:
        return hydra.compose(config_name, overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(_one_line(error)) from error


def _one_line(error: BaseException) -> str:
    """The innermost reason of a Hydra or OmegaConf error, on one line, with the file and the key that it concerns."""
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


def _check_override(override: Override, groups: Mapping[str, Mapping[str, Choice]]) -> None:
    line, key = str(override.input_line), override.key_or_group
    if override.is_sweep_override():
        way_out = "quote a text that holds a comma" if "(" not in line else "quote a text that holds brackets"
        raise ConfigError(f"{line}: is a list of values for tl-grid; {way_out}: '{key}=\"…\"'")
    if override.is_hydra_override() or key == "hydra":
        raise ConfigError(f"{line}: Hydra's own settings have no effect here; see output_dir, name and --config-dir")
    if key == "stage":
        raise ConfigError(f"{line}: stages are listed; write stages=[check,fit], or set keys such as lr_find.steps=40")
    if key not in groups or override.is_delete():
        return
    value = override.value()
    if value is None and key != "experiment":
        raise ConfigError(f"{line}: a choice is needed. Choices: {', '.join(groups[key])}")
    for name in _names(override):
        if name not in groups[key]:
            raise unknown_choice(key, name, groups[key])


def _names(override: Override) -> list[str]:
    """The choices that an override of a group names, one or a list."""
    value = override.value()
    return [show(name) for name in (value if isinstance(value, list) else [value]) if name is not None]


def _checked_line(override: Override, base: DictConfig, groups: Mapping[str, Mapping[str, Choice]]) -> str:
    """The override as Hydra shall see it, once its key is known to exist."""
    line, key = str(override.input_line), override.key_or_group
    if override.is_add() or override.is_force_add():
        return line
    if exists(base, key):
        _check_root_value(key, override)
        return line
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(base, parent, throw_on_missing=False) if parent else None
    if isinstance(node, DictConfig) and "_target_" in node and not override.is_delete():
        parameters = parameters_of(locate(parent, str(node["_target_"])))
        if leaf in parameters and leaf not in INJECTED.get(parent, ()):
            # The class knows it, its YAML file left it out.
            return f"++{line}"
    error = unknown_key(key, override.value(), _keys(base))
    elsewhere = _choices_with(key, groups)
    raise ConfigError(f"{error}. It is a key of {', '.join(elsewhere)}") if elsewhere else error


def _check_root_value(key: str, override: Override) -> None:
    hint = inspect.get_annotations(RootConfig).get(key)
    if hint is None or override.is_delete():
        return
    try:
        convert(override.value(), hint)
    except MismatchError as error:
        raise ConfigError(f"{key}={show(override.value())}: {error}") from None


def exists(config: DictConfig, key: str) -> bool:
    """Whether there is such a key, its value missing (`???`) or null perhaps."""
    node: Any = config
    for name in key.split("."):
        if not isinstance(node, DictConfig) or node._is_none() or name not in node.keys():  # noqa: SIM118
            return False
        node = node._get_node(name)
    return True


def _keys(config: DictConfig) -> list[str]:
    """Every key below the root, such as `model.hidden_size`; `hydra` and what speaks to the instantiation left out."""
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


def _choices_with(key: str, groups: Mapping[str, Mapping[str, Choice]]) -> list[str]:
    """The choices of the key's group that do have it, such as `model=transformer` for `model.num_heads`."""
    group, _, rest = key.partition(".")
    if group not in groups or group == "experiment" or not rest:
        return []
    found = []
    for choice in groups[group].values():
        node = OmegaConf.load(choice.path)
        if isinstance(node, DictConfig) and exists(node, rest):
            found.append(f"{group}={choice.name}")
    return found


def _refusal(key: str, cause: BaseException) -> LinguistError:
    """What a class said against its arguments, as an error of ours."""
    if isinstance(cause, LinguistError):
        return cause
    prefix = f"{key}: " if key else ""
    return ConfigError(f"{prefix}{_one_line(cause)}")


__all__ = [
    "Composition",
    "check_types",
    "compose_config",
    "exists",
    "instantiate",
    "parse_overrides",
    "partial",
    "quoted",
    "to_plain",
    "to_yaml",
]
