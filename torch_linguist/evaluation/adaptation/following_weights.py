"""Weights of a mixture that follow the text: after each token they move towards the forms that predicted it well.

Herbster & Warmuth 1998, "Tracking the Best Expert" (fixed share). Two things differ: what is shared goes back to the
fitted weights, in proportion to them, instead of to all forms alike; and the predictions count to a power.

Shape legend: K forms, N tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torch_linguist.errors import LinguistError

POWERS = (1.0, 0.5, 0.2)
SHARES = (0.3, 0.1, 0.03)


@dataclass(frozen=True)
class FollowingSettings:
    """How fast the weights of a mixture follow the text.

    Attributes:
        power: power of the probabilities that the weights are multiplied by.
        share: share of each weight that returns to the fitted one after each token; 1 keeps the fitted weights.

    Example:
        >>> FollowingSettings(power=0.5, share=0.3).share
        0.3
    """

    power: float = 1.0
    share: float = 1.0


def following_nll(
    nll: Sequence[NDArray[np.float64]], weights: Sequence[float], settings: FollowingSettings
) -> NDArray[np.float64]:
    """Return the nll [N] of a mixture whose weights follow the text; each token is scored before it moves them.

    Args:
        nll: nll [N] of each of K forms.
        weights: fitted weights, K numbers that add up to one.
        settings: how fast the weights move.

    Raises:
        LinguistError: the share is not between 0 and 1, or the power is negative.

    Example:
        >>> nll = [np.array([0.5, 4.0, 4.0]), np.array([3.0, 1.0, 1.0])]
        >>> following_nll(nll, [0.5, 0.5], FollowingSettings(power=1.0, share=0.1)).round(2)
        array([1.11, 2.82, 1.33])
    """
    if not 0 <= settings.share <= 1 or settings.power < 0:
        raise LinguistError(f"{settings}: the share must be between 0 and 1, the power at least 0")
    log_probabilities = -np.stack(nll, axis=1)
    with np.errstate(divide="ignore"):
        kept, shared = np.log(1 - settings.share), np.log(np.asarray(weights)) + np.log(settings.share)
        log_weights = np.log(np.asarray(weights))
    mixed = np.empty(len(log_probabilities))
    for token, row in enumerate(log_probabilities):
        mixed[token] = np.logaddexp.reduce(log_weights + row)
        moved = log_weights + settings.power * row
        log_weights = np.logaddexp(kept + moved - np.logaddexp.reduce(moved), shared)
    return -mixed


def tune_following(nll: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> FollowingSettings:
    """Return the settings with the lowest loss among fixed weights and all pairs of `POWERS` and `SHARES`.

    Args:
        nll: nll [N] of each of K forms on the text to tune on.
        weights: fitted weights, K numbers that add up to one.

    Example:
        >>> nll = [np.repeat([0.5, 4.0], 50), np.repeat([3.0, 1.0], 50)]
        >>> tune_following(nll, [0.5, 0.5])
        FollowingSettings(power=1.0, share=0.03)
    """
    tried = [FollowingSettings(), *(FollowingSettings(power, share) for power in POWERS for share in SHARES)]
    return min(tried, key=lambda settings: float(following_nll(nll, weights, settings).mean()))
