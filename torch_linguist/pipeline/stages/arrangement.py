"""From the stages that a user lists to the stages that a run executes."""

import importlib
from collections.abc import Sequence

from torch_linguist.errors import ConfigError
from torch_linguist.pipeline.stages.initialize import Initialize
from torch_linguist.pipeline.stages.order import DEFAULT_STAGES, ORDER, in_order
from torch_linguist.pipeline.stages.stage import Stage


def built_in_stages() -> list[type[Stage]]:
    """Return the classes of the built-in stages in their order. Each module is named like its stage."""
    modules = [importlib.import_module(f"{__package__}.{name}").__name__ for name in ORDER]
    return sorted(
        (stage for stage in Stage.__subclasses__() if stage.__module__ in modules),
        key=lambda stage: modules.index(stage.__module__),
    )


def default_stages() -> list[Stage]:
    """Return the stages that run by default, with their default settings."""
    return [stage() for stage in built_in_stages() if stage.name in DEFAULT_STAGES]


IMPLIED = {Initialize.name: Initialize}
"""Stages that are added where another stage requires them."""


def arrange(stages: Sequence[Stage], resume: bool = False) -> list[Stage]:
    """Sort stages into the order in which they run and add the implied ones.

    Args:
        stages: the listed stages.
        resume: whether an earlier part of the run may have done the required stages.

    Raises:
        ConfigError: a stage requires one that does not run before it.
    """
    listed = {stage.name: stage for stage in stages}
    arranged: dict[str, Stage] = {}
    for name in in_order(list(listed)):
        for required in listed[name].requires:
            if required in IMPLIED:
                arranged.setdefault(required, listed.get(required) or IMPLIED[required]())
            elif required not in arranged and not resume:
                raise ConfigError(f"stages=[{name}]: needs {required} before it; add {required} to stages")
        arranged.setdefault(name, listed[name])
    return list(arranged.values())
