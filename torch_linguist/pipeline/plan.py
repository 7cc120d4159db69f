"""Everything that a run needs, as plain objects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch.optim import Optimizer

from torch_linguist.checkpoint.init_from import StartingPoint
from torch_linguist.data import Corpus, TokenizerTrainer
from torch_linguist.errors import require
from torch_linguist.evaluation.score_settings import ScoreSettings
from torch_linguist.generation.sample_settings import SampleSettings
from torch_linguist.model import LanguageModel
from torch_linguist.optim import Schedule
from torch_linguist.pipeline.stages import Stage, arrange, default_stages
from torch_linguist.report.loggers import Logger, TensorBoardLogger
from torch_linguist.trainer import Callback, CheckpointSettings, TrainerSettings
from torch_linguist.trainer.callback import Fact
from torch_linguist.trainer.callbacks.recorded_progress import RecordedProgress
from torch_linguist.trainer.initialization import WordVectors


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs, as plain objects.

    Attributes:
        folder: run folder; exists and belongs to this run alone.
        corpus: source of the documents.
        tokenizer_trainer: builds the tokenizer from the training split.
        make_model: called with `vocab_size`.
        make_optimizer: called with parameter groups, `lr` and `weight_decay`.
        schedule: learning-rate schedule.
        trainer: settings of the training loop.
        stages: stages to run, with their settings, in any order.
        callbacks: further callbacks, called with everything that happens in the run.
        loggers: loggers of the training.
        parameters: values of the configuration by key, for the loggers.
        lr: peak learning rate; None lets `lr_find` choose.
        fallback_lr: peak learning rate if `lr` is None and no stage chooses one.
        weight_decay: weight decay of the weight matrices; None lets `grid` choose.
        decay_all: whether weight decay also applies to biases, norms and embeddings.
        layer_decay: factor of the learning rate from each layer to the one below it.
        decay_embeddings: whether weight decay also applies to embeddings.
        word_vectors: file of word vectors that the embedding starts from; None for none.
        seed: random seed for initialization, data order and dropout.
        names: names of the choices (model, data, tokenizer), for the summary.
        config_text: content of `config.yaml`.
        resume: whether the run continues in its folder.
        changes: differences between `config_text` and the configuration that the resumed run began with.
        recorded_progress: progress of the time-limited run to repeat; None for a run of its own.
        start: existing model that the training begins with; None for random weights.
        checkpoint: when checkpoints are written.
        score: how streams are scored.
        sample: sample continuations during training.
    """

    folder: Path
    corpus: Corpus
    tokenizer_trainer: TokenizerTrainer
    make_model: Callable[..., LanguageModel]
    make_optimizer: Callable[..., Optimizer]
    schedule: Schedule
    trainer: TrainerSettings
    stages: Sequence[Stage] = field(default_factory=default_stages)
    callbacks: Sequence[Callback] = ()
    loggers: Sequence[Logger] = field(default_factory=lambda: (TensorBoardLogger(),))
    parameters: Mapping[str, Fact] = field(default_factory=dict)
    lr: float | None = None
    fallback_lr: float = 3e-3
    weight_decay: float | None = None
    decay_all: bool = False
    layer_decay: float = 1.0
    decay_embeddings: bool = False
    word_vectors: WordVectors | None = None
    seed: int = 1
    names: Mapping[str, str] = field(default_factory=dict)
    config_text: str = ""
    resume: bool = False
    changes: Sequence[str] = ()
    recorded_progress: RecordedProgress | None = None
    start: StartingPoint | None = None
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    sample: SampleSettings = field(default_factory=SampleSettings)

    def __post_init__(self) -> None:
        arrange(self.stages, self.resume)
        require(0 <= self.seed < 2**63, f"seed={self.seed}: must be between 0 and 2**63 - 1")
        lr, decay = self.lr, self.weight_decay
        require(lr is None or lr > 0, f'optim.lr={lr}: must be "auto" or a number greater than 0')
        require(decay is None or decay >= 0, f'optim.weight_decay={decay}: must be "auto" or a number of at least 0')
