"""What a sweep is made of: its settings, its points or search space, and the program that makes a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch_linguist.errors import ConfigError
from torch_linguist.sweep.launchers import LAUNCHERS
from torch_linguist.sweep.outcomes import Point
from torch_linguist.sweep.search import SEARCHES, Axis


@dataclass(frozen=True)
class SweepSettings:
    """Settings of a sweep as a whole.

    Attributes:
        name: name of the sweep's folder; None generates one.
        output_dir: parent of that folder.
        jobs: number of runs at a time.
        cores: CPU cores of each run; None divides this machine's cores among the jobs.
        keep_going: whether the other runs continue when one fails.
        fail_fast: whether the first failure ends the sweep; overrides `keep_going`.
        retry_failed: whether a sweep that is started again repeats failed runs.
        seeds: number of seeds of every point.
        sweep: `grid`, `random` or `tpe`.
        trials: number of points of a search.
        sweep_seed: random seed of a search.
        prune: whether a search stops runs that are losing.
        launcher: where the runs are carried out; one of `LAUNCHERS`.
        launcher_options: options of the launcher.

    Example:
        >>> SweepSettings(jobs=2, keep_going=False).goes_on
        False
    """

    name: str | None = None
    output_dir: str = "outputs"
    jobs: int = 1
    cores: int | None = None
    keep_going: bool = True
    fail_fast: bool = False
    retry_failed: bool = False
    seeds: int = 1
    sweep: str = "grid"
    trials: int = 20
    sweep_seed: int = 1
    prune: bool = False
    launcher: str = "local"
    launcher_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("jobs", "cores", "seeds", "trials"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"{key}={value}: must be at least 1")
        kinds = ("grid", *SEARCHES)
        if self.sweep not in kinds:
            raise ConfigError(f"sweep={self.sweep}: must be one of {', '.join(kinds)}")
        if self.launcher not in LAUNCHERS:
            raise ConfigError(f"launcher={self.launcher}: must be one of {', '.join(LAUNCHERS)}")
        if self.prune and (self.sweep == "grid" or self.seeds > 1):
            raise ConfigError("prune=true: requires sweep=random or sweep=tpe, and one seed per point")

    @property
    def goes_on(self) -> bool:
        """Whether the other runs continue when one fails."""
        return self.keep_going and not self.fail_fast


class TrainingProgram(Protocol):
    """The program that makes a run."""

    @property
    def executable(self) -> Sequence[str]:
        """Command line that precedes the arguments."""

    @property
    def options(self) -> Sequence[str]:
        """Options of every run, such as `--config-dir`."""

    def arguments(self, overrides: Sequence[str], folder: Path) -> tuple[str, ...]:
        """Return the arguments that make a run in a folder."""

    def resume_arguments(self, folder: Path) -> tuple[str, ...]:
        """Return the arguments that resume a run; none if it cannot be resumed."""

    def command(self, overrides: Sequence[str]) -> str:
        """Return the command line that repeats a run, for display."""


@dataclass(frozen=True)
class GridPoints:
    """The points of a grid.

    Attributes:
        points: one list per combination of values, with one point per seed.
        refusals: for each combination, the reason why it cannot run, or None.

    Example:
        >>> GridPoints([[Point(("seed=1",), {"seed": "1"})]], [None]).refusals
        [None]
    """

    points: Sequence[Sequence[Point]]
    refusals: Sequence[str | None]


@dataclass(frozen=True)
class SearchSpace:
    """The space of a search.

    Attributes:
        fixed: overrides with a single value.
        axes: key (as written, `+` included) to axis.
        first_seed: seed of a point's first run.

    Example:
        >>> space = SearchSpace(("model=lstm",), axes={})
        >>> space.points({"optim.lr": "0.01"}, seeds=1)[0].overrides
        ('model=lstm', 'optim.lr=0.01')
    """

    fixed: tuple[str, ...]
    axes: Mapping[str, Axis]
    first_seed: int = 1

    def points(self, values: Mapping[str, str], seeds: int) -> list[Point]:
        """Return the points of one draw, one per seed."""
        lines = (*self.fixed, *(f"{key}={value}" for key, value in values.items()))
        point = Point(lines, {key.lstrip("+"): value for key, value in values.items()})
        return point_seeds(point, range(self.first_seed, self.first_seed + seeds)) if seeds > 1 else [point]


def point_seeds(point: Point, seeds: Sequence[int]) -> list[Point]:
    """Return a point once per seed, its own `seed=` removed."""
    lines = tuple(line for line in point.overrides if line.partition("=")[0].lstrip("+") != "seed")
    return [Point((*lines, f"seed={seed}"), {**point.swept, "seed": str(seed)}) for seed in seeds]
