"""The nodes of a configuration, in plain Python: dictionaries whose `_target_` names the class that they are for."""

import importlib
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch_linguist.config.catalog import GROUPS
from torch_linguist.config.signatures import INTERPRETED, MismatchError, check_arguments, convert, show
from torch_linguist.errors import ConfigError
from torch_linguist.pipeline.stages.order import ORDER

ALLOWED_TARGETS = ("torch_linguist.", "torch.optim.")
"""Where the classes may come from that a run folder's configuration names."""

GROUP_NODES = tuple(group for group in GROUPS if group not in ("stage", "callbacks", "experiment"))
SETTINGS_NODES = ("checkpoint", "score", "sample", *ORDER)
"""Nodes of the root: each names a class, those of `GROUP_NODES` through a choice of their group."""

PLACES: Mapping[str, tuple[str, str]] = {
    "data": ("torch_linguist.data", "Corpus"),
    "model": ("torch_linguist.model", "LanguageModel"),
    "optim": ("torch.optim", "Optimizer"),
    "schedule": ("torch_linguist.optim", "Schedule"),
    "trainer": ("torch_linguist.trainer", "TrainerSettings"),
    "checkpoint": ("torch_linguist.trainer", "CheckpointSettings"),
    "score": ("torch_linguist.evaluation.score_settings", "ScoreSettings"),
    "sample": ("torch_linguist.generation.sample_settings", "SampleSettings"),
}
"""The nodes of a run's configuration, and what their classes must descend from. Any other node is a stage."""

STAGE = ("torch_linguist.pipeline.stages", "Stage")
CALLBACK = ("torch_linguist.trainer", "Callback")

INJECTED: Mapping[str, frozenset[str]] = {"model": frozenset({"vocab_size"}), "optim": frozenset({"params"})}
"""Arguments of a node's class that the program itself passes."""

OWN: Mapping[str, Mapping[str, Any]] = {"optim": {"decay_all": bool, "fallback_lr": float}}
"""Keys of a node that the program reads itself, and their types; the class never sees them."""

AUTO: Mapping[str, bool] = {"optim.lr": False, "optim.weight_decay": True}
"""Keys that take `auto` or a number, and whether that number may be 0."""

SETTLED_LATER = frozenset({"trainer.max_minutes"})
"""Further keys that take `auto`; `cli.plan` settles them before the class sees them."""


def locate(key: str, target: str) -> Callable[..., Any]:
    """The class or function of a `_target_`.

    Args:
        key: the node's place in the configuration, for the error message.
        target: such as `torch_linguist.model.LSTM`.

    Raises:
        ConfigError: there is no such class.
    """
    module_name, _, attribute = target.rpartition(".")
    if not module_name:
        raise ConfigError(f"{key}._target_={target}: not a class; write package.module.Class")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}._target_={target}: cannot be imported ({error})") from error
    if not callable(found):
        raise ConfigError(f"{key}._target_={target}: not a class; write package.module.Class")
    return found  # type: ignore[no-any-return]


def check_node(key: str, value: Any) -> Any:
    """Checks a value, and each node below it, against the classes that they name.

    Args:
        key: the value's place in the configuration, such as `model`.
        value: plain Python.

    Returns:
        The value, converted to the types of the classes' signatures.

    Raises:
        ConfigError: an unknown key, a wrong type or a value that is missing.
    """
    if isinstance(value, list):
        return [check_node(f"{key}.{index}", item) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        if value == "???":
            raise ConfigError(f"{key}: has no value; give one with {key}=…")
        if key in GROUP_NODES:
            raise ConfigError(f"{key}={show(value)}: names no class; take one with {key}=CHOICE")
        if key in SETTINGS_NODES:
            raise ConfigError(f"{key}={show(value)}: is a group of settings; set its keys, such as {key}.KEY=VALUE")
        return value
    inner = {str(name): check_node(f"{key}.{name}", item) for name, item in value.items()}
    if "_target_" not in inner:
        if key in GROUP_NODES or key in SETTINGS_NODES:
            raise ConfigError(f"{key}: has no _target_, the class that it is for")
        return inner
    target = locate(key, str(inner["_target_"]))
    own = OWN.get(key, {})
    arguments = {
        name: item
        for name, item in inner.items()
        if name not in INTERPRETED
        and name not in own
        and not (item == "auto" and f"{key}.{name}" in AUTO.keys() | SETTLED_LATER)
    }
    injected: Collection[str] = INJECTED.get(key, frozenset())
    checked = inner | check_arguments(key, arguments, target, injected=injected)
    for name in own.keys() & inner.keys():
        try:
            checked[name] = convert(inner[name], own[name])
        except MismatchError as error:
            raise ConfigError(f"{key}.{name}={show(inner[name])}: {error}") from None
    return checked


def check_auto(key: str, value: Any) -> None:
    """Checks a learning rate or weight decay: `auto` or a number.

    Raises:
        ConfigError: it is neither, or out of range.
    """
    if value == "auto":
        return
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (value == 0 and not AUTO[key]):
        bound = "a number of at least 0" if AUTO[key] else "a number greater than 0"
        raise ConfigError(f'{key}={show(value)}: must be "auto" or {bound}')


def check_targets(config: Mapping[str, Any], allowed: Sequence[str] = ALLOWED_TARGETS) -> None:
    """Refuses a configuration that names anything but a class of the allowed packages that belongs in its place.

    For configurations that come from a run folder, which is data and may be a stranger's. That a class is ours is not
    enough: some of them write the file that they are given.

    Args:
        config: plain Python.
        allowed: prefixes of the allowed modules.

    Raises:
        ConfigError: a `_target_` is not a class, is defined elsewhere or has no business there.
    """
    for key, target in targets_of(config):
        refusal = ConfigError(f"{key}._target_={show(target)}: only classes of {', '.join(allowed)} are allowed here")
        if not isinstance(target, str) or not target.startswith(tuple(allowed)):
            raise refusal
        found = locate(key, target)
        # The name alone proves nothing: what a module of ours has imported is reachable under our name too.
        if not inspect.isclass(found) or not f"{found.__module__}.".startswith(tuple(allowed)):
            raise refusal
        if not _belongs(key, found):
            raise ConfigError(f"{key}._target_={target}: is not a class for {key}; only such are allowed here")
    for key, node in config.items():
        if isinstance(node, Mapping) and (strange := {"_args_", "_partial_"} & node.keys()):
            raise ConfigError(f"{key}.{min(strange)}: is not allowed in the configuration of a run; leave it out")


def _belongs(key: str, found: type) -> bool:
    """Whether a class may stand at a place; a tokenizer's trainer is known by what it does, not by its descent."""
    if key == "tokenizer":
        return all(callable(getattr(found, name, None)) for name in ("train", "fingerprint"))
    if key == "callbacks" or key.startswith("callbacks."):
        return _descends(found, CALLBACK)
    return "." not in key and _descends(found, PLACES.get(key, STAGE))


def _descends(found: Any, base: tuple[str, str]) -> bool:
    module, name = base
    return inspect.isclass(found) and issubclass(found, getattr(importlib.import_module(module), name))


def is_stage(key: str, value: Any) -> bool:
    """Return whether the value of a root key is the node of a stage."""
    named = isinstance(value, Mapping) and "_target_" in value
    return named and key not in PLACES and key != "tokenizer" and _descends(locate(key, str(value["_target_"])), STAGE)


def targets_of(value: Any, key: str = "") -> list[tuple[str, Any]]:
    """Every `_target_` below a value, with the key of its node.

    Args:
        value: plain Python.
        key: the value's place in the configuration; empty for the root.
    """
    found: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        children = [(str(name), child) for name, child in value.items()]
        if "_target_" in value:
            found.append((key, value["_target_"]))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        children = [(str(index), child) for index, child in enumerate(value)]
    else:
        children = []
    for name, child in children:
        found += targets_of(child, f"{key}.{name}" if key else name)
    return found


__all__ = [
    "ALLOWED_TARGETS",
    "AUTO",
    "INJECTED",
    "OWN",
    "check_auto",
    "check_node",
    "check_targets",
    "locate",
    "targets_of",
]
