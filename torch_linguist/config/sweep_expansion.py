"""From overrides with lists of values to the points of a grid, read with Hydra's own grammar."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from torch_linguist.config.catalog import Choice
from torch_linguist.config.composition import parse_overrides
from torch_linguist.errors import ConfigError
from torch_linguist.sweep.search import Axis, Choices, Interval

LARGEST = 10_000
"""Points that a grid may have; more is taken for a mistake."""


@dataclass(frozen=True)
class Point:
    """One combination of values.

    Attributes:
        overrides: as `tl-train` takes them.
        swept: key to value, as text, of the keys that differ between points.
    """

    overrides: tuple[str, ...]
    swept: Mapping[str, str]


def expand(overrides: Sequence[str], groups: Mapping[str, Mapping[str, Choice]]) -> list[Point]:
    """Every combination of the values that overrides list.

    Args:
        overrides: `key=a,b`, `key=range(1,5)`, `key=choice(a,b)`, `group=glob(*)` or a single value. Of two overrides
            of one key the later counts, as in Hydra.
        groups: the groups and their choices, for `glob`.

    Returns:
        The points; the last key varies fastest.

    Raises:
        ConfigError: an override cannot be read, names an interval, has no values, or there are too many points.
    """
    axes: dict[str, list[str]] = {}
    swept: list[str] = []
    for override in parse_overrides(overrides):
        key = override.get_key_element()
        if override.is_sweep_override():
            axes[key] = _values(override, groups)
            swept.append(key)
        elif override.is_delete():
            axes[key] = [str(override.input_line)]
        else:
            axes[key] = [f"{key}={override.get_value_element_as_str()}"]
    count = 1
    for key, lines in axes.items():
        count *= len(lines)
        if count > LARGEST:
            raise ConfigError(f"{key}: makes a grid of more than {LARGEST:,} runs; list fewer values")
    points = []
    for combination in itertools.product(*axes.values()):
        chosen = dict(zip(axes, combination, strict=True))
        values = {key.lstrip("+"): chosen[key].partition("=")[2] for key in axes if key in swept}
        points.append(Point(tuple(combination), values))
    return points


def with_seeds(points: Sequence[Point], seeds: int, first: Sequence[int]) -> list[list[Point]]:
    """Each point with several seeds.

    Args:
        points: without seeds of their own.
        seeds: how many each point gets.
        first: the first seed of each point; the others follow it.

    Returns:
        For each point its points, one a seed.

    Raises:
        ConfigError: the seed is swept already.
    """
    if any("seed" in point.swept for point in points):
        raise ConfigError(f"seeds={seeds}: the seed is swept already; leave one of the two out")
    return [
        [
            Point(
                (*(line for line in point.overrides if line.partition("=")[0].lstrip("+") != "seed"), f"seed={seed}"),
                {**point.swept, "seed": str(seed)},
            )
            for seed in range(start, start + seeds)
        ]
        for point, start in zip(points, first, strict=True)
    ]


def search_space(
    overrides: Sequence[str], groups: Mapping[str, Mapping[str, Choice]]
) -> tuple[tuple[str, ...], dict[str, Axis]]:
    """The axes of a search, and the overrides that stay.

    Args:
        overrides: as `expand` takes them, and `key=interval(low,high)`, also as `tag(log,interval(low,high))` and
            `int(interval(low,high))`.
        groups: the groups and their choices, for `glob`.

    Returns:
        The overrides with one value, and key (as written, `+` included) to axis.

    Raises:
        ConfigError: an override cannot be read or has no values, or none has several.
    """
    fixed: dict[str, str] = {}
    axes: dict[str, Axis] = {}
    for override in parse_overrides(overrides):
        key = override.get_key_element()
        fixed.pop(key, None), axes.pop(key, None)
        if override.is_sweep_override():
            axes[key] = _axis(override, groups)
        elif override.is_delete():
            fixed[key] = str(override.input_line)
        else:
            fixed[key] = f"{key}={override.get_value_element_as_str()}"
    if not axes:
        raise ConfigError("nothing to search: give a key several values, such as optim.lr=tag(log,interval(1e-4,1e-2))")
    return tuple(fixed.values()), axes


def _axis(override: Override, groups: Mapping[str, Mapping[str, Choice]]) -> Axis:
    raw, line = override.value(), str(override.input_line)
    if isinstance(raw, IntervalSweep):
        low, high = raw.start, raw.end
        if low is None or high is None:
            raise ConfigError(f"{line}: an interval has two ends")
        whole = isinstance(low, int) and isinstance(high, int)
        try:
            return Interval(float(low), float(high), log="log" in raw.tags, whole=whole)
        except ConfigError as error:
            raise ConfigError(f"{line}: {error}") from None
    values = tuple(one.partition("=")[2] for one in _values(override, groups))
    if isinstance(raw, RangeSweep) and isinstance(raw.start, int) and isinstance(raw.step, int) and len(values) > 1:
        numbers = sorted(map(int, values))
        return Interval(numbers[0], numbers[-1], step=numbers[1] - numbers[0], whole=True)
    return Choices(values)


def split_own(overrides: Sequence[str], own: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Takes out the overrides whose keys are the sweep's own.

    Args:
        overrides: all of them.
        own: keys such as `jobs`.

    Returns:
        Own key to value, and the other overrides as they are.

    Raises:
        ConfigError: an own key has a list of values.
    """
    values: dict[str, Any] = {}
    others: list[str] = []
    for line, override in zip(overrides, parse_overrides(overrides), strict=True):
        if override.key_or_group not in own:
            others.append(line)
        elif override.is_sweep_override():
            raise ConfigError(f"{line}: takes one value; it belongs to the grid as a whole")
        else:
            values[override.key_or_group] = override.value()
    return values, others


def _values(override: Override, groups: Mapping[str, Mapping[str, Choice]]) -> list[str]:
    """The lines `key=value` of an override with several values."""
    key, line = override.get_key_element(), str(override.input_line)
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{line}: an interval has no single values; use a list, choice(...) or range(...), or sweep=tpe"
        )
    raw = override.value()
    if isinstance(raw, Glob):
        if override.key_or_group not in groups:
            raise ConfigError(f"{line}: glob works on groups only: {', '.join(groups)}")
        values = raw.filter(list(groups[override.key_or_group]))
    else:
        try:
            values = list(override.sweep_string_iterator())
        except HydraException as error:
            raise ConfigError(f"{line}: {' '.join(str(error).split())}") from error
    if not values:
        raise ConfigError(f"{line}: lists no value")
    return [f"{key}={value}" for value in dict.fromkeys(values)]


__all__ = ["LARGEST", "Point", "expand", "search_space", "split_own", "with_seeds"]
