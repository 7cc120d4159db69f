"""Checks of a whole configuration: every node with a `_target_` against the signature of its class."""

import inspect
import math
from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from torch_linguist.config.catalog import GROUPS, SIDE_BY_SIDE
from torch_linguist.config.checking.signatures import INTERPRETED, MismatchError, check_arguments, convert, show
from torch_linguist.config.checking.targets import is_stage, locate
from torch_linguist.config.plain import to_plain
from torch_linguist.config.schema import ExploreConfig, RootConfig, root_schema
from torch_linguist.errors import ConfigError
from torch_linguist.pipeline.stages.order import ORDER, in_order

GROUP_NODES = tuple(group for group in GROUPS if group not in ("stage", *SIDE_BY_SIDE, "experiment"))
SETTINGS_NODES = ("checkpoint", "score", "sample", *ORDER)
"""Root nodes; each names a class, those of `GROUP_NODES` through a choice of their group."""

INJECTED: Mapping[str, frozenset[str]] = {"model": frozenset({"vocab_size"}), "optim": frozenset({"params"})}
"""Arguments of a node's class that the program passes."""

OWN: Mapping[str, Mapping[str, Any]] = {
    "optim": {"decay_all": bool, "decay_embeddings": bool, "fallback_lr": float, "layer_decay": float},
    "model": {"embedding_from": str | None, "freeze_embedding": bool},
}
"""Keys of a node that the program reads and the class never sees, with their types."""

AUTO: Mapping[str, bool] = {"optim.lr": False, "optim.weight_decay": True}
"""Keys that accept `auto` or a number, and whether that number may be 0."""

SETTLED_LATER = frozenset({"trainer.max_minutes"})
"""Further keys that accept `auto`, which `build_plan` replaces before the class sees it."""


def check_types(config: DictConfig) -> DictConfig:
    """Check every node against its class: unknown keys, wrong types, missing values, unknown stages.

    Args:
        config: from `compose_config`, or read from a run folder.

    Returns:
        The configuration with its values converted to the types of the classes, interpolations resolved.

    Raises:
        ConfigError: one line that names the key, the value and the way out.
    """
    checked = {str(name): check_node(str(name), value) for name, value in to_plain(config).items()}
    stages = {name for name, value in checked.items() if is_stage(name, value)}
    root = check_arguments("", checked, root_schema(stages - inspect.get_annotations(RootConfig).keys()))
    if "stages" not in root:
        raise ConfigError("stages: has no value; give one with stages=[fit]")
    for name in root["stages"]:
        if name not in stages and name not in ORDER:
            known = ", ".join(in_order([*ORDER, *sorted(stages)]))
            raise ConfigError(f"stages=[{name}]: no such stage; choose from {known}")
    return OmegaConf.create(root)


def check_exploration(config: DictConfig) -> DictConfig:
    """Check the configuration of `tl-explore` as `check_types` does that of a run."""
    nodes = {str(name): check_node(str(name), value) for name, value in to_plain(config).items()}
    return OmegaConf.create(check_arguments("", nodes, ExploreConfig))


def check_node(key: str, value: Any) -> Any:
    """Check a value, and each node below it, against the classes that they name.

    Returns:
        The value, converted to the types in the signatures of the classes.

    Raises:
        ConfigError: an unknown key, a wrong type or a missing value.
    """
    if isinstance(value, list):
        return [check_node(f"{key}.{index}", item) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        if value == "???":
            raise ConfigError(f"{key}: has no value; give one with {key}=…")
        if key in GROUP_NODES:
            raise ConfigError(f"{key}={show(value)}: names no class; choose one with {key}=CHOICE")
        if key in SETTINGS_NODES:
            raise ConfigError(f"{key}={show(value)}: is a group of settings; set its keys, such as {key}.KEY=VALUE")
        return value
    inner = {str(name): check_node(f"{key}.{name}", item) for name, item in value.items()}
    if "_target_" not in inner:
        if key in GROUP_NODES or key in SETTINGS_NODES:
            raise ConfigError(f"{key}: has no _target_, the name of its class")
        return inner
    own = OWN.get(key, {})
    auto = AUTO.keys() | SETTLED_LATER
    arguments = {
        name: item
        for name, item in inner.items()
        if name not in INTERPRETED and name not in own and not (item == "auto" and f"{key}.{name}" in auto)
    }
    injected: Collection[str] = INJECTED.get(key, frozenset())
    checked = inner | check_arguments(key, arguments, locate(key, str(inner["_target_"])), injected=injected)
    for name in own.keys() & inner.keys():
        try:
            checked[name] = convert(inner[name], own[name])
        except MismatchError as error:
            raise ConfigError(f"{key}.{name}={show(inner[name])}: {error}") from None
    return checked


def check_auto(key: str, value: Any) -> None:
    """Check a learning rate or weight decay: `auto` or a number.

    Raises:
        ConfigError: it is neither, or out of range.
    """
    if value == "auto":
        return
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (value == 0 and not AUTO[key]):
        bound = "a number of at least 0" if AUTO[key] else "a number greater than 0"
        raise ConfigError(f'{key}={show(value)}: must be "auto" or {bound}')
