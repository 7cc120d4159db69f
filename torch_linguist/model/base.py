"""The one contract that every language model obeys, from the n-gram to the Transformer.

Shape legend, used in every module of this package:
    B batch, T time, V vocabulary, D embedding, H hidden, L layers, N = B * T.
"""

import functools
import inspect
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

State = list[Tensor]
"""What a model remembers between calls. The batch lies on axis 1 of each tensor."""


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    """Wraps a constructor so that the outermost call's arguments are kept for the checkpoint."""

    @functools.wraps(init)
    def wrapper(self: "LanguageModel", *args: Any, **kwargs: Any) -> None:
        if not hasattr(self, "arguments"):
            bound = inspect.signature(init).bind(self, *args, **kwargs)
            bound.apply_defaults()
            recorded = dict(bound.arguments)
            recorded.pop("self")
            object.__setattr__(self, "arguments", recorded)
        init(self, *args, **kwargs)

    return wrapper


class LanguageModel(nn.Module, ABC):
    """Batches of token ids in, next-token log-probabilities out, with an explicit state between calls.

    Training, scoring, slices, sensitivity, mixing, generation and export use nothing else of a model. A new model
    implements `forward`, `nll` and `initial_state`; its constructor takes plain arguments (numbers, strings, lists),
    which are recorded in `arguments` so that a checkpoint can build it again.

    Attributes:
        vocab_size: number of token types V.
        context_length: how many tokens back a prediction can see, 0 for a state without such a bound (recurrent).
        arguments: the plain arguments that the constructor was called with.
    """

    vocab_size: int
    context_length: int = 0
    arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]

    @abstractmethod
    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Predicts the token after each given one.

        Args:
            tokens: ids, int64 [B, T].
            state: from `initial_state` or an earlier call.

        Returns:
            Unnormalised log-probabilities (logits) [B, T, V], and the state after the last token.
        """

    @abstractmethod
    def nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Negative log-likelihood of the targets: the path of training and scoring.

        It equals the cross-entropy of `forward`'s logits, and never holds [N, V] in float32.

        Args:
            tokens: ids, int64 [B, T].
            targets: the id that follows each token, int64 [B, T].
            state: from `initial_state` or an earlier call.

        Returns:
            nll in nats, float32 (or float64) [B, T], and the state after the last token.
        """

    @abstractmethod
    def initial_state(self, batch_size: int) -> list[Tensor]:
        """The state before any token.

        Args:
            batch_size: B.

        Returns:
            The state, B on axis 1 of each tensor.
        """

    def prepare_vocabulary(self, token_counts: Tensor) -> None:
        """Told once, before training, how often each token occurs in the training split.

        A model that orders its vocabulary by frequency (the adaptive softmax) keeps that order in a buffer; others
        ignore it.

        Args:
            token_counts: int64 [V].
        """

    def start_at_unigram(self, token_counts: Tensor) -> None:
        """Told once, between the check of the untrained model and its training, to predict each token by its frequency.

        A model whose output has a bias puts the logarithms of the frequencies there, which spares it the first hundreds
        of updates; others ignore it.

        Args:
            token_counts: int64 [V], of the training split.
        """

    def num_parameters(self) -> int:
        """Number of trainable parameters, a tied weight counted once."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)


class CountedModel(LanguageModel):
    """A model that is fitted by counting, in one pass, instead of by gradients: it has no learning rate to find."""

    @abstractmethod
    def fit_counts(self, ids: NDArray[np.unsignedinteger], eos_id: int) -> None:
        """Counts a stream and estimates the model from it.

        Args:
            ids: token ids [N], perhaps memory-mapped.
            eos_id: what the first token is predicted from.
        """


def device_of(model: LanguageModel) -> torch.device:
    """Where a model's weights (or counts) lie; the CPU for one that has none."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """The model in eval mode, and afterwards in the mode it was in."""
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)


def detach_state(state: State) -> State:
    """The same state without its gradient history: where back-propagation through time is cut."""
    return [tensor.detach() for tensor in state]


__all__ = ["CountedModel", "LanguageModel", "State", "detach_state", "device_of", "evaluating"]
