"""Types of the options of commands: numbers with a range, and paths that may begin with `~`."""

import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

LARGEST_COUNT = 10**9
LARGEST_SEED = 2**63 - 1


def whole_number(least: int = 1, most: int = LARGEST_COUNT) -> Callable[[str], int]:
    """Return a function that reads a whole number in a range, both ends included."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ArgumentTypeError(f"{text}: not a whole number; must be between {least} and {most:,}") from None
        if not least <= value <= most:
            raise ArgumentTypeError(f"{text}: must be between {least} and {most:,}")
        return value

    return read


def number(least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf) -> Callable[[str], float]:
    """Return a function that reads a finite number in a range.

    Args:
        least: smallest value.
        most: largest value.
        above: number that the value must exceed.
    """
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("at least", least), ("greater than", above), ("at most", most))
        if math.isfinite(bound)
    ]
    expected = " ".join(["a finite number", " and ".join(bounds)]).strip()

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ArgumentTypeError(f"{text}: not a number; must be {expected}") from None
        if not (math.isfinite(value) and least <= value <= most and value > above):
            raise ArgumentTypeError(f"{text}: must be {expected}")
        return value

    return read


def path(text: str) -> Path:
    """Return a path; `~` is the home folder, also in `--option=~/file`, which shells leave as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ArgumentTypeError(f"{text}: there is no home folder; write the whole path") from None
