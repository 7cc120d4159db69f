"""Settings of the training loop and of its checkpoints; the constructors are the schema of their YAML nodes."""

from dataclasses import dataclass
from typing import Literal

from torch_linguist.data import check_noise
from torch_linguist.errors import require, require_one_of, require_positive

PRECISIONS = ("auto", "fp32", "bf16")
AVERAGES = ("ema", "asgd")
COMPILE = ("auto", True, False)
ON_NAN = ("stop", "skip", "rollback")
COMPRESSIONS = ("bf16",)
BATCHES = ("auto", "contiguous", "windows")


@dataclass(frozen=True)
class TrainerSettings:
    """Settings of a training. The first limit that is reached ends it; at least one limit is required.

    Attributes:
        batch_size: rows B of a batch: parallel streams (contiguous batches) or windows.
        sequence_length: tokens T of each row, and the reach of back-propagation through time.
        batches: `contiguous` (state carried from batch to batch), `windows` (independent, shuffled), or `auto`:
            contiguous for recurrent models, windows for models with a bounded context.
        variable_length: whether the lengths of contiguous batches vary around `sequence_length`, and the learning rate
            in proportion to them; see `VariableBatches`.
        gradient_clip: largest gradient norm; None disables clipping.
        accumulate: batches per update.
        precision: `fp32`, `bf16` (matrix products in bfloat16), or `auto`: bf16 on devices where it is faster.
        device: `auto` (CUDA, then MPS, then CPU), or a torch device name.
        max_epochs: passes over the training split (a fraction is allowed).
        max_steps: optimizer updates.
        max_tokens: training tokens.
        max_minutes: wall-clock minutes from the first update to the end, including validations. The schedule follows
            the training time, which leaves them out; see `Budget`.
        eval_every: updates between validations; None for ten validations, fewer if they would take more than 5% of the
            training time.
        eval_tokens: tokens of the validation split that a validation scores; None for all.
        patience: validations without a better loss after which training stops; None for no early stopping.
        log_every: updates between rows of `metrics.csv`.
        sample_every: validations between sample continuations; 0 for none.
        freeze: updates until the next lower layer is trained too; 0 trains all layers from the start. See
            `GradualUnfreezing`.
        average: `ema` or `asgd` validates and keeps an average of the weights; None for the weights themselves. See
            `WeightAverage`.
        average_decay: weight of the past in `ema`.
        snapshots: number of cycles of the schedule; the weights at the end of each are kept and mixed. None for one
            cycle without a mixture. See `Snapshots`.
        distill: share of the divergence from the last snapshot in the training loss, from the second cycle on. The
            training losses in `metrics.csv` are then those of the mixed loss. See `Distillation`.
        temperature_scaling: whether the logits of the best model are multiplied, after the training, by the factor
            that suits the validation split best. Not with `snapshots`. See `TemperatureScaling`.
        on_nan: handling of a loss or gradient that is not finite. `stop` ends the training, `skip` leaves out the
            update, `rollback` restores the weights of the last checkpoint and continues with the next data.
        noise: `blank`, `unigram` or `kneser_ney` noise on the training batches; None for none. See `NoisyBatches`.
        noise_rate: probability that a token is replaced.
        word_dropout: share of the words that are hidden in a training batch.
        unigram_start: whether the output biases, if the model has any, start at the log frequencies of the tokens.
        cooccurrence_start: whether the embedding starts from co-occurrences; `auto` decides by the sizes of vocabulary
            and training split. See `uses_cooccurrences`.
        label_smoothing: share of the target probability that the training loss spreads over the vocabulary.
        z_loss: factor of the squared log-partition function in the training loss. Like `label_smoothing` it needs
            `model.output=full`; validation and scores leave both out.
        compile: whether to compile the training step with torch.compile; `auto` compiles models with a bounded context
            that train for ten minutes or more, on CUDA or in bfloat16 on a CPU. If compiling fails, the training
            continues uncompiled. See `CompiledStep` and `is_worth_compiling`.
        gradient_compression: `bf16` exchanges the gradients of several processes in bfloat16, which halves what they
            send and rounds the gradients; None exchanges them as they are.
        shard: whether several processes divide the weights, the gradients and the state of the optimizer among them
            instead of keeping all of each (FSDP2). One process keeps everything.
        profile: whether to profile a few updates of the long training; see `Profiling`.

    Example:
        >>> TrainerSettings(max_epochs=3, batch_size=32).sequence_length
        70
    """

    batch_size: int = 20
    sequence_length: int = 70
    batches: str = "auto"
    variable_length: bool = False
    gradient_clip: float | None = 1.0
    accumulate: int = 1
    precision: str = "auto"
    device: str = "auto"
    max_epochs: float | None = None
    max_steps: int | None = None
    max_tokens: int | None = None
    max_minutes: float | None = None
    eval_every: int | None = None
    eval_tokens: int | None = 10_000
    patience: int | None = None
    log_every: int = 10
    sample_every: int = 2
    freeze: int = 0
    average: str | None = None
    average_decay: float = 0.999
    snapshots: int | None = None
    distill: float = 0.0
    temperature_scaling: bool = False
    on_nan: str = "stop"
    noise: str | None = None
    noise_rate: float = 0.1
    word_dropout: float = 0.0
    unigram_start: bool = True
    cooccurrence_start: Literal["auto", True, False] = "auto"
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    compile: Literal["auto", True, False] = "auto"
    gradient_compression: str | None = None
    shard: bool = False
    profile: bool = False

    def __post_init__(self) -> None:
        require_positive("trainer", self, "batch_size", "sequence_length", "gradient_clip", "accumulate", "log_every")
        require_positive("trainer", self, "max_epochs", "max_steps", "max_tokens", "max_minutes")
        require_positive("trainer", self, "snapshots", "eval_every", "eval_tokens", "patience")
        require(self.sample_every >= 0, f"trainer.sample_every={self.sample_every}: must be at least 0")
        require(self.freeze >= 0, f"trainer.freeze={self.freeze}: must be at least 0")
        require_one_of("trainer.precision", self.precision, PRECISIONS)
        require_one_of("trainer.batches", self.batches, BATCHES)
        if self.average is not None:
            require_one_of("trainer.average", self.average, AVERAGES)
        require(0 <= self.average_decay < 1, f"trainer.average_decay={self.average_decay}: must be from 0 to below 1")
        require_one_of("trainer.on_nan", self.on_nan, ON_NAN)
        require(self.compile in COMPILE, f"trainer.compile={self.compile}: must be one of auto, true, false")
        if self.gradient_compression is not None:
            require_one_of("trainer.gradient_compression", self.gradient_compression, COMPRESSIONS)
        for name, off in (("average", None), ("freeze", 0), ("compile", "auto")) if self.shard else ():
            value, allowed = getattr(self, name), (off, False)
            require(value in allowed, f"trainer.shard=true: does not work with trainer.{name}={value}; leave one out")
        smoothing = self.label_smoothing
        require(0 <= smoothing < 1, f"trainer.label_smoothing={smoothing}: must be from 0 to below 1")
        require(self.z_loss >= 0, f"trainer.z_loss={self.z_loss}: must be at least 0")
        share = self.distill
        require(0 <= share < 1, f"trainer.distill={share}: must be from 0 to below 1")
        require(not share or self.snapshots is not None, f"trainer.distill={share}: needs trainer.snapshots, such as 5")
        require(
            not share or not (self.label_smoothing or self.z_loss),
            f"trainer.distill={share}: does not combine with trainer.label_smoothing and trainer.z_loss; set both to 0",
        )
        require(not share or self.compile is not True, f"trainer.distill={share}: needs trainer.compile=false or auto")
        require(
            not self.temperature_scaling or self.snapshots is None,
            f"trainer.temperature_scaling=true: not with trainer.snapshots={self.snapshots}; leave one out",
        )
        check_noise(self.noise, self.noise_rate, self.word_dropout)
        limits = (self.max_epochs, self.max_steps, self.max_tokens, self.max_minutes)
        require(
            any(limit is not None for limit in limits),
            "trainer: no limit is set; give one of trainer.max_epochs, max_steps, max_tokens, max_minutes",
        )


@dataclass(frozen=True)
class CheckpointSettings:
    """When the state of the long training is written to `checkpoints/last.pt`.

    In addition, it is written at the end, at a request to stop, and after validations as long as writing takes a small
    share of the time.

    Attributes:
        keep: number of states to keep: `last.pt`, `previous.pt`, `previous-2.pt`, ... If one is damaged, only the
            updates since the one before are lost.
        every_minutes: longest time between two checkpoints; None for no limit.
        every_steps: updates between two checkpoints; None for no limit.

    Example:
        >>> CheckpointSettings(keep=1, every_minutes=None).keep
        1
    """

    keep: int = 2
    every_minutes: float | None = 5.0
    every_steps: int | None = None

    def __post_init__(self) -> None:
        require_positive("checkpoint", self, "keep", "every_minutes", "every_steps")
