"""`tl-grid`: several training runs over lists of values, one row each in a CSV file."""

import sys
from collections.abc import Sequence

from torch_linguist.cli.entry import FAILURE, SUCCESS, parse_arguments, run_command, say
from torch_linguist.config.catalog import GROUPS
from torch_linguist.config.checking.signatures import check_arguments, hints_of
from torch_linguist.config.help_page import CommandText, help_page
from torch_linguist.config.overrides import parse_overrides
from torch_linguist.config.sweep_expansion import plan_sweep, split_own
from torch_linguist.config.training_run import TrainCommand
from torch_linguist.sweep.launchers import LAUNCHERS
from torch_linguist.sweep.sweep_settings import SearchSpace, SweepSettings

TEXT = CommandText(
    name="tl-grid",
    about=(
        "Trains once for every combination of the listed values, each run in its own process and folder. "
        "outputs/NAME/grid.csv gets a row when a run ends, with its error if it failed; index.html shows the effect "
        "of each key. After a stop or a kill, the same command line makes the missing runs."
    ),
    groups=GROUPS,
    cfg="print the command of every run and stop",
    notes=[
        (
            "Lists of values",
            "key=a,b   key=choice(a,b)   key=range(1,5)   group=glob(*)   key=[x],[x,y] for values that are lists\n"
            "and for a search: key=interval(0,0.5)   key=tag(log,interval(1e-4,1e-2))   key=int(interval(64,512))",
        ),
        (
            "Keys of the sweep itself",
            "name=null          name of the sweep's folder; null generates one\n"
            "output_dir=outputs\n"
            "jobs=1             number of runs at a time; they share the cores\n"
            "cores=null         cores of each run; null for its share\n"
            "keep_going=true    continue when a run fails; fail_fast=true ends the sweep at the first failure\n"
            "retry_failed=false true: repeat failed runs when the sweep is started again\n"
            "seeds=1            seeds per point; grid_seeds.csv has mean, standard deviation and count\n"
            "sweep=grid         or random, tpe: draw points (needs the extra sweep); study.db opens in "
            "optuna-dashboard\n"
            "trials=20          points of a search; a larger number continues it\n"
            "sweep_seed=1       random seed of a search\n"
            "prune=false        true: stop runs that are worse than the median at the same validation\n"
            f"launcher=local     or {', '.join(LAUNCHERS[1:])} (extras of these names)\n"
            "launcher_options={} options of the launcher, such as {slurm_partition:long,timeout_min:600} or "
            "{address:auto}",
        ),
        (
            "Exit codes",
            "0 at least one run finished (with fail_fast: all did); 1 otherwise; 2 wrong usage; 130 interrupted "
            "(the first Ctrl-C lets the runs save their state, the second ends them at once)",
        ),
    ],
    examples=[
        ("tl-grid model=lstm,gru,rnn,transformer trainer.max_minutes=2", "four model families, one after the other"),
        ("tl-grid optim.lr=1e-3,3e-3 optim.weight_decay=0,0.1 stages=[fit] jobs=2", "four points, two at a time"),
        ("tl-grid model=gru,lstm seeds=5", "five seeds each, with mean and standard deviation"),
        (
            "tl-grid sweep=tpe trials=30 prune=true 'optim.lr=tag(log,interval(3e-4,3e-2))' model.dropout=0,0.2",
            "a search",
        ),
        ("tl-grid launcher=submitit launcher_options={slurm_partition:long} jobs=20 seed=range(1,21)", "on SLURM"),
    ],
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tl-grid`."""
    return run_command(_grid, argv)


def _grid(argv: list[str]) -> int:
    arguments = parse_arguments(TEXT, argv)
    own, overrides = split_own(arguments.overrides, hints_of(SweepSettings))
    if arguments.help:
        single = [line for line in overrides if not parse_overrides([line])[0].is_sweep_override()]
        say(help_page(TEXT, single, arguments.config_dir))
        return SUCCESS
    settings = SweepSettings(**check_arguments("", own, SweepSettings))
    source = plan_sweep(overrides, arguments.config_dir, settings)
    program = TrainCommand(arguments.config_dir)
    if arguments.cfg:
        if isinstance(source, SearchSpace):
            lines = [source.fixed]
        else:
            lines = [point.overrides for group in source.points for point in group]
        say("\n".join(map(program.command, lines)))
        return SUCCESS

    from torch_linguist.report.console import make_console
    from torch_linguist.sweep.display import SweepDisplay, show_result
    from torch_linguist.sweep.sweep import run_sweep

    console = make_console()
    result = run_sweep(source, settings, program, SweepDisplay(console))
    show_result(result, console)
    if result.signal_number:
        return 128 + result.signal_number
    return SUCCESS if result.any_finished and (settings.goes_on or not result.any_failed) else FAILURE


if __name__ == "__main__":
    sys.exit(main())
