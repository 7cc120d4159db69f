"""Everything a run needs, as plain objects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch.optim import Optimizer

from torch_linguist.data import Corpus, TokenizerTrainer
from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel
from torch_linguist.optim import Schedule
from torch_linguist.trainer import (
    STAGES,
    CheckpointSettings,
    CheckSettings,
    GridSettings,
    LRFindSettings,
    OverfitSettings,
    SampleSettings,
    ScoreSettings,
    TrainerSettings,
)
from torch_linguist.trainer.callbacks.recorded_progress import RecordedProgress


@dataclass(frozen=True)
class Plan:
    """Everything a run needs, as plain objects.

    Attributes:
        folder: of the run; exists and is its own.
        corpus: the documents.
        tokenizer_trainer: makes the tokenizer from the training split.
        make_model: called with `vocab_size`.
        make_optimizer: called with parameter groups, `lr` and `weight_decay`.
        schedule: of the learning rate.
        trainer: settings of the loop.
        stages: which of `STAGES` to run.
        lr: learning rate; None lets `lr_find` choose.
        weight_decay: None lets `grid` choose.
        decay_all: whether biases, norms and embeddings decay too.
        seed: of weights, data order and dropout.
        names: of the choices (model, data, tokenizer), for the summary.
        config_text: what `config.yaml` holds.
        resume: whether the folder's own training goes on.
        changes: what `config_text` has other than before, in words, where a run goes on with other values.
        recorded_progress: of the run that this one repeats, if a clock limited it.
    """

    folder: Path
    corpus: Corpus
    tokenizer_trainer: TokenizerTrainer
    make_model: Callable[..., LanguageModel]
    make_optimizer: Callable[..., Optimizer]
    schedule: Schedule
    trainer: TrainerSettings
    stages: Sequence[str] = STAGES
    lr: float | None = None
    weight_decay: float | None = None
    decay_all: bool = False
    seed: int = 1
    names: Mapping[str, str] = field(default_factory=dict)
    config_text: str = ""
    resume: bool = False
    changes: Sequence[str] = ()
    recorded_progress: RecordedProgress | None = None
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    check: CheckSettings = field(default_factory=CheckSettings)
    overfit: OverfitSettings = field(default_factory=OverfitSettings)
    lr_find: LRFindSettings = field(default_factory=LRFindSettings)
    grid: GridSettings = field(default_factory=GridSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    sample: SampleSettings = field(default_factory=SampleSettings)

    def __post_init__(self) -> None:
        for stage in self.stages:
            if stage not in STAGES:
                raise ConfigError(f"stages={stage}: no such stage; choose from {', '.join(STAGES)}")
        if "export" in self.stages and "fit" not in self.stages and not self.resume:
            raise ConfigError("stages=[export]: needs fit; for a run that is there already use `tl-export RUN --jit`")
        if self.lr is not None and not self.lr > 0:
            raise ConfigError(f'optim.lr={self.lr}: must be "auto" or a number greater than 0')
        if self.weight_decay is not None and not self.weight_decay >= 0:
            raise ConfigError(f'optim.weight_decay={self.weight_decay}: must be "auto" or a number of at least 0')
