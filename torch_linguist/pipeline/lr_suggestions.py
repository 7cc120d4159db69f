"""Suggestions of a learning rate on the curve of a range test: the four known methods.

Each method takes learning rates, ascending and evenly spaced in their logarithm, with the smoothed losses [n], and
returns an index or None. The definitions follow fastai's `callback/schedule.py`; differences are stated.
"""

import numpy as np

SLIDE_WINDOW = 15
SLIDE_THRESHOLD = 0.005


def suggest(method: str, rates: np.ndarray, losses: np.ndarray) -> float | None:
    """Return the learning rate that a method picks, or None.

    Args:
        method: `valley`, `steep`, `minimum` or `slide`.
        rates: learning rates [n].
        losses: smoothed losses [n], all finite.

    Raises:
        KeyError: there is no such method.
    """
    choose = METHODS[method]
    if len(rates) < 5 or losses.min() >= losses[0]:
        return None
    index = choose(rates, losses)
    if index is None:
        return None
    return float(rates[index]) / (10.0 if method == "minimum" else 1.0)


def _valley(rates: np.ndarray, losses: np.ndarray) -> int | None:
    """Return the middle of the longest decreasing subsequence. fastai assumes that it is contiguous; it need not be."""
    count = len(losses)
    lengths = np.ones(count, dtype=int)
    before = np.full(count, -1)
    for end in range(1, count):
        higher = np.flatnonzero(losses[:end] > losses[end])
        if len(higher):
            best = higher[np.argmax(lengths[higher])]
            lengths[end], before[end] = lengths[best] + 1, best
    position = int(np.argmax(lengths))
    chain = [position]
    while before[position] >= 0:
        position = int(before[position])
        chain.append(position)
    chain.reverse()
    return chain[len(chain) // 2] if len(chain) > 2 else None


def _steep(rates: np.ndarray, losses: np.ndarray) -> int | None:
    """Return the point where the loss falls fastest against the logarithm of the learning rate."""
    slope = np.gradient(losses, np.log(rates))
    index = int(np.argmin(slope))
    return index if slope[index] < 0 else None


def _minimum(rates: np.ndarray, losses: np.ndarray) -> int | None:
    """Return the point with the lowest loss; the caller divides the learning rate by ten."""
    return int(np.argmin(losses))


def _slide(rates: np.ndarray, losses: np.ndarray) -> int | None:
    """Slide a window in from the right until the slopes at its ends agree; return its left end."""
    slope = np.gradient(losses, np.log(rates))
    right, left = len(losses) - 1, len(losses) - 1 - SLIDE_WINDOW
    while left >= 0 and abs(slope[right] - slope[left]) > SLIDE_THRESHOLD:
        right, left = right - 1, left - 1
    return left if left >= 0 else None


METHODS = {"valley": _valley, "steep": _steep, "minimum": _minimum, "slide": _slide}
