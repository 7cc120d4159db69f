"""Overrides with lists of values, expanded with Hydra's grammar to the points of a grid or the axes of a search."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from torch_linguist.config.catalog import Choice, find_groups
from torch_linguist.config.checking.node_checks import check_types
from torch_linguist.config.composition import compose_config
from torch_linguist.config.overrides import as_typed, is_text_key, parse_overrides, quoted
from torch_linguist.errors import ConfigError
from torch_linguist.sweep.outcomes import Point
from torch_linguist.sweep.search import Axis, Choices, Interval
from torch_linguist.sweep.sweep_settings import GridPoints, SearchSpace, SweepSettings, point_seeds

LARGEST = 10_000
"""Largest number of points of a grid; more is taken for a mistake."""


def plan_sweep(
    overrides: Sequence[str], config_dirs: Sequence[Path], settings: SweepSettings
) -> GridPoints | SearchSpace:
    """Return the points of a grid or the space of a search, every configuration checked.

    Args:
        overrides: overrides with lists of values, the sweep's own keys removed.
        config_dirs: folders whose groups are added.
        settings: settings of the sweep.

    Raises:
        ConfigError: an override is wrong, no combination of values can run, or, with `fail_fast`, one cannot.
    """
    overrides = _with_texts_quoted(overrides, config_dirs)
    if settings.sweep == "grid":
        return _plan_grid(overrides, config_dirs, settings)
    fixed, axes = search_space(overrides, find_groups(config_dirs))
    if settings.seeds > 1 and "seed" in {key.lstrip("+") for key in axes}:
        raise _seed_swept(settings.seeds)
    return SearchSpace(fixed, axes, _check_axes(fixed, axes, config_dirs))


def _plan_grid(overrides: Sequence[str], config_dirs: Sequence[Path], settings: SweepSettings) -> GridPoints:
    points = expand(overrides, find_groups(config_dirs))
    checked = [_check_point(point.overrides, config_dirs) for point in points]
    groups = [[point] for point in points]
    if settings.seeds > 1:
        groups = with_seeds(points, settings.seeds, [seed for _, seed in checked])
    refusals = [refusal for refusal, _ in checked]
    wrong = [refusal for refusal in refusals if refusal]
    if wrong and (len(wrong) == len(refusals) or not settings.goes_on):
        raise ConfigError(wrong[0])
    return GridPoints(groups, refusals)


def _check_point(overrides: Sequence[str], config_dirs: Sequence[Path]) -> tuple[str | None, int]:
    """Return the reason why a point cannot run, or None, and its seed."""
    try:
        config = check_types(compose_config(overrides, config_dirs).config)
    except ConfigError as error:
        return str(error), 1
    return None, int(config.seed)


def _check_axes(fixed: Sequence[str], axes: Mapping[str, Axis], config_dirs: Sequence[Path]) -> int:
    """Compose every example of each axis once, the other axes at their first example; return the seed.

    Raises:
        ConfigError: a key does not exist, or rejects a value.
    """
    first = {key: axis.examples[0] for key, axis in axes.items()}
    seed = 1
    for index, (key, axis) in enumerate(axes.items()):
        for value in axis.examples[1 if index else 0 :]:
            lines = [f"{name}={chosen}" for name, chosen in {**first, key: value}.items()]
            refusal, seed = _check_point([*fixed, *lines], config_dirs)
            if refusal:
                raise ConfigError(refusal)
    return seed


def _seed_swept(seeds: int) -> ConfigError:
    return ConfigError(f"seeds={seeds}: the seed is already swept; leave one of the two out")


def expand(overrides: Sequence[str], groups: Mapping[str, Mapping[str, Choice]]) -> list[Point]:
    """Return every combination of the values that the overrides list.

    Args:
        overrides: `key=a,b`, `key=range(1,5)`, `key=choice(a,b)`, `group=glob(*)` or a single value. The last of two
            overrides of one key counts, as in Hydra.
        groups: the groups and their choices, for `glob`.

    Returns:
        The points; the last key varies fastest.

    Raises:
        ConfigError: an override cannot be read, names an interval or no values, or there are too many points.
    """
    axes: dict[str, list[str]] = {}
    swept: list[str] = []
    for override in parse_overrides(overrides):
        key = override.get_key_element()
        if override.is_sweep_override():
            axes[key] = _values(override, groups)
            swept.append(key)
        else:
            axes[key] = [str(override.input_line)]
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
    """Return each point with several seeds.

    Args:
        points: points without swept seeds.
        seeds: number of seeds per point.
        first: first seed of each point; the others follow it.

    Returns:
        One list per point, with one point per seed.

    Raises:
        ConfigError: the seed is already swept.
    """
    if any("seed" in point.swept for point in points):
        raise _seed_swept(seeds)
    return [point_seeds(point, range(start, start + seeds)) for point, start in zip(points, first, strict=True)]


def search_space(
    overrides: Sequence[str], groups: Mapping[str, Mapping[str, Choice]]
) -> tuple[tuple[str, ...], dict[str, Axis]]:
    """Return the fixed overrides and the axes of a search.

    Args:
        overrides: as for `expand`, and `key=interval(low,high)`, also as `tag(log,interval(low,high))` and
            `int(interval(low,high))`.
        groups: the groups and their choices, for `glob`.

    Returns:
        The overrides with one value, and key (as written, `+` included) to axis.

    Raises:
        ConfigError: an override cannot be read or has no values, or no key has several.
    """
    fixed: dict[str, str] = {}
    axes: dict[str, Axis] = {}
    for override in parse_overrides(overrides):
        key = override.get_key_element()
        fixed.pop(key, None), axes.pop(key, None)
        if override.is_sweep_override():
            axes[key] = _axis(override, groups)
        else:
            fixed[key] = str(override.input_line)
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


def split_own(overrides: Sequence[str], own: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Separate the overrides of the sweep itself from those of its runs.

    Returns:
        Key to value of the sweep's own keys, and the other overrides unchanged.

    Raises:
        ConfigError: a key of the sweep has a list of values.
    """
    values: dict[str, Any] = {}
    others: list[str] = []
    for line, override in zip(overrides, parse_overrides(overrides), strict=True):
        if override.key_or_group not in own:
            others.append(line)
        elif override.is_sweep_override():
            raise ConfigError(f"{line}: takes a single value, since it applies to the whole sweep")
        else:
            (typed,) = parse_overrides([as_typed(override, own[override.key_or_group])])
            values[override.key_or_group] = typed.value()
    return values, others


def _values(override: Override, groups: Mapping[str, Mapping[str, Choice]]) -> list[str]:
    """Return the lines `key=value` of an override with several values."""
    key, line = override.get_key_element(), str(override.input_line)
    if not override.is_discrete_sweep():
        raise ConfigError(f"{line}: an interval cannot be listed; use a list, choice(...) or range(...), or sweep=tpe")
    raw = override.value()
    if isinstance(raw, Glob):
        if override.key_or_group not in groups:
            raise ConfigError(f"{line}: glob works on groups only: {', '.join(groups)}")
        values = raw.filter(list(groups[override.key_or_group]))
    else:
        try:
            values = list(override.sweep_string_iterator())
        except (HydraException, ValueError) as error:
            # Hydra itself lets the error of `range(0,1,0)` through.
            raise ConfigError(f"{line}: {' '.join(str(error).split())}") from error
    if not values:
        raise ConfigError(f"{line}: lists no value")
    return [f"{key}={value}" for value in dict.fromkeys(values)]


def _with_texts_quoted(overrides: Sequence[str], config_dirs: Sequence[Path]) -> list[str]:
    """Return the overrides with the numbers in lists of texts quoted.

    Hydra reads `data.path=2024_01_05,1e3` as the numbers 20240105 and 1000.0.
    """
    parsed = parse_overrides(overrides)
    listed = [override for override in parsed if override.is_discrete_sweep() and _holds_numbers(override)]
    if not listed:
        return list(overrides)
    groups = find_groups(config_dirs)
    first = [
        _values(override, groups)[0] if override.is_sweep_override() else line
        for line, override in zip(overrides, parsed, strict=True)
        if override.is_discrete_sweep() or not override.is_sweep_override()
    ]
    try:
        base = compose_config(first, config_dirs).config
    except ConfigError:
        # The points are checked one by one later, with an error for each.
        return list(overrides)
    return [
        _quoted_list(override) if override in listed and is_text_key(override.key_or_group, base) else line
        for line, override in zip(overrides, parsed, strict=True)
    ]


def _holds_numbers(override: Override) -> bool:
    raw = override.value()
    return isinstance(raw, ChoiceSweep) and any(type(value) in (int, float) for value in raw.list)


def _quoted_list(override: Override) -> str:
    """Return a list with its numbers quoted as typed; one with nested or quoted values stays as it is."""
    line = str(override.input_line)
    key, _, listed = line.partition("=")
    texts = [text.strip() for text in listed.strip().removeprefix("choice(").removesuffix(")").split(",")]
    raw: ChoiceSweep = override.value()  # type: ignore[assignment]
    if len(texts) != len(raw.list):
        return line
    values = [
        quoted(text) if type(value) in (int, float) else text for text, value in zip(texts, raw.list, strict=True)
    ]
    return f"{key}={','.join(values)}"
