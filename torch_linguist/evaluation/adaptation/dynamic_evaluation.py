"""Dynamic evaluation: the model keeps learning from the text it is scored on; each token is scored before it is used.

Krause et al. 2018, "Dynamic Evaluation of Neural Sequence Models", in its RMS form. After a segment has been scored,
each weight moves by

    decay * min(d, 1 / decay) * (trained - weight) - learning_rate * gradient / (m + e)

where m is the root mean square of its gradients on the training split, and d is m divided by the mean over all tensors
of their mean m. Both terms use the weight before the step and e is `EPSILON`, as in the authors' code, from which one
thing differs: m is measured on single segments read in order instead of batches of 100.

With a sampled softmax, the scores are exact, but the gradients are sampled ones as in training, from a sample that also
holds the types that the segment makes likely: they differ little from the exact ones. A step then changes the rows of
its sample only, which make up for the pulls they missed; the others cost nothing. All is computed in the type of the
weights: rounding the vocabulary's weights at each step would cost more than it saves.

Shape legend: T time, V vocabulary, N tokens of the stream.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.data import TokenStream
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.adaptation.continuous_cache import HiddenPart
from torch_linguist.evaluation.parallel_reading import shifted
from torch_linguist.model import LanguageModel, State, detach_state, device_of
from torch_linguist.model.module_modes import allow_recurrent_gradients

LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
DECAYS = (0.001, 0.0003)
SEGMENT = 64

EPSILON = 1e-3
"""Part of every denominator, larger than most gradients: steps are close to those of gradient descent, except for the
few weights whose gradients were large in training."""


@dataclass(frozen=True)
class DynamicSettings:
    """Settings of dynamic evaluation.

    Attributes:
        learning_rate: step size of a weight whose gradient is far larger than `EPSILON`, and as large as in training.
        decay: share of the distance to its trained value that a typical weight moves back at each step.
        segment: tokens scored before each step. Models with a bounded context use at most half of it, so that every
            token sees at least half a context.
        exact: whether a sampled softmax has its exact gradient too, at several times the cost.

    Example:
        >>> DynamicSettings(learning_rate=1e-4, decay=0.001).segment
        64
    """

    learning_rate: float
    decay: float
    segment: int = SEGMENT
    exact: bool = False


def gradient_scale(
    model: LanguageModel,
    train: TokenStream,
    *,
    segment: int = SEGMENT,
    max_tokens: int = 20_000,
    exact: bool = False,
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[Tensor]:
    """Return the root mean square of the gradients over segments of the training split, one tensor per parameter.

    Args:
        model: a model with trainable weights, which are not changed.
        train: the training split.
        segment: tokens per gradient.
        max_tokens: number of tokens to use from the start of the split.
        exact: see `DynamicSettings`.
        progress: called with the fraction of the tokens that is done.

    Raises:
        LinguistError: the model has no trainable weights.

    Example:
        >>> network = GRU(corpus.tokenizer.vocab_size, embedding_dim=4, hidden_size=8)
        >>> scale = gradient_scale(network, corpus.train)
        >>> [part.shape for part in scale] == [weight.shape for weight in network.parameters()]
        True
    """
    learner = _Learner(model, segment, exact)
    squares = [torch.zeros_like(parameter) for parameter in learner.parameters]
    count, total = 0, min(max_tokens, len(train))
    for _, gradients in learner.read(train, max_tokens, scored=False):
        for square, gradient in zip(squares, gradients, strict=True):
            if gradient.is_sparse:
                rows, values = _rows(gradient)
                square.index_add_(0, rows, values.square())
            else:
                square.addcmul_(gradient, gradient)
        count += 1
        progress(min(1.0, count * learner.segment / total))
    return [(square / count).sqrt() for square in squares]


def dynamic_nll(
    model: LanguageModel,
    stream: TokenStream,
    settings: DynamicSettings,
    scale: Sequence[Tensor],
    *,
    max_tokens: int | None = None,
) -> NDArray[np.float64]:
    """Return the nll [N] of every token of a stream under a model that keeps learning; see `dynamic_parts`.

    Example:
        >>> network = GRU(corpus.tokenizer.vocab_size, embedding_dim=4, hidden_size=8)
        >>> scale = gradient_scale(network, corpus.train)
        >>> dynamic_nll(network, corpus.test, DynamicSettings(1e-3, decay=0.01), scale).shape == (len(corpus.test),)
        True
    """
    parts = [part.nll for part in dynamic_parts(model, stream, settings, scale, max_tokens=max_tokens)]
    return torch.cat(parts).double().cpu().numpy()


def dynamic_parts(
    model: LanguageModel,
    stream: TokenStream,
    settings: DynamicSettings,
    scale: Sequence[Tensor],
    *,
    max_tokens: int | None = None,
) -> Iterator[HiddenPart]:
    """Read a stream with a model that keeps learning, and yield each segment as it was scored.

    Args:
        model: a model with trainable weights. A copy learns; the model itself is not changed.
        stream: one split.
        settings: learning rate, decay and segment length.
        scale: result of `gradient_scale`.
        max_tokens: number of tokens to score from the start; None for all.

    Raises:
        LinguistError: the model has no trainable weights, the stream is empty, or a setting is out of range.

    Example:
        >>> network = GRU(corpus.tokenizer.vocab_size, embedding_dim=4, hidden_size=8)
        >>> scale, settings = gradient_scale(network, corpus.train), DynamicSettings(1e-3, decay=0.01, segment=5)
        >>> [len(part.nll) for part in dynamic_parts(network, corpus.test, settings, scale)]
        [5, 5, 4]
    """
    if settings.learning_rate < 0 or settings.decay < 0:
        raise LinguistError(f"{settings}: neither the learning rate nor the decay may be negative")
    learner = _Learner(model, settings.segment, settings.exact)
    typical = sum(float(rms.mean()) for rms in scale) / len(scale)
    movers = [_Mover(weight, rms, typical, settings) for weight, rms in zip(learner.parameters, scale, strict=True)]
    for part, gradients in learner.read(stream, max_tokens):
        for mover, gradient in zip(movers, gradients, strict=True):
            mover.move(gradient)
        yield part


def segment_of(model: LanguageModel, segment: int) -> int:
    """Return how many tokens a model reads before each step if asked for `segment`; see `DynamicSettings`.

    Example:
        >>> recurrent, bounded = GRU(20, embedding_dim=4, hidden_size=8), Transformer(20, embedding_dim=4, num_heads=1)
        >>> segment_of(recurrent, 1000), segment_of(bounded, 1000) == bounded.context_length // 2
        (1000, True)
    """
    return min(segment, max(1, model.context_length // 2)) if model.context_length else segment


def tune_dynamic(
    model: LanguageModel,
    valid: TokenStream,
    scale: Sequence[Tensor],
    *,
    segment: int = SEGMENT,
    max_tokens: int | None = None,
    learning_rates: Sequence[float] = LEARNING_RATES,
    decays: Sequence[float] = DECAYS,
    progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[DynamicSettings, list[tuple[DynamicSettings, float]]]:
    """Choose the learning rate with the first decay, then the decay with that learning rate, on the validation split.

    Args:
        model: see `dynamic_nll`.
        valid: the validation split.
        scale: result of `gradient_scale`.
        segment: tokens per step.
        max_tokens: number of tokens to use from the start of the split; None for all.
        learning_rates: learning rates to try.
        decays: decays to try.
        progress: called with the fraction of the trials that is done.

    Returns:
        The settings with the lowest loss, and all settings tried with their loss in nats per token.

    Example:
        >>> network = GRU(corpus.tokenizer.vocab_size, embedding_dim=4, hidden_size=8)
        >>> best, tried = tune_dynamic(network, corpus.valid, gradient_scale(network, corpus.train))
        >>> dict(tried)[best] == min(loss for _, loss in tried)
        True
    """
    tried: dict[DynamicSettings, float] = {}

    def measure(rate: float, decay: float) -> None:
        settings = DynamicSettings(rate, decay, segment)
        nll = dynamic_nll(model, valid, settings, scale, max_tokens=max_tokens)
        tried[settings] = float(nll.mean())
        progress(len(tried) / (len(learning_rates) + len(decays) - 1))

    for rate in learning_rates:
        measure(rate, decays[0])
    best_rate = min(tried, key=tried.__getitem__).learning_rate
    for decay in decays[1:]:
        measure(best_rate, decay)
    return min(tried, key=tried.__getitem__), list(tried.items())


class _Learner:
    """A copy of a model that reads a stream segment by segment and returns the gradient of each segment."""

    def __init__(self, model: LanguageModel, segment: int, exact: bool) -> None:
        if segment < 1:
            raise LinguistError(f"--segment={segment}: must be at least 1")
        self.model = copy.deepcopy(model).eval()
        self.model.disable_dropout()
        self.parameters: list[Tensor] = [weight for weight in self.model.parameters() if weight.requires_grad]
        if not self.parameters:
            raise LinguistError(f"--dynamic: a {type(model).__name__} has no weights to train")
        self.segment = segment_of(model, segment)
        self.exact = exact or not model.has_hidden
        self.generator = torch.Generator(device_of(model)).manual_seed(0)
        allow_recurrent_gradients(self.model)
        if model.samples_vocabulary and not self.exact:
            # Without gradients a sampled softmax is exact in this mode too.
            self.model.train()
            self.model.use_sparse_gradients(lambda weight: True)

    def read(
        self, stream: TokenStream, max_tokens: int | None, scored: bool = True
    ) -> Iterator[tuple[HiddenPart, Sequence[Tensor]]]:
        """Yield each segment of a stream with its gradients; the caller may change the weights in between.

        Args:
            stream: one split.
            max_tokens: number of tokens to read from the start; None for all.
            scored: whether the nll of the parts is needed; if not, it may be that of the gradients.
        """
        if len(stream) == 0:
            raise LinguistError(f"{stream.split}: the split is empty; there is nothing to score")
        length = len(stream) if max_tokens is None else min(max_tokens, len(stream))
        state = self.model.initial_state(1)
        for start in range(0, length, self.segment):
            part, gradients, state = self._segment(stream, start, min(start + self.segment, length), state, scored)
            yield part, gradients

    @torch.enable_grad()
    def _segment(
        self, stream: TokenStream, start: int, end: int, state: State, scored: bool
    ) -> tuple[HiddenPart, Sequence[Tensor], State]:
        """Return the tokens start..end, their gradients, and the new state.

        They are read from the carried state, or in the window that ends with them.
        """
        device, window = device_of(self.model), self.model.context_length
        begin = max(0, end - window) if window else start
        tokens, targets = (ids[None].to(device) for ids in shifted(stream, begin, end))
        if window:
            state = self.model.initial_state(1)
        if not self.model.has_hidden:
            nll, new_state = self.model.nll(tokens, targets, state)
            nll, targets = nll[:, start - begin :], targets[:, start - begin :]
            hidden, loss = nll.new_empty(*nll.shape, 0), nll.mean()
        else:
            hidden, new_state = self.model.hidden(tokens, state)
            hidden, targets = hidden[:, start - begin :], targets[:, start - begin :]
            nll, loss = self._losses(hidden, targets, scored)
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
        part = HiddenPart(nll[0].detach(), hidden[0].detach(), targets[0])
        return part, gradients, state if window else detach_state(new_state)

    def _losses(self, hidden: Tensor, targets: Tensor, scored: bool) -> tuple[Tensor, Tensor]:
        """Return the nll [1, T] and the loss to learn from."""
        if self.model.training:
            self.model.draw_sample(targets, self.generator, hidden.detach())
        nll = self.model.hidden_nll(hidden, targets)
        loss = nll.mean()
        if scored and self.model.training:
            with torch.no_grad():
                nll = self.model.hidden_nll(hidden, targets)
        return nll, loss


class _Mover:
    """Moves one weight by the rule above, or some rows of it if its gradient is sparse."""

    def __init__(self, weight: Tensor, rms: Tensor, typical: float, settings: DynamicSettings) -> None:
        self._weight, self._trained = weight, weight.detach().clone()
        self._steps = -settings.learning_rate / (rms + EPSILON)
        # At most 1: never past the trained value.
        self._pulls = (settings.decay * rms / max(typical, 1e-12)).clamp(max=1.0)
        self._moves = 0
        self._moved = torch.zeros(len(weight), dtype=rms.dtype, device=weight.device)

    @torch.no_grad()
    def move(self, gradient: Tensor) -> None:
        """Move the weight by a gradient, dense or of some rows."""
        self._moves += 1
        if not gradient.is_sparse:
            self._weight.lerp_(self._trained, self._pulls).addcmul_(gradient, self._steps)
            return
        rows, values = _rows(gradient)
        missed = self._moves - self._moved[rows]
        pulls = (self._pulls[rows] * missed[:, None]).clamp(max=1.0)
        moved = self._weight[rows].lerp_(self._trained[rows], pulls).addcmul_(values, self._steps[rows])
        self._weight[rows] = moved
        self._moved[rows] = self._moves


def _rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of a sparse gradient and their values, each row once."""
    gradient = gradient.coalesce()
    return gradient.indices()[0], gradient.values()
