"""A sweep from its points to its runs: the folder, what is already there, the engine, the table and the page.

The program that makes a run is passed in, so that a sweep depends neither on Hydra nor on the command line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_linguist.sweep.engine import ListedRuns, RunSource, SignalCounter, SweepCallback, SweepEngine
from torch_linguist.sweep.launchers import make_launcher
from torch_linguist.sweep.outcomes import FAILED, FINISHED, INTERRUPTED, Outcome, Point, SweepRun
from torch_linguist.sweep.run_process import child_environment, cores_per_run
from torch_linguist.sweep.run_progress import RunProgress
from torch_linguist.sweep.search import Search
from torch_linguist.sweep.sweep_settings import GridPoints, SearchSpace, SweepSettings, TrainingProgram

if TYPE_CHECKING:
    import pandas as pd

    from torch_linguist.sweep.result_table import ResultTable


@dataclass(frozen=True)
class SweepResult:
    """What a sweep left.

    Attributes:
        folder: folder of the sweep.
        outcomes: one outcome per run that ended, those of earlier starts included.
        total: number of runs of the whole sweep.
        signal_number: number of the signal that stopped the sweep, or 0.
        table: `grid.csv`.
        page: `index.html`; None if no run ended.
        seeds: one row per point over its seeds, the best first; None if every point has one seed.
    """

    folder: Path
    outcomes: Sequence[Outcome]
    total: int
    signal_number: int
    table: Path
    page: Path | None
    seeds: "pd.DataFrame | None"

    @property
    def any_finished(self) -> bool:
        """Whether at least one run finished."""
        return any(one.status == FINISHED for one in self.outcomes)

    @property
    def any_failed(self) -> bool:
        """Whether a run failed, was interrupted or is missing."""
        return len(self.outcomes) < self.total or any(one.status in (FAILED, INTERRUPTED) for one in self.outcomes)


def run_sweep(
    source: GridPoints | SearchSpace,
    settings: SweepSettings,
    program: TrainingProgram,
    callback: SweepCallback | None = None,
) -> SweepResult:
    """Make the runs of a sweep, or those that an earlier start left unfinished.

    Args:
        source: points of a grid, or the space of a search.
        settings: settings of the sweep.
        program: the program that makes a run.
        callback: follows the sweep; closed at its end.

    Raises:
        LinguistError: the folder belongs to another sweep or is in use, its table was edited, or the disk is full.
    """
    # Imported here because the help page of `tl-grid` needs the settings alone.
    from torch_linguist.sweep.sweep_folder import find_sweep_folder, sole_owner, write_identity

    sweep = _Sweep(source, settings, program, callback or SweepCallback())
    identity = sweep.identity()
    folder = find_sweep_folder(Path(settings.output_dir), settings.name, identity)
    with sole_owner(folder):
        write_identity(folder, identity)
        ended, signal_number = sweep.make_runs(folder)
        # A run that was interrupted and made again has two outcomes; the last one counts.
        outcomes = list({one.run.index: one for one in ended}.values())
        complete = len(outcomes) == sweep.total and all(one.status != INTERRUPTED for one in outcomes)
        write_identity(folder, identity, complete=complete)
        page, seeds = _write_results(folder, outcomes, settings.seeds) if outcomes else (None, None)
    return SweepResult(folder, outcomes, sweep.total, signal_number, folder / "grid.csv", page, seeds)


def _write_results(folder: Path, outcomes: Sequence[Outcome], seeds: int) -> "tuple[Path, pd.DataFrame | None]":
    from torch_linguist.sweep import sweep_page
    from torch_linguist.sweep.sweep_statistics import write_seed_table

    means = write_seed_table(outcomes, folder / "grid_seeds.csv") if seeds > 1 else None
    return sweep_page.write_sweep_page(folder, outcomes, means), means


@dataclass(frozen=True)
class _Sweep:
    source: GridPoints | SearchSpace
    settings: SweepSettings
    program: TrainingProgram
    callback: SweepCallback

    @property
    def total(self) -> int:
        if isinstance(self.source, GridPoints):
            return sum(map(len, self.source.points))
        return self.settings.trials * self.settings.seeds

    @property
    def swept(self) -> list[str]:
        if isinstance(self.source, GridPoints):
            return list(self.source.points[0][0].swept)
        return [key.lstrip("+") for key in self.source.axes] + (["seed"] if self.settings.seeds > 1 else [])

    def identity(self) -> dict[str, Any]:
        settings = self.settings
        if isinstance(self.source, GridPoints):
            commands = [self.program.command(point.overrides) for group in self.source.points for point in group]
            return {"sweep": "grid", "commands": commands}
        space = [f"{key}={axis}" for key, axis in self.source.axes.items()]
        return {
            "sweep": settings.sweep,
            "overrides": [*self.program.options, *self.source.fixed, *space],
            "seeds": settings.seeds,
            "sweep_seed": settings.sweep_seed,
            "prune": settings.prune,
        }

    def make_runs(self, folder: Path) -> tuple[list[Outcome], int]:
        """Return all outcomes, those of earlier starts included, and the number of the stopping signal, or 0."""
        from torch_linguist.sweep.result_table import ResultTable
        from torch_linguist.sweep.sweep_folder import recover

        settings = self.settings
        search = self._search(folder, self.source) if isinstance(self.source, SearchSpace) else None
        runs = search.earlier if search else self._grid_runs(folder)
        table = ResultTable(folder / "grid.csv", self.swept)
        try:
            state = recover(
                table,
                runs,
                retry_failed=settings.retry_failed,
                resume_arguments=self.program.resume_arguments,
                note=self.callback.noted,
            )
            source: RunSource = ListedRuns(state.waiting)
            if search:
                search.resume(state.ended, state.waiting)
                source = search
            before = len(state.ended)
            self.callback.noted(f"{self.total} runs, {min(settings.jobs, self.total)} at a time, in {folder}")
            if before:
                self.callback.noted(f"continuing: {before} of {self.total} runs have ended")
            if before >= self.total:
                return state.ended, 0
            self.callback.begun(self.total, before)
            outcomes, signal_number = self._carry_out(folder, source, table)
        finally:
            self.callback.close()
        return [*state.ended, *outcomes], signal_number

    def _carry_out(self, folder: Path, source: RunSource, table: "ResultTable") -> tuple[list[Outcome], int]:
        settings = self.settings
        cores = cores_per_run(settings.jobs, settings.cores)
        launcher = make_launcher(settings.launcher, folder, settings.jobs, cores, settings.launcher_options)
        recorder = _Recorder(table, self.callback)
        environment = child_environment(settings.jobs, settings.cores)
        try:
            with SignalCounter() as signals:
                SweepEngine(
                    source=source,
                    program=self.program.executable,
                    jobs=settings.jobs,
                    keep_going=settings.goes_on,
                    signals=signals,
                    callback=recorder,
                    launcher=launcher,
                    environment=environment,
                ).carry_out()
        finally:
            launcher.close()
        return recorder.outcomes, signals.last if signals.count else 0

    def _search(self, folder: Path, space: SearchSpace) -> Search:
        settings = self.settings

        def make_runs(number: int, values: Mapping[str, str]) -> list[SweepRun]:
            points = space.points(values, settings.seeds)
            first = number * settings.seeds + 1
            return [self._run(folder, index, number, point) for index, point in enumerate(points, start=first)]

        return Search(
            folder,
            settings.sweep,
            space.axes,
            trials=settings.trials,
            jobs=settings.jobs,
            seed=settings.sweep_seed,
            make_runs=make_runs,
            prune=settings.prune,
        )

    def _grid_runs(self, folder: Path) -> list[SweepRun]:
        assert isinstance(self.source, GridPoints)
        numbered = [(number, point) for number, points in enumerate(self.source.points) for point in points]
        return [
            self._run(folder, index, number, point, self.source.refusals[number])
            for index, (number, point) in enumerate(numbered, start=1)
        ]

    def _run(self, folder: Path, index: int, number: int, point: Point, refusal: str | None = None) -> SweepRun:
        name = f"{index:0{max(3, len(str(self.total)))}}"
        return SweepRun(
            index=index,
            folder=folder / name,
            log=folder / "logs" / f"{name}.txt",
            arguments=self.program.arguments(point.overrides, folder / name),
            command=self.program.command(point.overrides),
            swept=point.swept,
            point=number,
            refusal=refusal,
        )


class _Recorder(SweepCallback):
    """Writes each row before it passes the outcome on."""

    def __init__(self, table: "ResultTable", callback: SweepCallback) -> None:
        self._table, self._callback = table, callback
        self.outcomes: list[Outcome] = []

    def run_started(self, run: SweepRun) -> None:
        self._callback.run_started(run)

    def stopping(self, active: int) -> None:
        self._callback.stopping(active)

    def progressed(self, progress: Mapping[int, RunProgress]) -> None:
        self._callback.progressed(progress)

    def run_ended(self, outcome: Outcome) -> None:
        self._table.append(outcome.row())
        self.outcomes.append(outcome)
        self._callback.run_ended(outcome)
