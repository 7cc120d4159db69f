"""The order of the built-in stages: the one place that lists them. Imports nothing, so that `--help` stays fast."""

from collections.abc import Sequence

ORDER = ("check", "initialize", "overfit", "lr_find", "grid", "fit", "export")
"""Names of the built-in stages in the order in which they run."""

DEFAULT_STAGES = tuple(name for name in ORDER if name != "initialize")
"""Value of `stages` where the user sets none. `initialize` is added where a stage requires it."""


def in_order(names: Sequence[str]) -> list[str]:
    """Sort stage names: built-in stages as in `ORDER`, any other one right after the stage listed before it."""
    listed = list(dict.fromkeys(names))
    ordered = sorted((name for name in listed if name in ORDER), key=ORDER.index)
    for position, name in enumerate(listed):
        if name not in ORDER:
            ordered.insert(ordered.index(listed[position - 1]) + 1 if position else 0, name)
    return ordered
