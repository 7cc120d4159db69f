"""From a sweep that was read and checked to its runs: the folder, what is there already, the engine, the end."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_linguist.cli.entry import FAILURE, SUCCESS
from torch_linguist.sweep.display import Lines, make_screen, show_outcomes
from torch_linguist.config.composition import quoted
from torch_linguist.config.sweep_expansion import Point
from torch_linguist.sweep.engine import Audience, Engine, Listed, SignalCounter, Source
from torch_linguist.sweep.launchers import make_launcher
from torch_linguist.sweep.run_process import child_environment, cores_of_a_run
from torch_linguist.sweep.run_progress import Watch
from torch_linguist.sweep.outcomes import FAILED, FINISHED, INTERRUPTED, Outcome, Run
from torch_linguist.sweep.search import Axis, Search

if TYPE_CHECKING:
    from torch_linguist.sweep.result_table import ResultTable

PROGRAM = (sys.executable, "-P", "-m", "torch_linguist.cli.sweep_child")


@dataclass(frozen=True)
class Sweep:
    """Everything that a sweep needs; the keys of its own are those of `SweepSettings`.

    Attributes:
        options: of every run, such as `--config-dir`.
        identity: what makes it another sweep if it differs.
        points: of a grid, one list a point with one entry a seed; empty for a search.
        refusals: why each point of a grid cannot run, or None.
        fixed: overrides of a search that stay.
        axes: of a search.
        first_seed: of a search's points.
    """

    options: tuple[str, ...]
    identity: Mapping[str, Any]
    keep_going: bool
    name: str | None
    output_dir: str
    jobs: int
    cores: int | None
    retry_failed: bool
    seeds: int
    sweep: str
    trials: int
    sweep_seed: int
    prune: bool
    launcher: str
    launcher_options: Mapping[str, Any]
    points: Sequence[Sequence[Point]] = ()
    refusals: Sequence[str | None] = ()
    fixed: tuple[str, ...] = ()
    axes: Mapping[str, Axis] = field(default_factory=dict)
    first_seed: int = 1

    @property
    def total(self) -> int:
        """Runs of the whole sweep."""
        return sum(map(len, self.points)) if self.sweep == "grid" else self.trials * self.seeds

    @property
    def swept(self) -> list[str]:
        """The keys that differ between the runs."""
        if self.points:
            return list(self.points[0][0].swept)
        return [key.lstrip("+") for key in self.axes] + (["seed"] if self.seeds > 1 else [])


class _Keeper(Audience):
    """Writes each row before anybody is told of it."""

    def __init__(self, table: "ResultTable", screen: Lines) -> None:
        self.table, self.screen = table, screen
        self.ended_runs: list[Outcome] = []

    def started(self, run: Run) -> None:
        self.screen.started(run)

    def ended(self, outcome: Outcome) -> None:
        self.table.append(outcome.row())
        self.ended_runs.append(outcome)
        self.screen.ended(outcome)

    def stopping(self, active: int) -> None:
        self.screen.stopping(active)

    def looked(self, watches: Mapping[int, Watch]) -> None:
        self.screen.looked(watches)


def carry_out(sweep: Sweep) -> int:
    """Makes the runs of a sweep, or those that an earlier start has left.

    Args:
        sweep: read and checked.

    Returns:
        The exit code.
    """
    from torch_linguist.sweep.sweep_folder import NAME, sole_owner, write_record

    folder = _find_folder(sweep)
    with sole_owner(folder):
        if not (folder / NAME).is_file():
            write_record(folder, sweep.identity)
        outcomes, signal_number = _make_runs(sweep, folder)
        last = {one.run.index: one for one in outcomes}
        complete = len(last) == sweep.total and all(one.status != INTERRUPTED for one in last.values())
        write_record(folder, {**sweep.identity, "complete": complete})
        _finish(sweep, folder, list(last.values()))
    if signal_number:
        return 128 + signal_number
    finished = sum(one.status == FINISHED for one in last.values())
    wrong = any(one.status in (FAILED, INTERRUPTED) for one in last.values()) or len(last) < sweep.total
    return SUCCESS if finished and (sweep.keep_going or not wrong) else FAILURE


def _find_folder(sweep: Sweep) -> Path:
    """The folder of the same sweep that was not brought to its end, or a new one."""
    from torch_linguist.runs.folders import create_run_folder
    from torch_linguist.sweep.sweep_folder import check_record, find_unfinished, is_held

    output_dir = Path(sweep.output_dir)
    if sweep.name is None:
        for folder in find_unfinished(output_dir, sweep.identity):
            if not is_held(folder):
                return folder
    elif Path(sweep.name).name == sweep.name and (output_dir / sweep.name).exists():
        check_record(output_dir / sweep.name, sweep.identity)
        return output_dir / sweep.name
    return create_run_folder(output_dir, sweep.name, "grid")


def _make_runs(sweep: Sweep, folder: Path) -> tuple[list[Outcome], int]:
    """All outcomes, those of earlier starts included, and the number of the signal that stopped us, or 0."""
    from torch_linguist.sweep.restart import take_up
    from torch_linguist.sweep.result_table import ResultTable

    search = _search(sweep, folder) if sweep.sweep != "grid" else None
    runs = search.earlier if search else _runs_of_grid(sweep, folder)
    table = ResultTable(folder / "grid.csv", sweep.swept)
    state = take_up(
        table, runs, retry_failed=sweep.retry_failed, resumption=_resumption, say=lambda line: print(line, flush=True)
    )
    source: Source = Listed(state.waiting)
    if search:
        search.go_on(state.ended, state.waiting)
        source = search
    before = len(state.ended)
    print(f"{sweep.total} runs, {min(sweep.jobs, sweep.total)} at a time, in {folder}", flush=True)
    if before:
        print(f"going on: {before} of {sweep.total} runs are there", flush=True)
    if before >= sweep.total:
        return state.ended, 0
    cores = cores_of_a_run(sweep.jobs, sweep.cores)
    launcher = make_launcher(sweep.launcher, folder, sweep.jobs, cores, sweep.launcher_options)
    screen = make_screen(sweep.total, before)
    keeper = _Keeper(table, screen)
    try:
        with SignalCounter() as signals:
            Engine(
                source,
                sweep.jobs,
                sweep.keep_going,
                signals,
                keeper,
                launcher,
                child_environment(sweep.jobs, sweep.cores),
                PROGRAM,
            ).carry_out()
    finally:
        screen.close()
        launcher.close()
    return [*state.ended, *keeper.ended_runs], signals.last if signals.count else 0


def _search(sweep: Sweep, folder: Path) -> Search:
    """The search, with whatever earlier starts have asked of it."""

    def make_runs(number: int, values: Mapping[str, str]) -> list[Run]:
        lines = (*sweep.fixed, *(f"{key}={value}" for key, value in values.items()))
        swept = {key.lstrip("+"): value for key, value in values.items()}
        points = [Point(lines, swept)]
        if sweep.seeds > 1:
            lines = tuple(line for line in lines if line.partition("=")[0].lstrip("+") != "seed")
            seeds = range(sweep.first_seed, sweep.first_seed + sweep.seeds)
            points = [Point((*lines, f"seed={seed}"), {**swept, "seed": str(seed)}) for seed in seeds]
        first = number * sweep.seeds + 1
        return [_run(sweep, folder, index, number, point) for index, point in enumerate(points, start=first)]

    return Search(
        folder,
        sweep.sweep,
        sweep.axes,
        trials=sweep.trials,
        jobs=sweep.jobs,
        seed=sweep.sweep_seed,
        make_runs=make_runs,
        prune=sweep.prune,
    )


def _runs_of_grid(sweep: Sweep, folder: Path) -> list[Run]:
    numbered = [(number, point) for number, points in enumerate(sweep.points) for point in points]
    return [
        _run(sweep, folder, index, number, point, sweep.refusals[number])
        for index, (number, point) in enumerate(numbered, start=1)
    ]


def _run(sweep: Sweep, folder: Path, index: int, number: int, point: Point, refusal: str | None = None) -> Run:
    name = f"{index:0{max(3, len(str(sweep.total)))}}"
    return Run(
        index=index,
        folder=folder / name,
        log=folder / "logs" / f"{name}.txt",
        arguments=(*sweep.options, *point.overrides, f"output_dir={quoted(str(folder))}", f'name="{name}"'),
        command=shlex.join(["tl-train", *sweep.options, *point.overrides]),
        swept=point.swept,
        point=number,
        refusal=refusal,
    )


def _resumption(folder: Path) -> list[str]:
    """The arguments that let an interrupted run go on; none where it has nothing to go on with."""
    from torch_linguist.config.resume import is_resumable

    return [f"resume={quoted(str(folder))}"] if is_resumable(folder) else []


def _finish(sweep: Sweep, folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Means over the seeds, the page, the table on the terminal."""
    if not outcomes:
        return
    from torch_linguist.sweep.sweep_page import write_sweep_page
    from torch_linguist.sweep.seed_table import write_seed_table

    means = write_seed_table(outcomes, folder / "grid_seeds.csv") if sweep.seeds > 1 else None
    page = write_sweep_page(folder, outcomes, means)
    show_outcomes(outcomes, folder / "grid.csv", means)
    print(f"page: {page}")
