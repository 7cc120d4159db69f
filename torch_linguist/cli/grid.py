"""`tl-grid`: several trainings over lists of values, one row each in a CSV file."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_linguist.catalogue import GROUPS, find_groups
from torch_linguist.cli.arguments import CommandText, help_page, parse_arguments
from torch_linguist.cli.entry import FAILURE, SUCCESS, run_command
from torch_linguist.cli.expand import Point, expand, split_own
from torch_linguist.cli.sweep import FAILED, FINISHED, Outcome, ResultTable, Run, SignalCounter, run_all
from torch_linguist.config import check_types, compose_config, parse_overrides, quoted
from torch_linguist.errors import ConfigError
from torch_linguist.signatures import check_arguments

TEXT = CommandText(
    name="tl-grid",
    about=(
        "Trains once for every combination of the values listed, each run in a process and a folder of its own. "
        "outputs/NAME/grid.csv gets a row as each run ends, also a failed one, with its error."
    ),
    groups=GROUPS,
    cfg="prints the command of every run, and stops",
    notes=[
        (
            "Lists of values",
            "key=a,b   key=choice(a,b)   key=range(1,5)   group=glob(*)   key=[x],[x,y] for values that are lists",
        ),
        (
            "Keys of the grid itself",
            "jobs=1            runs at a time; the cores are divided among them\n"
            "keep_going=true   false: the first failure ends the grid\n"
            "name=null         of the grid's folder; null makes one up\n"
            "output_dir=outputs",
        ),
        (
            "Exit codes",
            "0 at least one run finished (with keep_going=false: all did); 1 otherwise; 2 wrong usage; 130 interrupted "
            "(the first Ctrl-C lets the runs save what they have, the second ends them at once)",
        ),
    ],
    examples=[
        ("tl-grid model=lstm,gru,rnn,transformer trainer.max_minutes=2", "four families, one after the other"),
        ("tl-grid optim.lr=1e-3,3e-3 optim.weight_decay=0,0.1 stages=[fit] jobs=2", "four points, two at a time"),
        ("tl-grid seed=range(1,6) model=gru", "five seeds"),
    ],
)


@dataclass(frozen=True)
class SweepSettings:
    """The grid's own keys.

    Attributes:
        name: of the grid's folder; None makes one up.
        output_dir: where that folder is made.
        jobs: runs at a time.
        keep_going: whether the others go on when a run fails.
    """

    name: str | None = None
    output_dir: str = "outputs"
    jobs: int = 1
    keep_going: bool = True

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ConfigError(f"jobs={self.jobs}: must be at least 1")


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
    points = expand(overrides, find_groups(arguments.config_dir))
    options = [part for directory in arguments.config_dir for part in ("--config-dir", str(directory))]
    commands = [shlex.join(["tl-train", *options, *point.overrides]) for point in points]
    if arguments.cfg:
        print("\n".join(commands))
        return SUCCESS
    refusals = [_refusal(point, arguments.config_dir) for point in points]
    wrong = [(point, refusal) for point, refusal in zip(points, refusals, strict=True) if refusal]
    if wrong and (len(wrong) == len(points) or not settings.keep_going):
        raise ConfigError(wrong[0][1])
    folder = _make_folder(settings)
    width = max(3, len(str(len(points))))
    runs = [
        Run(
            index=index,
            folder=folder / f"{index:0{width}}",
            log=folder / "logs" / f"{index:0{width}}.txt",
            arguments=(*options, *point.overrides, f"output_dir={quoted(str(folder))}", f'name="{index:0{width}}"'),
            command=command,
            swept=point.swept,
            refusal=refusal,
        )
        for index, (point, command, refusal) in enumerate(zip(points, commands, refusals, strict=True), start=1)
    ]
    return _run(runs, folder, settings)


def _refusal(point: Point, config_dirs: Sequence[Path]) -> str | None:
    """Why a point cannot run, or None: found before anything is started."""
    try:
        check_types(compose_config(point.overrides, config_dirs).config)
    except ConfigError as error:
        return str(error)
    return None


def _make_folder(settings: SweepSettings) -> Path:
    from torch_linguist.trainer.run_folder import create_run_folder

    folder = create_run_folder(Path(settings.output_dir), settings.name, "grid")
    (folder / "logs").mkdir()
    return folder


def _run(runs: Sequence[Run], folder: Path, settings: SweepSettings) -> int:
    print(f"{len(runs)} runs, {min(settings.jobs, len(runs))} at a time, in {folder}", flush=True)
    table = ResultTable(folder / "grid.csv", list(runs[0].swept))
    ended: list[Outcome] = []

    def on_end(outcome: Outcome) -> None:
        table.append(outcome.row())
        ended.append(outcome)
        print(_progress(outcome, len(ended), len(runs)), flush=True)

    with SignalCounter() as signals:
        run_all(
            runs,
            jobs=settings.jobs,
            keep_going=settings.keep_going,
            signals=signals,
            on_start=lambda run: print(f"{'started':<12}{run.folder.name}  {_point(run)}", flush=True),
            on_end=on_end,
            on_stop=_say_stopping,
        )
    show_outcomes(ended, table.path)
    if signals.count:
        return 128 + signals.last
    finished = [outcome for outcome in ended if outcome.status == FINISHED]
    complete = len(finished) == len(runs)
    return SUCCESS if complete or (finished and settings.keep_going) else FAILURE


def show_outcomes(outcomes: Sequence[Outcome], path: Path) -> None:
    """Prints the runs as a table, the best validation perplexity first, and how to repeat the best.

    Args:
        outcomes: of the runs that ended.
        path: of the CSV file.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    order = sorted(outcomes, key=lambda one: (one.valid_perplexity is None, one.valid_perplexity or 0, one.run.index))
    table = Table(box=None, pad_edge=False)
    for key in ["run", *(outcomes[0].run.swept if outcomes else ()), "status"]:
        table.add_column(key)
    for key in ("parameters", "valid ppl", "test ppl", "seconds"):
        table.add_column(key, justify="right")
    for one in order:
        row = one.row()
        numbers = (f"{row['parameters']:,}" if row["parameters"] else "", *map(_perplexity, _perplexities(row)))
        table.add_row(row["folder"], *one.run.swept.values(), one.status, *numbers, f"{one.seconds:.0f}")
    console.print()
    console.print(table)
    for one in order:
        if one.status == FAILED:
            console.print(f"{one.run.folder.name} failed: {one.error}", markup=False)
    if order and order[0].valid_perplexity is not None:
        console.print(f"\nbest: {order[0].run.folder}\n  {order[0].run.command}", markup=False)
    console.print(f"table: {path}", markup=False)


def _progress(outcome: Outcome, count: int, total: int) -> str:
    perplexity = outcome.valid_perplexity
    loss = outcome.row()["valid_loss"]
    result = outcome.error
    if perplexity is not None:
        result = f"valid perplexity {perplexity:.2f}"
    elif loss is not None:
        # Too large for a perplexity in float64.
        result = f"valid loss {loss:.4g}"
    name = outcome.run.folder.name
    return f"{outcome.status:<12}{name}  {_point(outcome.run)}  {result}  {outcome.seconds:.0f} s  [{count}/{total}]"


def _say_stopping(active: int) -> None:
    if active:
        print(f"stopping: {active} running save what they have; Ctrl-C again ends them at once", flush=True)


def _point(run: Run) -> str:
    return " ".join(f"{key}={value}" for key, value in run.swept.items()) or "(no key is swept)"


def _perplexities(row: dict[str, Any]) -> tuple[Any, Any]:
    return row["valid_perplexity"], row["test_perplexity"]


def _perplexity(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else ""


if __name__ == "__main__":
    sys.exit(main())
