"""The numbers of a training and of each stage, as typed values: their constructors are the schema of the configs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch_linguist.data import check_noise
from torch_linguist.errors import ConfigError

STAGES = ("check", "overfit", "lr_find", "grid", "fit", "export")
"""The stages of a run, in their order."""

PRECISIONS = ("auto", "fp32", "bf16")
AVERAGES = ("ema", "asgd")
COMPILE = ("auto", True, False)
ON_NAN = ("stop", "skip", "rollback")
BATCHES = ("auto", "contiguous", "windows")
SUGGESTIONS = ("valley", "steep", "minimum", "slide")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _one_of(field_name: str, value: str, choices: Sequence[str]) -> None:
    _require(value in choices, f"{field_name}={value}: must be one of {', '.join(choices)}")


def _positive(**values: float | None) -> None:
    for name, value in values.items():
        key = name.replace("__", ".")
        _require(value is None or value > 0, f"{key}={value}: must be greater than 0")


@dataclass(frozen=True)
class TrainerSettings:
    """How the loop runs, and when it ends.

    The first limit that is reached ends the training; the schedule spans the nearest one. At least one is needed.

    Attributes:
        batch_size: parallel streams (contiguous) or windows a batch, B.
        sequence_length: tokens of each stream a step, T: also how far back-propagation through time reaches.
        batches: `contiguous` (state carried from batch to batch), `windows` (independent, shuffled), or `auto`:
            contiguous for recurrent models, windows for models with a bounded context.
        gradient_clip: largest gradient norm; None turns clipping off.
        accumulate: batches whose gradients make one update.
        precision: `fp32`, `bf16` (matrix products in bfloat16), or `auto`: bf16 where the device gains by it.
        device: `auto` (CUDA, then MPS, then CPU), or a torch device name.
        max_epochs: passes over the training split (a fraction is allowed).
        max_steps: optimizer updates.
        max_tokens: training tokens.
        max_minutes: wall-clock minutes, counted from the first update, validation included.
        eval_every: updates between validations; None chooses so that validation takes a small share of the time.
        eval_tokens: tokens of the validation split that a validation during training scores; None for all of them.
        patience: validations without a better loss after which training stops; None never does.
        log_every: updates between lines of `metrics.csv`.
        sample_every: validations between sample continuations; 0 for none.
        average: `ema` or `asgd`: the average of the weights is validated and kept as the best model; None for the
            weights themselves. See `WeightAverage`.
        average_decay: weight of the past in `ema`.
        on_nan: what a loss or a gradient that is not finite does. `stop`: ends the training; `skip`: its update is left
            out; `rollback`: the training goes back to the weights of the last checkpoint and on with the next data.
        noise: `blank`, `unigram` or `kneser_ney` noise on the training batches; None for none. See `NoisyBatches`.
        noise_rate: how often a token is replaced.
        word_dropout: share of the words that a training batch does not show.
        unigram_start: whether a training starts from the frequencies of the tokens instead of from knowing nothing.
        cooccurrence_start: whether the embedding starts from which tokens stand next to which. See
            `cooccurrence_vectors`.
        label_smoothing: share of the target's probability that the training loss spreads over the vocabulary.
        z_loss: factor of the squared logarithm of the softmax's denominator in the training loss. Both need
            `model.output=full`; validation and scores are without them.
        compile: whether torch.compile makes the step of the long training; `auto`: of a model with a bounded context on
            CUDA. Where it cannot, the training goes on without. See `CompiledStep`.
        profile: whether some updates of the long training are profiled. See `Profiling`.
    """

    batch_size: int = 16
    sequence_length: int = 64
    batches: str = "auto"
    gradient_clip: float | None = 1.0
    accumulate: int = 1
    precision: str = "auto"
    device: str = "auto"
    max_epochs: float | None = None
    max_steps: int | None = None
    max_tokens: int | None = None
    max_minutes: float | None = None
    eval_every: int | None = None
    eval_tokens: int | None = None
    patience: int | None = None
    log_every: int = 10
    sample_every: int = 2
    average: str | None = None
    average_decay: float = 0.999
    on_nan: str = "stop"
    noise: str | None = None
    noise_rate: float = 0.1
    word_dropout: float = 0.0
    unigram_start: bool = True
    cooccurrence_start: bool = False
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    compile: Literal["auto", True, False] = "auto"
    profile: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "sequence_length", "gradient_clip", "accumulate", "log_every"):
            _positive(**{f"trainer__{name}": getattr(self, name)})
        for name in ("max_epochs", "max_steps", "max_tokens", "max_minutes", "eval_every", "eval_tokens", "patience"):
            _positive(**{f"trainer__{name}": getattr(self, name)})
        _require(self.sample_every >= 0, f"trainer.sample_every={self.sample_every}: must be at least 0")
        _one_of("trainer.precision", self.precision, PRECISIONS)
        _one_of("trainer.batches", self.batches, BATCHES)
        if self.average is not None:
            _one_of("trainer.average", self.average, AVERAGES)
        _require(0 <= self.average_decay < 1, f"trainer.average_decay={self.average_decay}: must be from 0 to below 1")
        _one_of("trainer.on_nan", self.on_nan, ON_NAN)
        _require(self.compile in COMPILE, f"trainer.compile={self.compile}: must be one of auto, true, false")
        smoothing = self.label_smoothing
        _require(0 <= smoothing < 1, f"trainer.label_smoothing={smoothing}: must be from 0 to below 1")
        _require(self.z_loss >= 0, f"trainer.z_loss={self.z_loss}: must be at least 0")
        check_noise(self.noise, self.noise_rate, self.word_dropout)
        limits = (self.max_epochs, self.max_steps, self.max_tokens, self.max_minutes)
        _require(
            any(limit is not None for limit in limits),
            "trainer: no limit is set; give one of trainer.max_epochs, max_steps, max_tokens, max_minutes",
        )


@dataclass(frozen=True)
class CheckpointSettings:
    """When the state of the long training is written to `checkpoints/last.pt`.

    Beside these, it is written at the end, at a request to stop, and after a validation wherever the writing has so far
    taken a small share of the time.

    Attributes:
        keep: checkpoints that are kept: `last.pt`, `previous.pt`, `previous-2.pt` ... A damaged one costs the updates
            since the one before it.
        every_minutes: longest time between two writes; None for no such limit.
        every_steps: updates between two writes; None for no such limit.
    """

    keep: int = 2
    every_minutes: float | None = 5.0
    every_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("keep", "every_minutes", "every_steps"):
            _positive(**{f"checkpoint__{name}": getattr(self, name)})


@dataclass(frozen=True)
class CheckSettings:
    """Stage `check`: the loss of the untrained model, held against ln(V).

    Attributes:
        batches: batches that are looked at.
        tolerance: largest relative distance from ln(V) that passes.
    """

    batches: int = 4
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        _positive(check__batches=self.batches, check__tolerance=self.tolerance)


@dataclass(frozen=True)
class OverfitSettings:
    """Stage `overfit`: a few batches are learned by heart.

    Attributes:
        batches: batches that are repeated.
        batch_size: streams a batch.
        sequence_length: tokens of each stream.
        max_steps: updates at most.
        target: loss in nats per token at which the stage ends with success.
        lr: learning rate of AdamW.
    """

    batches: int = 1
    batch_size: int = 8
    sequence_length: int = 16
    max_steps: int = 200
    target: float = 0.1
    lr: float = 1e-2

    def __post_init__(self) -> None:
        for name in ("batches", "batch_size", "sequence_length", "max_steps", "target", "lr"):
            _positive(**{f"overfit__{name}": getattr(self, name)})


@dataclass(frozen=True)
class LRFindSettings:
    """Stage `lr_find`: exponential range test (Smith 2017), then short trials around its suggestion.

    Attributes:
        start: first learning rate.
        end: last learning rate.
        steps: updates from the first to the last.
        smoothing: weight of the past in the exponential moving average of the loss.
        diverged: the test stops where the smoothed loss exceeds its best by this factor.
        suggestion: `valley`, `steep`, `minimum` or `slide`.
        trial_factors: each trial's learning rate as a multiple of the suggestion.
        trial_steps: updates of a trial; 0 takes the suggestion as it is.
        default: the learning rate where the test finds nothing.
        eval_tokens: tokens of the validation split that judge a trial.
    """

    start: float = 1e-5
    end: float = 1.0
    steps: int = 80
    smoothing: float = 0.9
    diverged: float = 4.0
    suggestion: str = "valley"
    trial_factors: Sequence[float] = field(default_factory=lambda: [1 / 3, 1.0, 3.0])
    trial_steps: int = 200
    default: float = 3e-3
    eval_tokens: int | None = 20_000

    def __post_init__(self) -> None:
        for name in ("start", "end", "diverged", "default", "eval_tokens"):
            _positive(**{f"lr_find__{name}": getattr(self, name)})
        for factor in self.trial_factors:
            _positive(lr_find__trial_factors=factor)
        _require(self.end > self.start, f"lr_find.end={self.end}: must be greater than lr_find.start={self.start}")
        _require(self.steps >= 10, f"lr_find.steps={self.steps}: must be at least 10")
        _require(self.trial_steps >= 0, f"lr_find.trial_steps={self.trial_steps}: must be at least 0")
        _require(0 <= self.smoothing < 1, f"lr_find.smoothing={self.smoothing}: must be at least 0 and less than 1")
        _one_of("lr_find.suggestion", self.suggestion, SUGGESTIONS)


@dataclass(frozen=True)
class GridSettings:
    """Stage `grid`: weight decay x the best learning rates, a short training each.

    Attributes:
        weight_decay: the values that are tried.
        learning_rates: how many of the best trials' learning rates take part.
        steps: updates of each point.
        eval_tokens: tokens of the validation split that judge a point.
        halving: of so many points one goes on after each part of its training (`steps` / halving, and so on down);
            the others are stopped as losing. None trains every point to its end.
    """

    weight_decay: Sequence[float] = field(default_factory=lambda: [0.0, 0.01, 0.1])
    learning_rates: int = 2
    steps: int = 120
    eval_tokens: int | None = 20_000
    halving: int | None = None

    def __post_init__(self) -> None:
        _require(self.halving is None or self.halving > 1, f"grid.halving={self.halving}: must be null or at least 2")
        _positive(grid__learning_rates=self.learning_rates, grid__steps=self.steps, grid__eval_tokens=self.eval_tokens)
        _require(len(self.weight_decay) > 0, "grid.weight_decay=[]: must hold at least one value")
        for value in self.weight_decay:
            _require(value >= 0, f"grid.weight_decay={value}: must be at least 0")


@dataclass(frozen=True)
class SampleSettings:
    """Sample continuations during and after training.

    Attributes:
        prompts: texts to continue; an empty text starts at the beginning of a line.
        tokens: length of a continuation.
        temperature: divides the logits.
        top_k: only the k most probable tokens are drawn; 0 for all.
        seed: of the draws; the training's own random state is not touched.
    """

    prompts: Sequence[str] = field(default_factory=lambda: ["The", "We"])
    tokens: int = 40
    temperature: float = 0.8
    top_k: int = 50
    seed: int = 1

    def __post_init__(self) -> None:
        _positive(sample__tokens=self.tokens, sample__temperature=self.temperature)
        _require(self.top_k >= 0, f"sample.top_k={self.top_k}: must be at least 0")


@dataclass(frozen=True)
class ScoreSettings:
    """How a stream is scored; see `torch_linguist.evaluation.score`.

    Attributes:
        chunk_length: tokens that a recurrent model reads at a time; the result does not depend on it.
        stride: new tokens a window for a model with a bounded context; None for half its context.
        baseline_order: the closing table shows an n-gram of this order on the same tokens; 0 for none.
        baseline_tokens: training splits of more tokens get no n-gram baseline, which is counted in memory.
    """

    chunk_length: int = 4096
    stride: int | None = None
    baseline_order: int = 5
    baseline_tokens: int = 20_000_000

    def __post_init__(self) -> None:
        _positive(score__chunk_length=self.chunk_length, score__stride=self.stride)
        _require(0 <= self.baseline_order <= 8, f"score.baseline_order={self.baseline_order}: must be from 0 to 8")
