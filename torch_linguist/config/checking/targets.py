"""Classes that a configuration names by `_target_`: found by name, and restricted where a stranger wrote it."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch_linguist.config.checking.signatures import show
from torch_linguist.config.renamed import MOVED_CLASSES
from torch_linguist.errors import ConfigError

ALLOWED_TARGETS = ("torch_linguist.", "torch.optim.")
"""Prefixes of the modules whose classes the configuration of a run folder may name."""

BASES: Mapping[str, str] = {
    "data": "torch_linguist.data.Corpus",
    "model": "torch_linguist.model.LanguageModel",
    "optim": "torch.optim.Optimizer",
    "schedule": "torch_linguist.optim.Schedule",
    "trainer": "torch_linguist.trainer.TrainerSettings",
    "checkpoint": "torch_linguist.trainer.CheckpointSettings",
    "score": "torch_linguist.evaluation.score_settings.ScoreSettings",
    "sample": "torch_linguist.generation.sample_settings.SampleSettings",
}
"""Base class of each node's class. A root node that is not listed here is a stage."""

STAGE = "torch_linguist.pipeline.stages.Stage"
CALLBACK = "torch_linguist.trainer.Callback"
LOGGER = "torch_linguist.report.loggers.Logger"


def locate(key: str, target: str) -> Callable[..., Any]:
    """Return the class or function of a `_target_`.

    Args:
        key: key of the node, for the error message.
        target: full name, such as `torch_linguist.model.LSTM`.

    Raises:
        ConfigError: there is no such class.
    """
    module_name, _, attribute = target.rpartition(".")
    if target in MOVED_CLASSES:
        raise ConfigError(f"{key}._target_={target}: is now {MOVED_CLASSES[target]}; write that")
    if not module_name:
        raise ConfigError(f"{key}._target_={target}: not a class; write package.module.Class")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}._target_={target}: cannot be imported ({error})") from error
    if not callable(found):
        raise ConfigError(f"{key}._target_={target}: not a class; write package.module.Class")
    return found  # type: ignore[no-any-return]


def is_stage(key: str, value: Any) -> bool:
    """Return whether the value of a root key is the node of a stage."""
    if key in BASES or key == "tokenizer" or not isinstance(value, Mapping) or "_target_" not in value:
        return False
    return _descends(locate(key, str(value["_target_"])), STAGE)


def check_targets(config: Mapping[str, Any], allowed: Sequence[str] = ALLOWED_TARGETS) -> None:
    """Refuse a configuration that names anything but a class of the allowed packages that belongs in its place.

    The configuration of a run folder is data, perhaps a stranger's. That a class is ours is not enough: some of our
    classes write to the file that they are given. For the same reason a callback must come from another package, one
    that the command line itself names.

    Raises:
        ConfigError: a `_target_` is not a class, is defined elsewhere, or does not belong in its place.
    """
    for key, target in targets_of(config):
        callback = key == "callbacks" or key.startswith("callbacks.")
        prefixes = tuple(prefix for prefix in allowed if not (callback and prefix in ALLOWED_TARGETS))
        refusal = ConfigError(
            f"{key}._target_={show(target)}: "
            + (
                f"only classes of {', '.join(prefixes)} are allowed here"
                if prefixes
                else "not allowed here; name its group on the command line, as in --config-dir DIR callbacks=NAME"
            )
        )
        if not isinstance(target, str) or not target.startswith(prefixes):
            raise refusal
        found = locate(key, target)
        # The name alone proves nothing: whatever one of our modules imports is reachable under our name.
        if not inspect.isclass(found) or not f"{found.__module__}.".startswith(prefixes):
            raise refusal
        if not _belongs(key, found, callback):
            raise ConfigError(f"{key}._target_={target}: does not belong here; a class for {key} is needed")
    for key, node in config.items():
        if isinstance(node, Mapping) and (strange := {"_args_", "_partial_"} & node.keys()):
            raise ConfigError(f"{key}.{min(strange)}: is not allowed in the configuration of a run; leave it out")


def _belongs(key: str, found: type, callback: bool) -> bool:
    """Return whether a class may stand at a key. A tokenizer trainer is a protocol, known by its methods."""
    if key == "tokenizer":
        return all(callable(getattr(found, name, None)) for name in ("train", "fingerprint"))
    if callback:
        return _descends(found, CALLBACK)
    if key.startswith("logger."):
        return _descends(found, LOGGER)
    return "." not in key and _descends(found, BASES.get(key, STAGE))


def _descends(found: Any, base: str) -> bool:
    module, _, name = base.rpartition(".")
    return inspect.isclass(found) and issubclass(found, getattr(importlib.import_module(module), name))


def targets_of(value: Any, key: str = "") -> list[tuple[str, Any]]:
    """Return every `_target_` below a value, with the key of its node.

    Args:
        value: plain Python.
        key: key of the value; empty for the root.
    """
    found: list[tuple[str, Any]] = []
    children: Any = ()
    if isinstance(value, Mapping):
        children = value.items()
        if "_target_" in value:
            found.append((key, value["_target_"]))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        children = enumerate(value)
    for name, child in children:
        found += targets_of(child, f"{key}.{name}" if key else str(name))
    return found
