"""From a checked configuration to the objects that the pipeline takes; the only place where the two meet."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from torch_linguist.config.composition import check_types, instantiate, partial, to_yaml
from torch_linguist.config.nodes import OWN
from torch_linguist.errors import ConfigError

if TYPE_CHECKING:
    from torch_linguist.pipeline import Plan
    from torch_linguist.pipeline.stages import Stage
    from torch_linguist.trainer import Callback

PASSED_APART = frozenset({"lr", "weight_decay", *OWN["optim"]})
"""Keys of `optim` that the plan holds itself."""

DEFAULT_MINUTES = 1.5
"""How long a training lasts that nobody has given a limit."""


def make_plan(config: DictConfig, choices: Mapping[str, str]) -> "Plan":
    """Builds everything that a run needs; nothing is read but what a corpus looks at when it is made.

    Args:
        config: composed, or read from a run folder.
        choices: group to choice, for the names in the summary.

    Returns:
        The plan, for a folder that is still to be made.

    Raises:
        LinguistError: a key, a type, or a value that its class refuses.
    """
    from torch_linguist.pipeline import Plan

    config = check_types(config)
    optim = config.optim
    make_optimizer = partial(_without(optim, PASSED_APART))
    lr, weight_decay = _number(optim, "lr"), _number(optim, "weight_decay")
    _try_optimizer(make_optimizer, lr or 1e-3, weight_decay or 0.0)
    names = ("checkpoint", "score", "sample", "schedule")
    settings = {name: instantiate(config[name], name) for name in names if config.get(name) is not None}
    settings["trainer"] = instantiate(_with_limit(config.trainer), "trainer")
    if (fallback := OmegaConf.select(config, "lr_find.default")) is not None:
        settings["fallback_lr"] = fallback
    return Plan(
        folder=Path(),
        corpus=instantiate(config.data, "data"),
        tokenizer_trainer=instantiate(config.tokenizer, "tokenizer"),
        make_model=partial(config.model),
        make_optimizer=make_optimizer,
        stages=make_stages(config),
        callbacks=make_callbacks(config.get("callbacks")),
        lr=lr,
        weight_decay=weight_decay,
        decay_all=bool(optim.get("decay_all", False)),
        seed=config.seed,
        names={group: choices[group] for group in ("model", "data", "tokenizer") if group in choices},
        config_text=to_yaml(config, choices),
        **settings,
    )


def make_stages(config: DictConfig) -> "list[Stage]":
    """Build the stages that the configuration lists.

    Raises:
        ConfigError: a node is not a stage, or is the node of a stage with another name.
    """
    from torch_linguist.pipeline.stages import Stage, built_in_stages

    built_in = {stage.name: stage for stage in built_in_stages()}
    stages = []
    for name in config.stages:
        stage = instantiate(config[name], name) if config.get(name) is not None else built_in[name]()
        if not isinstance(stage, Stage):
            raise ConfigError(f"{name}._target_={config[name]._target_}: is not a Stage")
        if stage.name != name:
            raise ConfigError(
                f"{name}._target_={config[name]._target_}: is the stage {stage.name}; name its file {stage.name}.yaml"
            )
        stages.append(stage)
    return stages


def make_callbacks(node: DictConfig | None) -> "list[Callback]":
    """Build the callbacks of a run: a single node, or a node for each name.

    Raises:
        ConfigError: a class is not a Callback.
    """
    from torch_linguist.trainer import Callback

    if node is None:
        return []
    nodes = {"callbacks": node} if "_target_" in node else {f"callbacks.{name}": node[name] for name in map(str, node)}
    callbacks = []
    for key, one in nodes.items():
        callbacks.append(instantiate(one, key))
        if not isinstance(callbacks[-1], Callback):
            raise ConfigError(f"{key}._target_={one._target_}: is not a Callback")
    return callbacks


def _with_limit(trainer: DictConfig) -> DictConfig:
    """The settings of the loop with `max_minutes=auto` settled: a default only where nothing else limits a training."""
    if trainer.get("max_minutes") != "auto":
        return trainer
    limited = any(trainer.get(name) is not None for name in ("max_epochs", "max_steps", "max_tokens"))
    return DictConfig({**trainer, "max_minutes": None if limited else DEFAULT_MINUTES})


def _number(node: DictConfig, name: str) -> float | None:
    value = node.get(name, "auto")
    return None if value == "auto" else float(value)


def _without(node: DictConfig, names: frozenset[str]) -> DictConfig:
    return DictConfig({str(name): value for name, value in node.items() if name not in names})


def _try_optimizer(make_optimizer: Any, lr: float, weight_decay: float) -> None:
    """Lets the optimizer refuse its arguments now rather than after the corpus was read."""
    import torch

    weight = torch.nn.Parameter(torch.zeros(1, 1))
    try:
        make_optimizer([weight], lr=lr, weight_decay=weight_decay)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"optim: {error}") from error


__all__ = ["make_plan"]
