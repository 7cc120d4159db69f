"""Composition of a configuration from the overrides of a command line.

Hydra composes; the user sees errors of one line that name the key, the value and the nearest valid ones. The schema of
the root is `RootConfig`; the schema of a node with a `_target_` is the signature of that class, so that a new component
needs a class and a YAML file and no registry. torch is imported by `check_types`, not here.
"""

import importlib.metadata
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from torch_linguist.config.catalog import EMPTY, SIDE_BY_SIDE, config_root, find_groups
from torch_linguist.config.checking.node_checks import AUTO, check_auto
from torch_linguist.config.overrides import check_choice, checked_line, choice_names, parse_overrides, quoted
from torch_linguist.config.plain import exists, one_line, to_plain
from torch_linguist.config.schema import store_schema
from torch_linguist.errors import ConfigError


@dataclass(frozen=True)
class Composition:
    """A composed configuration.

    Attributes:
        config: the values; a node with a `_target_` names its class.
        choices: choice of each group, such as `lstm` for `model`.
        overrides: overrides of the command line.
    """

    config: DictConfig
    choices: dict[str, str]
    overrides: tuple[str, ...]


def compose_config(
    overrides: Sequence[str], config_dirs: Sequence[Path] = (), config_name: str = "train"
) -> Composition:
    """Compose a configuration and check every key and choice that the overrides name.

    Args:
        overrides: overrides in Hydra's syntax: `model=gru`, `optim.lr=3e-3`, `stages=[fit]`.
        config_dirs: folders laid out like `configs/` whose groups are added.
        config_name: name of the root file.

    Returns:
        The configuration, not yet checked against its classes; see `check_types`.

    Raises:
        ConfigError: an override cannot be read, or names a key or a choice that does not exist.
    """
    directories = [directory.expanduser().resolve() for directory in config_dirs]
    groups = find_groups(directories)
    parsed = parse_overrides(overrides)
    for override in parsed:
        check_choice(override, groups)
    search_path = ",".join(quoted(f"file://{directory}") for directory in directories)
    choosing = [f"hydra.searchpath=[{search_path}]"] if directories else []
    side_by_side = dict(SIDE_BY_SIDE) if config_name == "train" else {}
    for override in parsed:
        if override.key_or_group in side_by_side:
            side_by_side[override.key_or_group] = tuple(choice_names(override))
        elif override.key_or_group in groups:
            choosing.append(str(override.input_line))
    for group, names in side_by_side.items():
        choosing += [f"+{group}@{group}.{name}={name}" for name in names if name not in EMPTY]
    setting = [override for override in parsed if override.key_or_group not in groups]
    store_schema(list(groups["stage"]))
    with _initialized():
        base = _compose(config_name, choosing)
        lines = [checked_line(override, base, groups) for override in setting]
        config = _compose(config_name, choosing + lines) if lines else base
    chosen = {str(group): choice for group, choice in config.hydra.runtime.choices.items()}
    with open_dict(config):
        del config["hydra"]
    choices = {group: str(choice) for group, choice in chosen.items() if group in groups and choice is not None}
    choices |= {group: ",".join(names) for group, names in side_by_side.items()}
    plain = to_plain(config)
    if config_name == "train" and "output_dir" not in plain:
        raise ConfigError("~output_dir: cannot be removed; set output_dir=FOLDER")
    for key in ("output_dir", "resume"):
        if isinstance(value := plain.get(key), str):
            config[key] = os.path.expanduser(value)  # noqa: PTH111 - a run called `.` or `a/` keeps its name
    for key in AUTO:
        if exists(config, key):
            check_auto(key, OmegaConf.select(config, key))
    return Composition(config, choices, tuple(overrides))


def _initialized() -> Any:
    """Set Hydra's search path to our files. `version_base` is deprecated from Hydra 1.4 on."""
    version = tuple(int(part) for part in importlib.metadata.version("hydra-core").split(".")[:2])
    options = {"version_base": "1.3"} if version < (1, 4) else {}
    return hydra.initialize_config_dir(str(config_root()), job_name="torch_linguist", **options)


def _compose(config_name: str, overrides: list[str]) -> DictConfig:
    try:
        return hydra.compose(config_name, overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(one_line(error)) from error
