"""Samples: continuations that the model writes during the training."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch_linguist.model import LanguageModel
from torch_linguist.trainer.callback import Callback

if TYPE_CHECKING:
    from torch_linguist.trainer.fit import Fit

Sampler = Callable[[LanguageModel], Sequence[tuple[str, str]]]
"""Returns pairs of prompt and continuation; leaves the random states unchanged."""


class Samples(Callback):
    """Samples continuations after every `every`-th validation.

    Args:
        sampler: function that samples from a model.
        every: number of validations.
    """

    def __init__(self, sampler: Sampler, every: int) -> None:
        self._sampler, self._every = sampler, every

    def validated(self, training: "Fit", loss: float) -> None:
        if training.state.validations % self._every == 0:
            training.callbacks.sampled(self._sampler(training.evaluated_model), training.state.step)
