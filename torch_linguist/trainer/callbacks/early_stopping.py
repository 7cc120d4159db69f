"""Early stopping: end a training whose validation loss no longer improves."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch_linguist.trainer.callback import Callback

if TYPE_CHECKING:
    from torch_linguist.trainer.fit import Fit


class EarlyStopping(Callback):
    """Ends the training after `patience` validations without a better loss.

    Args:
        patience: number of validations; None never ends the training.
    """

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self._waited = 0

    def training_started(self, training: "Fit") -> None:
        self._check(training)

    def validated(self, training: "Fit", loss: float) -> None:
        self._waited = 0 if training.state.best_step == training.state.step else self._waited + 1
        self._check(training)

    def _check(self, training: "Fit") -> None:
        if self._patience is not None and self._waited >= self._patience:
            training.end(f"no better validation loss in {self._waited} validations")

    def state_dict(self) -> dict[str, Any]:
        return {"waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._waited = int(state["waited"])
