"""Dynamic evaluation: the model keeps learning from the text it is scored on; each token is scored before it is used.

Krause et al. 2018, "Dynamic Evaluation of Neural Sequence Models", in its RMS form. After a segment has been scored,
each weight moves by

    decay * min(d, 1 / decay) * (trained - weight) - learning_rate * gradient / (m + e)

where m is the root mean square of its gradients on the training split, and d is m divided by the mean over all tensors
of their mean m. Both terms use the weight before the step, as in the authors' code. Differences from that code: e is
the mean of m in each tensor instead of a small constant, which keeps words absent from the sample of the training text
from taking huge steps; and m is measured on single segments read in order instead of batches of 100.

Shape legend: T time, N tokens of the stream.
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

LEARNING_RATES = (3e-5, 1e-4, 3e-4, 1e-3)
DECAYS = (0.001, 0.01)
SEGMENT = 64


@dataclass(frozen=True)
class DynamicSettings:
    """Settings of dynamic evaluation.

    Attributes:
        learning_rate: step size of a weight whose gradient is as large as in training.
        decay: share of the distance to its trained value that a typical weight moves back at each step.
        segment: tokens scored before each step. Models with a bounded context use at most half of it, so that every
            token sees at least half a context.

    Example:
        >>> DynamicSettings(learning_rate=1e-4, decay=0.001).segment
        64
    """

    learning_rate: float
    decay: float
    segment: int = SEGMENT


def gradient_scale(
    model: LanguageModel, train: TokenStream, *, segment: int = SEGMENT, max_tokens: int = 20_000
) -> list[Tensor]:
    """Return the root mean square of the gradients over segments of the training split, one tensor per parameter.

    Args:
        model: a model with trainable weights, which are not changed.
        train: the training split.
        segment: tokens per gradient.
        max_tokens: number of tokens to use from the start of the split.

    Raises:
        LinguistError: the model has no trainable weights.

    Example:
        >>> network = GRU(corpus.tokenizer.vocab_size, embedding_dim=4, hidden_size=8)
        >>> scale = gradient_scale(network, corpus.train)
        >>> [part.shape for part in scale] == [weight.shape for weight in network.parameters()]
        True
    """
    learner = _Learner(model, segment)
    squares = [torch.zeros_like(parameter) for parameter in learner.parameters]
    count = 0
    for _, gradients in learner.read(train, max_tokens):
        torch._foreach_addcmul_(squares, list(gradients), list(gradients))
        count += 1
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
    learner = _Learner(model, settings.segment)
    with torch.no_grad():
        trained = [parameter.clone() for parameter in learner.parameters]
        typical = sum(float(rms.mean()) for rms in scale) / len(scale)
        steps = [-settings.learning_rate / (rms + rms.mean()).clamp(min=1e-12) for rms in scale]
        # At most 1: never past the trained value.
        pulls = [(settings.decay * rms / max(typical, 1e-12)).clamp(max=1.0) for rms in scale]
    for part, gradients in learner.read(stream, max_tokens):
        with torch.no_grad():
            torch._foreach_lerp_(learner.parameters, trained, pulls)
            torch._foreach_addcmul_(learner.parameters, list(gradients), steps)
        yield part


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
        tried[settings] = float(dynamic_nll(model, valid, settings, scale, max_tokens=max_tokens).mean())
        progress(len(tried) / (len(learning_rates) + len(decays) - 1))

    for rate in learning_rates:
        measure(rate, decays[0])
    best_rate = min(tried, key=tried.__getitem__).learning_rate
    for decay in decays[1:]:
        measure(best_rate, decay)
    return min(tried, key=tried.__getitem__), list(tried.items())


class _Learner:
    """A copy of a model that reads a stream segment by segment and returns the gradient of each segment."""

    def __init__(self, model: LanguageModel, segment: int) -> None:
        if segment < 1:
            raise LinguistError(f"--segment={segment}: must be at least 1")
        self.model = copy.deepcopy(model).eval()
        self.parameters: list[Tensor] = [weight for weight in self.model.parameters() if weight.requires_grad]
        if not self.parameters:
            raise LinguistError(f"--dynamic: a {type(model).__name__} has no weights to train")
        self.segment = min(segment, max(1, model.context_length // 2)) if model.context_length else segment

    def read(self, stream: TokenStream, max_tokens: int | None) -> Iterator[tuple[HiddenPart, Sequence[Tensor]]]:
        """Yield each segment of a stream with its gradients; the caller may change the weights in between."""
        if len(stream) == 0:
            raise LinguistError(f"{stream.split}: the split is empty; there is nothing to score")
        length = len(stream) if max_tokens is None else min(max_tokens, len(stream))
        state = self.model.initial_state(1)
        for start in range(0, length, self.segment):
            part, gradients, state = self._segment(stream, start, min(start + self.segment, length), state)
            yield part, gradients

    @torch.enable_grad()
    def _segment(
        self, stream: TokenStream, start: int, end: int, state: State
    ) -> tuple[HiddenPart, Sequence[Tensor], State]:
        """Return the tokens start..end, their gradients, and the new state.

        They are read from the carried state, or in the window that ends with them.
        """
        device, window = device_of(self.model), self.model.context_length
        begin = max(0, end - window) if window else start
        tokens, targets = (ids[None].to(device) for ids in shifted(stream, begin, end))
        if window:
            state = self.model.initial_state(1)
        with torch.backends.cudnn.flags(enabled=False):
            if self.model.has_hidden:
                hidden, new_state = self.model.hidden(tokens, state)
                nll = self.model.hidden_nll(hidden, targets)
            else:
                nll, new_state = self.model.nll(tokens, targets, state)
                hidden = nll.new_empty(*nll.shape, 0)
            nll = nll[0, start - begin :]
            gradients = torch.autograd.grad(nll.mean(), self.parameters, allow_unused=True, materialize_grads=True)
        part = HiddenPart(nll.detach(), hidden[0, start - begin :].detach(), targets[0, start - begin :])
        return part, gradients, state if window else detach_state(new_state)
