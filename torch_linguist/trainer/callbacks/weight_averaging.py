"""Weight averaging: validate and keep the average of the weights in place of the weights themselves."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch_linguist.optim.weight_average import WeightAverage
from torch_linguist.trainer.callback import Callback

if TYPE_CHECKING:
    from torch_linguist.trainer.fit import Fit


class WeightAveraging(Callback):
    """Updates a weight average after each update; validations measure it, and `best.pt` holds it.

    Args:
        average: average of the weights of the model to train.
    """

    def __init__(self, average: WeightAverage) -> None:
        self._average = average

    def training_started(self, training: "Fit") -> None:
        training.evaluated_model = self._average.model or training.model

    def after_update(self, training: "Fit") -> None:
        if not training.state.skipped:
            self._average.update()
        training.evaluated_model = self._average.model or training.model

    def validated(self, training: "Fit", loss: float) -> None:
        self._average.observe(loss)

    def rolled_back(self, training: "Fit", saved: Mapping[str, Any]) -> None:
        self._average.load_state_dict(saved["callbacks"][type(self).__name__])

    def state_dict(self) -> dict[str, Any]:
        return self._average.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._average.load_state_dict(state)
