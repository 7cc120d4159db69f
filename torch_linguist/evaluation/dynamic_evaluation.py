"""Dynamic evaluation: a model goes on learning from the text that it is scored on, each token scored before.

Krause et al. 2018, "Dynamic Evaluation of Neural Sequence Models": after each segment has been scored, one step of
gradient descent on its loss, divided by the root mean square of the gradients in training, with a pull back to the
trained weights. It differs from the paper in that the divisor is raised by its own mean in each tensor instead of a
tiny constant, which keeps words that the sample of the training text lacks from taking huge steps.

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
    """How a model learns from what it was scored on.

    Attributes:
        learning_rate: length of a step, where the gradient is as large as it was in training.
        decay: share of the way back to the trained weights that a typical weight goes at each step.
        segment: tokens that are scored before each step.
    """

    learning_rate: float
    decay: float
    segment: int = SEGMENT


def gradient_scale(
    model: LanguageModel, train: TokenStream, *, segment: int = SEGMENT, max_tokens: int = 20_000
) -> list[Tensor]:
    """Root mean square of the gradients over segments of the training split, one tensor a parameter.

    Args:
        model: has parameters; it is left as it was.
        train: the training split.
        segment: tokens a gradient.
        max_tokens: only so many of the split.

    Raises:
        LinguistError: the model has nothing to train.
    """
    learner = _Learner(model, segment)
    squares = [torch.zeros_like(parameter) for parameter in learner.parameters]

    def collect(gradients: Sequence[Tensor]) -> None:
        torch._foreach_addcmul_(squares, list(gradients), list(gradients))

    nll = learner.read(train, max_tokens, collect)
    steps = -(-len(nll) // segment)
    return [(square / steps).sqrt() for square in squares]


def dynamic_nll(
    model: LanguageModel,
    stream: TokenStream,
    settings: DynamicSettings,
    scale: Sequence[Tensor],
    *,
    max_tokens: int | None = None,
) -> NDArray[np.float64]:
    """The nll [N] of every token of a stream under a model that learns as it goes.

    Args:
        model: any with parameters; a copy of it learns, it is left as it was.
        stream: one split.
        settings: of the learning.
        scale: from `gradient_scale`.
        max_tokens: only so many of the stream; None for all.

    Raises:
        LinguistError: the model has nothing to train, the stream is empty, or a setting is out of its range.
    """
    if settings.learning_rate < 0 or settings.decay < 0:
        raise LinguistError(f"{settings}: neither the learning rate nor the decay may be negative")
    learner = _Learner(model, settings.segment)
    with torch.no_grad():
        trained = [parameter.clone() for parameter in learner.parameters]
        overall = sum(float(rms.sum()) for rms in scale) / sum(rms.numel() for rms in scale)
        steps = [-settings.learning_rate / (rms + rms.mean()).clamp(min=1e-12) for rms in scale]
        # Never past the trained weight.
        pulls = [(settings.decay * rms / max(overall, 1e-12)).clamp(max=1.0) for rms in scale]

    @torch.no_grad()
    def learn(gradients: Sequence[Tensor]) -> None:
        torch._foreach_addcmul_(learner.parameters, list(gradients), steps)
        away = torch._foreach_sub(trained, learner.parameters)
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
    """The learning rate and the decay with the least loss on the validation split, by trying all.

    Args:
        model: see `dynamic_nll`.
        valid: the validation split.
        scale: from `gradient_scale`.
        segment: tokens a step.
        max_tokens: only so many of the split.
        learning_rates: tried.
        decays: tried.

    Returns:
        The best settings, and every one with its loss in nats per token.
    """
    tried = []
    for rate, decay in itertools.product(learning_rates, decays):
        settings = DynamicSettings(rate, decay, segment)
        tried.append((settings, float(dynamic_nll(model, valid, settings, scale, max_tokens=max_tokens).mean())))
    return min(tried, key=lambda pair: pair[1])[0], tried


class _Learner:
    """A copy of a model that reads a stream segment by segment and hands out the gradient of each."""

    def __init__(self, model: LanguageModel, segment: int) -> None:
        if segment < 1:
            raise LinguistError(f"--segment={segment}: must be at least 1")
        self.model = copy.deepcopy(model).eval()
        self.parameters: list[Tensor] = [weight for weight in self.model.parameters() if weight.requires_grad]
        if not self.parameters:
            raise LinguistError(f"--dynamic: a {type(model).__name__} has no weights that could go on learning")
        self.segment = min(segment, model.context_length) if model.context_length else segment

    def read(
        self, stream: TokenStream, max_tokens: int | None, use: Callable[[Sequence[Tensor]], None]
    ) -> NDArray[np.float64]:
        """The nll [N] of a stream; `use` is given the gradients after each segment."""
        if len(stream) == 0:
            raise LinguistError(f"{stream.split}: the split holds no tokens, there is nothing to score")
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
        """The nll of tokens start..end, [T]: by the state carried, or by the window that ends there."""
        device = device_of(self.model)
        window = self.model.context_length
        begin = max(0, end - window) if window else start
        tokens, targets = shifted(stream, begin, end)
        if window:
            state = self.model.initial_state(1)
        nll, new_state = self.model.nll(tokens[None].to(device), targets[None].to(device), state)
        return nll[0, start - begin :], state if window else detach_state(new_state)


__all__ = ["DynamicSettings", "dynamic_nll", "gradient_scale", "tune_dynamic"]
