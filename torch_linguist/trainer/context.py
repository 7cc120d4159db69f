"""Training context: what every stage that trains shares, on one device."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch.optim import Optimizer

from torch_linguist.data import (
    Batches,
    ContiguousBatches,
    NoisyBatches,
    TokenizedCorpus,
    TokenStream,
    VariableBatches,
    WindowBatches,
)
from torch_linguist.distributed.data_parallel import DataParallel, Nll, WindowNll, check_batch_size
from torch_linguist.distributed.processes import world_size
from torch_linguist.errors import ConfigError
from torch_linguist.evaluation.score_settings import ScoreSettings
from torch_linguist.model import LanguageModel
from torch_linguist.optim.optimizers import build_optimizer, needs_whole_matrices, takes_sparse_gradients
from torch_linguist.optim.schedules import Schedule
from torch_linguist.trainer.interrupt import StopRequest
from torch_linguist.trainer.loop import BatchSource, Loop
from torch_linguist.trainer.settings import CheckpointSettings, TrainerSettings

MEMORY_PASSES = 1.5
"""Passes over the training text within which the usual weight decay shrinks a weight to 1/e."""

LARGEST_USUAL_DECAY = 1.0
"""Largest usual weight decay, for the smallest corpora."""


@dataclass(frozen=True)
class TrainingContext:
    """What the stages of a run share.

    Attributes:
        corpus: token streams of the splits.
        make_optimizer: called with parameter groups, `lr` and `weight_decay`.
        schedule: learning-rate schedule; each training takes a copy.
        settings: settings of the loop; `device` and `precision` are resolved (not `auto`).
        seed: random seed of the data order and of dropout.
        score: how validations score a stream.
        decay_all: whether weight decay also applies to biases, norms and embeddings.
        layer_decay: factor of the learning rate from each layer to the one below it.
        decay_embeddings: whether weight decay also applies to embeddings.
        checkpoint: number and interval of checkpoints of the long training.
        stop_request: request to stop, which the processes agree on about once a second; None for none.
    """

    corpus: TokenizedCorpus
    make_optimizer: Callable[..., Optimizer]
    schedule: Schedule
    settings: TrainerSettings
    seed: int
    score: ScoreSettings = field(default_factory=ScoreSettings)
    decay_all: bool = False
    layer_decay: float = 1.0
    decay_embeddings: bool = False
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    stop_request: StopRequest | None = None

    @property
    def sharded(self) -> bool:
        """Whether several processes divide the weights among them."""
        return self.settings.shard and world_size() > 1

    @property
    def tokens_per_update(self) -> int:
        """Training tokens of an update, at most."""
        return self.settings.batch_size * self.settings.sequence_length * self.settings.accumulate

    def usual_weight_decay(self, lr: float) -> float:
        """Return the weight decay under which weights remember the last pass and a half over the training text.

        A pass is long in a large corpus, so that this is little there, and much in a small text, which a training reads
        many times. That the best memory, counted in passes, hardly depends on the size of the corpus is a finding of
        Wang & Aitchison 2025, "How to set AdamW's weight decay as you scale model and dataset size". How many passes
        are best depends on the model's other regularization: with the default dropout of 0.1, small texts gain from as
        few as one, and with a dropout of 0.5 three are better. docs/log.md has the figures.

        Args:
            lr: peak learning rate.

        Returns:
            A number of two significant digits, at most 1.
        """
        passes_per_update = self.tokens_per_update / len(self.corpus.train)
        return float(f"{min(passes_per_update / (MEMORY_PASSES * lr), LARGEST_USUAL_DECAY):.2g}")

    def prepare_training(
        self,
        model: LanguageModel,
        lr: float,
        weight_decay: float,
        batches: BatchSource | None = None,
        nll: Nll | None = None,
        window_nll: WindowNll | None = None,
    ) -> Loop:
        """Prepare a model for training: set its training loss and the layout of its gradients, and return its loop.

        Args:
            model: model to train, modified in place.
            lr: learning rate.
            weight_decay: weight decay of the weight matrices.
            batches: supply of batches; None for those of the training split.
            nll: loss to use in place of `model.nll`.
            window_nll: see `DataParallel`.

        Raises:
            ConfigError: a setting does not suit the model or the optimizer, or a batch has fewer rows than there are
                processes.
        """
        settings = self.settings
        check_batch_size(settings.batch_size)
        model.set_training_loss(settings.label_smoothing, settings.z_loss)
        if self.sharded and needs_whole_matrices(self.make_optimizer):
            raise ConfigError(
                "trainer.shard=true: optim=muon needs whole matrices; set optim=lazy_adamw or trainer.shard=false"
            )
        decay = (weight_decay, self.decay_all)
        takes = takes_sparse_gradients(model, self.make_optimizer, *decay, self.decay_embeddings)
        # torch.compile cannot trace a step with sparse gradients for several processes.
        dense = self.sharded or (nll is not None and world_size() > 1)
        model.use_sparse_gradients(lambda weight: not dense and takes(weight))
        step = DataParallel(
            model,
            nll,
            settings.precision,
            settings.gradient_compression,
            may_skip=model.may_skip_weights or settings.freeze > 0,
            seed=self.seed,
            sharded=self.sharded,
            window_nll=window_nll,
        )
        return Loop(
            model,
            build_optimizer(model, self.make_optimizer, lr, *decay, self.layer_decay, self.decay_embeddings),
            batches or self.batches(model),
            step=step,
            gradient_clip=settings.gradient_clip,
            accumulate=settings.accumulate,
            skip_non_finite=settings.on_nan == "skip",
            stop_request=self.stop_request,
            nominal_length=settings.sequence_length if settings.variable_length else None,
        )

    def batches(self, model: LanguageModel) -> Batches | NoisyBatches:
        """Return the training batches for a model, with noise if the settings ask for it."""
        settings = self.settings
        batches = make_batches(self.corpus.train, settings, bool(model.context_length), self.seed)
        if settings.noise is None and settings.word_dropout == 0:
            return batches
        return NoisyBatches(batches, self.corpus, settings.noise, settings.noise_rate, settings.word_dropout, self.seed)

    def fresh_schedule(self) -> Schedule:
        """Return a copy of the schedule at its start."""
        return copy.deepcopy(self.schedule)


def make_batches(stream: TokenStream, settings: TrainerSettings, bounded_context: bool, seed: int) -> Batches:
    """Return the batches of a stream: of the kind that is set, or by default windows for a bounded context."""
    windows = settings.batches == "windows" or (settings.batches == "auto" and bounded_context)
    if windows and settings.variable_length:
        raise ConfigError("trainer.variable_length=true: needs contiguous batches; set trainer.batches=contiguous")
    kind = WindowBatches if windows else VariableBatches if settings.variable_length else ContiguousBatches
    return kind(stream, settings.batch_size, settings.sequence_length, seed)


def untrained_copy(model: LanguageModel, dropout: bool = True) -> LanguageModel:
    """Return a copy to experiment on; the original stays as it is.

    Args:
        model: model to copy.
        dropout: whether the copy keeps its dropout.
    """
    duplicate = copy.deepcopy(model)
    if not dropout:
        duplicate.disable_dropout()
    return duplicate


def resolved(settings: TrainerSettings, device: torch.device, precision: str) -> TrainerSettings:
    """Return the settings with the chosen device and precision."""
    return replace(settings, device=str(device), precision=precision)
