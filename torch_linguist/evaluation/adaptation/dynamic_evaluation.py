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
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.data import TokenStream
from torch_linguist.errors import LinguistError
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
    """
    learner = _Learner(model, segment)
    squares = [torch.zeros_like(parameter) for parameter in learner.parameters]

    def collect(gradients: Sequence[Tensor]) -> None:
        torch._foreach_addcmul_(squares, list(gradients), list(gradients))

    nll = learner.read(train, max_tokens, collect)
    steps = -(-len(nll) // learner.segment)
    return [(square / steps).sqrt() for square in squares]


def dynamic_nll(
    model: LanguageModel,
    stream: TokenStream,
    settings: DynamicSettings,
    scale: Sequence[Tensor],
    *,
    max_tokens: int | None = None,
) -> NDArray[np.float64]:
    """Return the nll [N] of every token of a stream under a model that keeps learning.

    Args:
        model: a model with trainable weights. A copy learns; the model itself is not changed.
        stream: one split.
        settings: learning rate, decay and segment length.
        scale: result of `gradient_scale`.
        max_tokens: number of tokens to score from the start; None for all.

    Raises:
        LinguistError: the model has no trainable weights, the stream is empty, or a setting is out of range.
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

    @torch.no_grad()
    def learn(gradients: Sequence[Tensor]) -> None:
        away = torch._foreach_sub(trained, learner.parameters)
        torch._foreach_addcmul_(learner.parameters, list(gradients), steps)
        torch._foreach_addcmul_(learner.parameters, away, pulls)

    return learner.read(stream, max_tokens, learn)


def tune_dynamic(
    model: LanguageModel,
    valid: TokenStream,
    scale: Sequence[Tensor],
    *,
    segment: int = SEGMENT,
    max_tokens: int | None = None,
    learning_rates: Sequence[float] = LEARNING_RATES,
    decays: Sequence[float] = DECAYS,
) -> tuple[DynamicSettings, list[tuple[DynamicSettings, float]]]:
    """Try all pairs of learning rate and decay on the validation split.

    Args:
        model: see `dynamic_nll`.
        valid: the validation split.
        scale: result of `gradient_scale`.
        segment: tokens per step.
        max_tokens: number of tokens to use from the start of the split; None for all.
        learning_rates: learning rates to try.
        decays: decays to try.

    Returns:
        The settings with the lowest loss, and all settings with their loss in nats per token.
    """
    tried = []
    for rate, decay in itertools.product(learning_rates, decays):
        settings = DynamicSettings(rate, decay, segment)
        tried.append((settings, float(dynamic_nll(model, valid, settings, scale, max_tokens=max_tokens).mean())))
    return min(tried, key=lambda pair: pair[1])[0], tried


class _Learner:
    """A copy of a model that reads a stream segment by segment and passes on the gradient of each segment."""

    def __init__(self, model: LanguageModel, segment: int) -> None:
        if segment < 1:
            raise LinguistError(f"--segment={segment}: must be at least 1")
        self.model = copy.deepcopy(model).eval()
        self.parameters: list[Tensor] = [weight for weight in self.model.parameters() if weight.requires_grad]
        if not self.parameters:
            raise LinguistError(f"--dynamic: a {type(model).__name__} has no weights to train")
        self.segment = min(segment, max(1, model.context_length // 2)) if model.context_length else segment

    def read(
        self, stream: TokenStream, max_tokens: int | None, use: Callable[[Sequence[Tensor]], None]
    ) -> NDArray[np.float64]:
        """Return the nll [N] of a stream; `use` is called with the gradients after each segment."""
        if len(stream) == 0:
            raise LinguistError(f"{stream.split}: the split is empty; there is nothing to score")
        length = len(stream) if max_tokens is None else min(max_tokens, len(stream))
        parts: list[Tensor] = []
        state = self.model.initial_state(1)
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            for start in range(0, length, self.segment):
                nll, state = self._segment_nll(stream, start, min(start + self.segment, length), state)
                gradients = torch.autograd.grad(nll.mean(), self.parameters, allow_unused=True)
                parts.append(nll.detach())
                use([
                    torch.zeros_like(weight) if gradient is None else gradient
                    for weight, gradient in zip(self.parameters, gradients, strict=True)
                ])  # fmt: skip
        return torch.cat(parts).double().cpu().numpy()

    def _segment_nll(self, stream: TokenStream, start: int, end: int, state: State) -> tuple[Tensor, State]:
        """Return the nll of tokens start..end [T], from the carried state or from the window that ends there."""
        device = device_of(self.model)
        window = self.model.context_length
        begin = max(0, end - window) if window else start
        tokens, targets = shifted(stream, begin, end)
        if window:
            state = self.model.initial_state(1)
        nll, new_state = self.model.nll(tokens[None].to(device), targets[None].to(device), state)
        return nll[0, start - begin :], state if window else detach_state(new_state)
