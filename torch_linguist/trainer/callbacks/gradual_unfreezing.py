"""Gradual unfreezing: layers join the training one after another, from the output down."""

from typing import TYPE_CHECKING

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

    def before_update(self, training: "Fit") -> None:
        groups = training.model.layer_groups()
        open_groups = 1 + training.state.step // self._every
        for depth, group in enumerate(reversed(groups)):
            for weight in group:
                weight.requires_grad_(depth < open_groups)

    def training_ended(self, training: "Fit") -> None:
        for weight in training.model.parameters():
            weight.requires_grad_()
