"""What every stage needs to train: the corpus, a way to make optimizers, the settings, on one device."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch.optim import Optimizer

from torch_linguist.data import Batches, ContiguousBatches, NoisyBatches, TokenizedCorpus, TokenStream, WindowBatches
from torch_linguist.distributed import processes
from torch_linguist.model import LanguageModel
from torch_linguist.optim.optimizers import build_optimizer
from torch_linguist.optim.schedules import Schedule
from torch_linguist.trainer.loop import BatchSource, Loop, Nll
from torch_linguist.trainer.settings import CheckpointSettings, ScoreSettings, TrainerSettings


@dataclass(frozen=True)
class TrainingContext:
    """What the stages share.

    Attributes:
        corpus: the token streams.
        make_optimizer: called with parameter groups, `lr` and `weight_decay`.
        schedule: of the learning rate; each training takes a copy.
        settings: of the loop; `device` and `precision` are resolved (no `auto`).
        score: how validation scores.
        seed: of the data's order and of dropout.
        decay_all: whether biases, norms and embeddings decay too.
        checkpoint: how often the long training is saved.
    """

    corpus: TokenizedCorpus
    make_optimizer: Callable[..., Optimizer]
    schedule: Schedule
    settings: TrainerSettings
    score: ScoreSettings
    seed: int
    decay_all: bool = False
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)

    def loop(
        self,
        model: LanguageModel,
        lr: float,
        weight_decay: float,
        batches: BatchSource | None = None,
        nll: Nll | None = None,
    ) -> Loop:
        """A loop over the training split (or over `batches`) that trains `model` in place, by `nll` if given."""
        processes.check_batch_size(self.settings.batch_size)
        model.set_training_loss(self.settings.label_smoothing, self.settings.z_loss)
        return Loop(
            model,
            build_optimizer(model, self.make_optimizer, lr, weight_decay, self.decay_all),
            batches or self.batches(model),
            gradient_clip=self.settings.gradient_clip,
            accumulate=self.settings.accumulate,
            precision=self.settings.precision,
            skip_faults=self.settings.on_nan == "skip",
            nll=nll,
        )

    def batches(self, model: LanguageModel) -> Batches | NoisyBatches:
        """The training batches that suit the model: contiguous ones, or windows for a bounded context; with noise."""
        settings = self.settings
        batches = make_batches(self.corpus.train, settings, bool(model.context_length), self.seed)
        if settings.noise is None and settings.word_dropout == 0:
            return batches
        return NoisyBatches(batches, self.corpus, settings.noise, settings.noise_rate, settings.word_dropout, self.seed)

    def fresh_schedule(self) -> Schedule:
        """A copy of the schedule at its start."""
        return copy.deepcopy(self.schedule)


def make_batches(stream: TokenStream, settings: TrainerSettings, bounded_context: bool, seed: int) -> Batches:
    """Batches of a stream, of the kind the settings name."""
    windows = settings.batches == "windows" or (settings.batches == "auto" and bounded_context)
    kind = WindowBatches if windows else ContiguousBatches
    return kind(stream, settings.batch_size, settings.sequence_length, seed)


def untrained_copy(model: LanguageModel, dropout: bool = True) -> LanguageModel:
    """A copy to experiment on; the original stays bit for bit as it is.

    Args:
        model: is copied.
        dropout: whether the copy keeps its dropout.
    """
    duplicate = copy.deepcopy(model)
    if not dropout:
        duplicate.disable_dropout()
    return duplicate


def resolved(settings: TrainerSettings, device: torch.device, precision: str) -> TrainerSettings:
    """The settings with the device and the precision that were chosen."""
    return replace(settings, device=str(device), precision=precision)
