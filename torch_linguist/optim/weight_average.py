"""Averages of the weights over the updates, which often score better than the last weights.

- `ema`: exponential moving average. Its decay is warmed up, min(decay, (1 + n) / (10 + n)) at the n-th update, so that
  the first weights are soon forgotten.
- `asgd`: plain mean (Polyak & Juditsky 1992), started when the validation loss has not improved for some validations,
  the trigger of NT-ASGD (Merity et al. 2018). Unlike there, any optimizer makes the updates and the learning rate
  follows its schedule.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from torch_linguist.model import LanguageModel

NOT_IMPROVED = 5
"""Validations without a better loss after which `asgd` starts, as in the paper."""


Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAverage:
    """Average of a model's weights over a training.

    Args:
        model: model in training; its weights are read by `update`.
        kind: `ema` or `asgd`.
        decay: weight of the past in `ema`.

    Example:
        >>> network = LSTM(100, embedding_dim=8, hidden_size=8)
        >>> average = WeightAverage(network, "ema", decay=0.99)
        >>> average.update()
    """

    def __init__(self, model: LanguageModel, kind: str, decay: float) -> None:
        self._model, self._kind, self._decay = model, kind, decay
        self._average = AveragedModel(model, multi_avg_fn=self._blend)
        self._started = kind == "ema"
        self._losses: list[float] = []

    @property
    def model(self) -> LanguageModel | None:
        """Model with the averaged weights; None before averaging starts."""
        if not self._started or not int(self._average.n_averaged):
            return None
        return cast(LanguageModel, self._average.module)

    def update(self) -> None:
        """Add the current weights to the average."""
        if self._started:
            self._average.update_parameters(self._model)

    def observe(self, loss: float) -> None:
        """Take note of a validation loss, which decides when `asgd` starts."""
        if self._kind == "asgd" and not self._started:
            earlier = self._losses[:-NOT_IMPROVED]
            self._started = bool(earlier) and loss > min(earlier)
            self._losses.append(loss)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain types and tensors."""
        return {"kind": self._kind, "started": self._started, "losses": self._losses, **self._average.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state_dict`; the state of another kind of average is ignored."""
        if state["kind"] != self._kind:
            return
        self._started, self._losses = bool(state["started"]), [float(loss) for loss in state["losses"]]
        tensors = {key: value for key, value in state.items() if key not in ("kind", "started", "losses")}
        self._average.load_state_dict(tensors)

    def _blend(self, averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        """Move the averaged weights toward the current ones; `count` weights are in the average so far."""
        done = int(count)
        decay = min(self._decay, (1 + done) / (10 + done)) if self._kind == "ema" else done / (done + 1)
        torch._foreach_lerp_(list(averaged), list(current), 1 - decay)
