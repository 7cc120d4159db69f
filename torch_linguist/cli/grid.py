"""`tl-grid`: several trainings over lists of values, one row each in a CSV file."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch_linguist.cli.arguments import CommandText, help_page, parse_arguments
from torch_linguist.cli.entry import FAILURE, SUCCESS, run_command
from torch_linguist.sweep.sweep import Sweep, carry_out
from torch_linguist.config.catalog import GROUPS, find_groups
from torch_linguist.config.composition import check_types, compose_config, parse_overrides
from torch_linguist.config.signatures import check_arguments
from torch_linguist.config.sweep_expansion import Point, expand, search_space, split_own, with_seeds
from torch_linguist.errors import ConfigError
from torch_linguist.sweep.launchers import LAUNCHERS
from torch_linguist.sweep.search import SEARCHES, Axis

TEXT = CommandText(
    name="tl-grid",
    about=(
        "Trains once for every combination of the values listed, each run in a process and a folder of its own. "
        "outputs/NAME/grid.csv gets a row as each run ends, also a failed one, with its error; index.html shows what "
        "the keys do. Started again after a stop or a kill, the same command line makes what is missing."
    ),
    groups=GROUPS,
    cfg="prints the command of every run, and stops",
    notes=[
        (
            "Lists of values",
            "key=a,b   key=choice(a,b)   key=range(1,5)   group=glob(*)   key=[x],[x,y] for values that are lists\n"
            "and for a search: key=interval(0,0.5)   key=tag(log,interval(1e-4,1e-2))   key=int(interval(64,512))",
        ),
        (
            "Keys of the grid itself",
            "name=null          of the grid's folder; null makes one up\n"
            "output_dir=outputs\n"
            "jobs=1             runs at a time; the cores are divided among them\n"
            "cores=null         of each run; null for that share\n"
            "keep_going=true    the others go on when a run fails; fail_fast=true: the first failure ends the grid\n"
            "retry_failed=false true: a grid that goes on makes the runs again that failed\n"
            "seeds=1            of every point; grid_seeds.csv has mean, standard deviation and count\n"
            "sweep=grid         or random, tpe: draws points (needs the extra sweep); study.db opens in "
            "optuna-dashboard\n"
            "trials=20          points of a search; a larger number goes on with it\n"
            "sweep_seed=1       of a search's draws\n"
            "prune=false        true: a search stops runs that are worse than the median at the same validation\n"
            f"launcher=local     or {', '.join(LAUNCHERS[1:])} (extras of these names)\n"
            "launcher_options={} of the engine, such as {slurm_partition:long,timeout_min:600} or {address:auto}",
        ),
        (
            "Exit codes",
            "0 at least one run finished (with fail_fast: all did); 1 otherwise; 2 wrong usage; 130 interrupted "
            "(the first Ctrl-C lets the runs save what they have, the second ends them at once)",
        ),
    ],
    examples=[
        ("tl-grid model=lstm,gru,rnn,transformer trainer.max_minutes=2", "four families, one after the other"),
        ("tl-grid optim.lr=1e-3,3e-3 optim.weight_decay=0,0.1 stages=[fit] jobs=2", "four points, two at a time"),
        ("tl-grid model=gru,lstm seeds=5", "five seeds each, with mean and standard deviation"),
        (
            "tl-grid sweep=tpe trials=30 prune=true 'optim.lr=tag(log,interval(3e-4,3e-2))' model.dropout=0,0.2",
            "a search",
        ),
        ("tl-grid launcher=submitit launcher_options={slurm_partition:long} jobs=20 seed=range(1,21)", "on SLURM"),
    ],
)


@dataclass(frozen=True)
class SweepSettings:
    """The grid's own keys.

    Attributes:
        name: of the grid's folder; None makes one up.
        output_dir: where that folder is made.
        jobs: runs at a time.
        cores: of each run; None for its share of this machine's.
        keep_going: whether the others go on when a run fails.
        fail_fast: the opposite, by its own name.
        retry_failed: whether a grid that goes on makes failed runs again.
        seeds: of every point.
        sweep: `grid`, `random` or `tpe`.
        trials: points of a search.
        sweep_seed: of a search's draws.
        prune: whether a search stops runs that are losing.
        launcher: where the runs are carried out.
        launcher_options: of its engine.
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
            raise ConfigError("prune=true: goes with sweep=random or sweep=tpe, and one seed a point")


OWN = tuple(SweepSettings.__dataclass_fields__)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `tl-grid`.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command(_grid, argv)


def _grid(argv: list[str]) -> int:
    arguments = parse_arguments(TEXT, argv)
    own, overrides = split_own(arguments.overrides, OWN)
    if arguments.help:
        single = [line for line in overrides if not parse_overrides([line])[0].is_sweep_override()]
        print(help_page(TEXT, single, arguments.config_dir))
        return SUCCESS
    settings = SweepSettings(**check_arguments("", own, SweepSettings))
    options = tuple(part for directory in arguments.config_dir for part in ("--config-dir", str(directory)))
    make = _listed if settings.sweep == "grid" else _searched
    sweep = make(overrides, arguments.config_dir, options, settings)
    if arguments.cfg:
        lines = [command_of(options, point) for points in sweep.points for point in points]
        print("\n".join(lines or [command_of(options, Point(sweep.fixed, {}))]))
        return SUCCESS
    wrong = [refusal for refusal in sweep.refusals if refusal]
    if wrong and (len(wrong) == len(sweep.refusals) or not sweep.keep_going):
        raise ConfigError(wrong[0])
    code = carry_out(sweep)
    assert code in (SUCCESS, FAILURE) or code > 128
    return code


def _listed(
    overrides: Sequence[str], config_dirs: Sequence[Path], options: tuple[str, ...], settings: SweepSettings
) -> Sweep:
    """The sweep of a grid: every run is known."""
    plain = expand(overrides, find_groups(config_dirs))
    looked = [_look(point, config_dirs) for point in plain]
    points = [[point] for point in plain]
    if settings.seeds > 1:
        points = with_seeds(plain, settings.seeds, [seed for _, seed in looked])
    commands = [command_of(options, point) for group in points for point in group]
    identity = {"sweep": "grid", "commands": commands}
    return _sweep(settings, options, identity, points=points, refusals=[refusal for refusal, _ in looked])


def _searched(
    overrides: Sequence[str], config_dirs: Sequence[Path], options: tuple[str, ...], settings: SweepSettings
) -> Sweep:
    """The sweep of a search: its runs come as it goes; the values that it can draw are checked before."""
    fixed, axes = search_space(overrides, find_groups(config_dirs))
    if settings.seeds > 1 and "seed" in {key.lstrip("+") for key in axes}:
        raise ConfigError(f"seeds={settings.seeds}: the seed is swept already; leave one of the two out")
    seed = _check_axes(fixed, axes, config_dirs)
    space = [f"{key}={axis}" for key, axis in axes.items()]
    identity = {
        "sweep": settings.sweep,
        "overrides": [*options, *fixed, *space],
        "seeds": settings.seeds,
        "sweep_seed": settings.sweep_seed,
        "prune": settings.prune,
    }
    return _sweep(settings, options, identity, fixed=fixed, axes=axes, first_seed=seed)


def _sweep(settings: SweepSettings, options: tuple[str, ...], identity: Mapping[str, Any], **parts: Any) -> Sweep:
    shared = {key: getattr(settings, key) for key in OWN if key not in ("keep_going", "fail_fast")}
    keep_going = settings.keep_going and not settings.fail_fast
    return Sweep(options=options, identity=identity, keep_going=keep_going, **shared, **parts)


def _look(point: Point, config_dirs: Sequence[Path]) -> tuple[str | None, int]:
    """Why a point cannot run, or None, found before anything is started; and its seed."""
    try:
        config = check_types(compose_config(point.overrides, config_dirs).config)
    except ConfigError as error:
        return str(error), 1
    return None, int(config.seed)


def _check_axes(fixed: Sequence[str], axes: Mapping[str, Axis], config_dirs: Sequence[Path]) -> int:
    """Composes every value of each axis once, the others at their first.

    Returns:
        The seed of the configuration.

    Raises:
        ConfigError: a key does not exist, or a value is none of its key's.
    """
    first = {key: axis.examples[0] for key, axis in axes.items()}
    seed = 1
    for index, (key, axis) in enumerate(axes.items()):
        for value in axis.examples[1 if index else 0 :]:
            lines = [f"{name}={chosen}" for name, chosen in {**first, key: value}.items()]
            refusal, seed = _look(Point((*fixed, *lines), {}), config_dirs)
            if refusal:
                raise ConfigError(refusal)
    return seed


def command_of(options: Sequence[str], point: Point) -> str:
    """The command that makes a point's run, for people."""
    return shlex.join(["tl-train", *options, *point.overrides])


if __name__ == "__main__":
    sys.exit(main())
