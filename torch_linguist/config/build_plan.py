"""From a checked configuration to a plan: the only place where configurations and the pipeline meet."""

import functools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from torch_linguist.config.checking.node_checks import OWN, check_types
from torch_linguist.config.instantiation import instantiate, partial
from torch_linguist.config.plain import to_plain, to_yaml
from torch_linguist.errors import ConfigError

if TYPE_CHECKING:
    from torch_linguist.checkpoint.init_from import StartingPoint
    from torch_linguist.pipeline import Plan
    from torch_linguist.pipeline.stages import Stage
    from torch_linguist.trainer import Callback
    from torch_linguist.trainer.initialization import WordVectors

DEFAULT_MINUTES = 1.5
"""Length of a training for which no limit is set."""


def make_plan(config: DictConfig, choices: Mapping[str, str], begun: Path | None = None) -> "Plan":
    """Build everything that a run needs. Nothing is read yet, except what a corpus checks when it is built.

    Args:
        config: composed configuration, or one read from a run folder.
        choices: choice of each group, for the names in the summary.
        begun: folder of the run that continues or is repeated, which keeps the weights of `init_from`.

    Returns:
        The plan, without its folder.

    Raises:
        LinguistError: a key or a type is wrong, or a class refuses its arguments.
    """
    from torch_linguist.pipeline import Plan
    from torch_linguist.report.loggers import Logger
    from torch_linguist.trainer import Callback

    config = check_types(config)
    optim = config.optim
    make_optimizer = partial(_without(optim, {"lr", "weight_decay", *OWN["optim"]}))
    lr, weight_decay = (None if optim.get(name, "auto") == "auto" else optim[name] for name in ("lr", "weight_decay"))
    _try_optimizer(make_optimizer, lr or 1e-3, weight_decay or 0.0)
    names = ("checkpoint", "score", "sample", "schedule")
    settings = {name: instantiate(config[name], name) for name in names if config.get(name) is not None}
    settings["trainer"] = instantiate(_with_limit(config.trainer), "trainer")
    if config.get("logger") is not None:  # A configuration from before there was a choice has the default.
        settings["loggers"] = _make_callbacks(config, "logger", Logger)
    if (fallback := OmegaConf.select(config, "lr_find.default")) is not None:
        settings["fallback_lr"] = fallback
    make_model = partial(_without(config.model, OWN["model"]))
    if config.get("init_from") is not None:
        settings["start"] = _start(config, make_model, begun)
        make_model = functools.partial(make_model, **settings["start"].arguments)
    chosen = {group: choices[group] for group in ("model", "data", "tokenizer") if group in choices}
    if (start := settings.get("start")) is not None and start.tokenizer is not None:
        chosen["tokenizer"] = start.tokenizer.kind
    return Plan(
        folder=Path(),
        corpus=instantiate(config.data, "data"),
        tokenizer_trainer=instantiate(config.tokenizer, "tokenizer"),
        make_model=make_model,
        make_optimizer=make_optimizer,
        stages=_make_stages(config),
        callbacks=_make_callbacks(config, "callbacks", Callback),
        parameters=_parameters(config),
        lr=lr,
        weight_decay=weight_decay,
        decay_all=bool(optim.get("decay_all", False)),
        layer_decay=float(optim.get("layer_decay", 1.0)),
        decay_embeddings=bool(optim.get("decay_embeddings", False)),
        word_vectors=_word_vectors(config.model),
        seed=config.seed,
        names=chosen,
        config_text=to_yaml(config, choices),
        **settings,
    )


def _without(node: DictConfig, names: Collection[str]) -> DictConfig:
    return DictConfig({name: value for name, value in node.items() if name not in names})


def _word_vectors(model: DictConfig) -> "WordVectors | None":
    from torch_linguist.trainer.initialization import WordVectors

    if model.get("embedding_from") is None:
        return None
    return WordVectors(Path(model.embedding_from), frozen=bool(model.get("freeze_embedding", False)))


def _start(config: DictConfig, make_model: "functools.partial[Any]", begun: Path | None) -> "StartingPoint":
    from torch_linguist.checkpoint.init_from import saved_start, starting_point

    if config.model.get("embedding_from") is not None:
        raise ConfigError(
            f"model.embedding_from={config.model.embedding_from}: init_from={config.init_from} sets the embedding; "
            "leave one of them out"
        )
    named = config.init_from, config.init_vocabulary
    start = (saved_start(begun, *named) if begun else None) or starting_point(*named)
    start.check_family(make_model.func)
    return start


def _make_stages(config: DictConfig) -> "list[Stage]":
    """Build the stages that the configuration lists; a built-in one without a node has its default settings."""
    from torch_linguist.pipeline.stages import built_in_stages

    built_in = {stage.name: stage for stage in built_in_stages()}
    stages = []
    for name in config.stages:
        node = config.get(name)
        stage = built_in[name]() if node is None else instantiate(node, name)
        if stage.name != name:
            raise ConfigError(
                f"{name}._target_={node._target_}: is named {stage.name}; call its file {stage.name}.yaml"
            )
        stages.append(stage)
    return stages


def _make_callbacks(config: DictConfig, group: str, kind: "type[Callback]") -> list[Any]:
    """Build the callbacks of a group: those of its node for each name, or that of the node itself."""
    nodes = config.get(group) or DictConfig({})
    places = {group: nodes} if "_target_" in nodes else {f"{group}.{name}": nodes[name] for name in map(str, nodes)}
    callbacks = []
    for key, place in places.items():
        callback = instantiate(place, key)
        if not isinstance(callback, kind):
            raise ConfigError(f"{key}._target_={place._target_}: is not a {kind.__name__}")
        callbacks.append(callback)
    return callbacks


def _parameters(config: DictConfig) -> dict[str, str | int | float]:
    """Return the values of the configuration by key, those of the loggers themselves left out."""
    found: dict[str, str | int | float] = {}
    nodes: list[tuple[str, Any]] = [(str(key), value) for key, value in to_plain(config).items() if key != "logger"]
    for key, value in nodes:
        if isinstance(value, dict):
            nodes += [(f"{key}.{name}", inner) for name, inner in value.items() if name != "_target_"]
        elif value is not None:
            found[key] = value if isinstance(value, str | int | float) else str(value)
    return found


def _with_limit(trainer: DictConfig) -> DictConfig:
    """Replace `max_minutes=auto`: a default if nothing else limits the training, else no limit."""
    if trainer.get("max_minutes") != "auto":
        return trainer
    limited = any(trainer.get(name) is not None for name in ("max_epochs", "max_steps", "max_tokens"))
    return DictConfig({**trainer, "max_minutes": None if limited else DEFAULT_MINUTES})


def _try_optimizer(make_optimizer: Any, lr: float, weight_decay: float) -> None:
    """Let the optimizer refuse its arguments now rather than after the corpus has been read."""
    import torch

    weight = torch.nn.Parameter(torch.zeros(1, 1))
    try:
        make_optimizer([weight], lr=lr, weight_decay=weight_decay)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"optim: {error}") from error
