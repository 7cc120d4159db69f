"""Gradual unfreezing: layers join the training one after another, from the output down."""

from typing import TYPE_CHECKING

from torch import nn

from torch_linguist.trainer.callback import Callback

if TYPE_CHECKING:
    from torch_linguist.trainer.fit import Fit


class GradualUnfreezing(Callback):
    """Trains the layer nearest the output first, then one more layer every `every` updates.

    A model that was trained on another text so forgets less of it (Howard & Ruder 2018, "Universal Language Model
    Fine-tuning for Text Classification", who count epochs instead of updates). What is trained follows from the number
    of the update, so that a resumed training needs no state. A layer whose weights the output shares is trained from
    the start.

    Args:
        every: updates between two layers.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._groups: list[list[nn.Parameter]] = []

    def training_started(self, training: "Fit") -> None:
        # A weight that is never trained, such as frozen word vectors, stays frozen.
        groups = training.model.layer_groups()
        self._groups = [[weight for weight in group if weight.requires_grad] for group in reversed(groups)]

    def before_update(self, training: "Fit") -> None:
        trained = 1 + training.state.step // self._every
        for depth, group in enumerate(self._groups):
            for weight in group:
                weight.requires_grad_(depth < trained)

    def training_ended(self, training: "Fit") -> None:
        for group in self._groups:
            for weight in group:
                weight.requires_grad_()
