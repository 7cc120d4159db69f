"""Temperature scaling at the end of a training: the logits of the best model get the scale that suits valid best.

A model that has read its text many times tends to be too sure of its predictions. Guo et al. (2017, "On calibration of
modern neural networks") divide all logits by one number, the temperature, and choose it on held-out data; the code of
the Mogrifier (Melis et al. 2020) does so for language models. Here the weights take up the factor, the inverse of the
temperature, so that scores, samples and exports need nothing new.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch_linguist.checkpoint.storage import copied_weights, load_model, read_checkpoint, save_checkpoint
from torch_linguist.distributed import processes
from torch_linguist.errors import require
from torch_linguist.evaluation import mean_nll
from torch_linguist.model import LanguageModel
from torch_linguist.trainer.callback import Callback
from torch_linguist.trainer.callbacks.checkpointing import BEST
from torch_linguist.trainer.callbacks.snapshots import trusted_packages

if TYPE_CHECKING:
    from torch_linguist.trainer.fit import Fit

STEP = 0.05
"""Distance of the factors that are tried, as a difference of logarithms."""

MOST_STEPS = 40
"""Largest number of steps from the factor 1: an end for the search where the loss falls on and on."""


class TemperatureScaling(Callback):
    """Multiplies the logits in `best.pt` by the factor with the lowest loss on the tokens that validations score.

    Args:
        folder: `checkpoints/` of the run.
        model: model to train.

    Raises:
        ConfigError: see `check_temperature_scaling`.
    """

    def __init__(self, folder: Path, model: LanguageModel) -> None:
        check_temperature_scaling(model, True)
        self._path = folder / BEST

    def training_ended(self, training: "Fit") -> None:
        if training.status != "finished" or not processes.is_main_process():
            return
        progress = read_checkpoint(self._path)["progress"]
        model = load_model(self._path, trusted_packages(training)).to(training.loop.device)
        weights = copied_weights(model)
        settings, score = training.context.settings, training.context.score
        measured = partial(
            mean_nll,
            stream=training.context.corpus.valid,
            max_tokens=settings.eval_tokens,
            chunk_length=score.chunk_length,
            stride=score.stride,
            precision=settings.precision,
        )

        def loss_at(factor: float) -> float:
            model.load_state_dict(weights)
            model.scale_logits(factor)
            return measured(model)

        factor, loss = best_factor(loss_at)
        perplexity = f"valid perplexity {math.exp(min(loss, 700)):.2f}"
        training.callbacks.noted(f"temperature scaling: best.pt has its logits times {factor:.3f}; {perplexity}")
        if factor != 1:
            model.load_state_dict(weights)
            model.scale_logits(factor)
            save_checkpoint(self._path, model, progress | {"best_loss": loss})
            training.state.best_loss = loss


def check_temperature_scaling(model: LanguageModel, enabled: bool) -> None:
    """Check that a model can scale its logits, if temperature scaling is enabled.

    Args:
        model: model to train, left as it is.
        enabled: whether its logits are scaled after the training.

    Raises:
        ConfigError: it cannot.
    """
    require(
        not enabled or model.is_counted or model.scale_logits(1.0),
        "trainer.temperature_scaling=true: no weights of this model scale its logits; leave it out, or set "
        "model.projection_size or model.tied=false, and model.num_softmaxes=1",
    )


def best_factor(loss_at: Callable[[float], float]) -> tuple[float, float]:
    """Return the factor of the logits with the lowest loss that was found, and that loss in nats per token.

    The loss is convex in the factor. The search walks from 1 in steps of 5% as long as the loss falls, then tries the
    vertex of the parabola through the last three points.

    Args:
        loss_at: called with a factor; returns the loss of the model with its logits multiplied by it.

    Example:
        >>> factor, loss = best_factor(lambda factor: (factor - 0.87) ** 2)
        >>> round(factor, 2)
        0.87
    """
    losses = {0.0: loss_at(1.0)}

    def at(place: float) -> float:
        if place not in losses:
            losses[place] = loss_at(math.exp(place * STEP))
        return losses[place]

    direction = -1 if at(-1) < at(0) else 1
    place = 0
    while abs(place) < MOST_STEPS and at(place + direction) < at(place):
        place += direction
    below, here, above = at(place - 1), at(place), at(place + 1)
    curvature = below - 2 * here + above
    if curvature > 0:
        at(place + (below - above) / (2 * curvature))
    best = min(losses, key=lambda tried: (losses[tried], abs(tried)))
    return math.exp(best * STEP), losses[best]
