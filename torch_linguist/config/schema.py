"""Schemas of whole configurations: their root keys, and one node for each stage."""

import dataclasses
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Optional

from hydra.core.config_store import ConfigStore

from torch_linguist.pipeline.stages.order import DEFAULT_STAGES


@dataclass
class RootConfig:
    """Root keys of the configuration; each `Any` is a node whose schema is the class that it names.

    Attributes:
        name: name of the run folder; null generates one.
        seed: random seed for initialization, data order and dropout.
        stages: names of the stages to run.
        resume: null, true or auto (the newest run), or a run folder to continue.
        output_dir: folder for run folders.
        init_from: existing model to begin with: a run folder, or `hf:FOLDER`; null for random weights.
        init_vocabulary: `keep` the tokenizer of that model, or train a `new` one.
    """

    name: Optional[str] = None  # noqa: UP045 - OmegaConf 2.3 does not know `str | None`
    seed: int = 1
    stages: list[str] = field(default_factory=lambda: list(DEFAULT_STAGES))
    resume: Any = None
    output_dir: str = "outputs"
    init_from: Optional[str] = None  # noqa: UP045
    init_vocabulary: str = "keep"
    data: Any = None
    tokenizer: Any = None
    model: Any = None
    optim: Any = None
    schedule: Any = None
    trainer: Any = None
    callbacks: Any = None
    logger: Any = None
    checkpoint: Any = None
    score: Any = None
    sample: Any = None


@dataclass
class ExploreConfig:
    """Root keys of the configuration of `tl-explore`.

    Attributes:
        name: name of the new folder; null generates one.
        seed: random seed of samples and permutations.
        output_dir: parent of the new folder.
    """

    data: Any
    tokenizer: Any
    explore: Any
    name: str | None = None
    seed: int = 1
    output_dir: str = "outputs"


def root_schema(stages: Iterable[str], **further: list[Any]) -> type:
    """Return `RootConfig` with a node for each stage and further fields with the given defaults."""
    fields: list[Any] = [(name, Any, None) for name in stages]
    fields += [(name, list[Any], field(default_factory=value.copy)) for name, value in further.items()]
    return dataclasses.make_dataclass("RootConfig", fields, bases=(RootConfig,))


def store_schema(stages: Collection[str]) -> None:
    """Make the schema available to Hydra, with the file `stage/NAME.yaml` of each stage at the key NAME."""
    defaults = ["_self_", *({f"stage@{name}": name} for name in stages)]
    store = ConfigStore.instance()
    store.repo.pop("schema.yaml", None)  # Hydra 1.4 warns if a name is stored again.
    store.store(name="schema", node=root_schema(stages, defaults=defaults), provider="torch_linguist")
