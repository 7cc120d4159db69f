"""Random and TPE search with Optuna. The study lies in SQLite: a search can continue, and `optuna-dashboard` opens it.

TPE: Bergstra et al. 2011, "Algorithms for hyper-parameter optimization".
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.sweep.outcomes import FINISHED, INTERRUPTED, PRUNED, Outcome, SweepRun

SEARCHES = ("random", "tpe")
STUDY_FILE = "study.db"
STUDY_NAME = "tl-grid"
STARTUP_POINTS = 4
"""Points that must end before a run can be pruned."""
WARMUP_VALIDATIONS = 2
"""Validations of a run before it can be pruned."""


@dataclass(frozen=True)
class Choices:
    """An axis of named values.

    Attributes:
        values: the values as on a command line.
    """

    values: tuple[str, ...]

    @property
    def examples(self) -> tuple[str, ...]:
        """Values to check before anything runs."""
        return self.values


@dataclass(frozen=True)
class Interval:
    """An axis of numbers.

    Attributes:
        low: smallest value.
        high: largest value (inclusive).
        log: whether to draw uniformly on a logarithmic scale.
        step: distance between values; None for every value in the interval.
        whole: whether the values are integers.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"interval({self.low:g},{self.high:g}): the second end must be greater than the first")
        if self.log and self.low <= 0:
            raise ConfigError(f"interval({self.low:g},{self.high:g}): a logarithmic scale needs ends greater than 0")

    @property
    def examples(self) -> tuple[str, ...]:
        """Values to check before anything runs."""
        return self.text(self.low), self.text(self.high)

    def text(self, value: float) -> str:
        """Return a value as on a command line."""
        return str(int(value)) if self.whole else repr(float(value))


Axis = Choices | Interval
MakeRuns = Callable[[int, Mapping[str, str]], Sequence[SweepRun]]
"""Maps a point's number (0-based) and its values to its runs, one per seed."""


class Search:
    """Asks Optuna for points, makes runs of them and reports how they ended.

    Args:
        folder: folder of the sweep, where the study lies.
        kind: `random` or `tpe`.
        axes: key to axis.
        trials: total number of points, those of earlier starts included.
        jobs: number of runs at a time.
        seed: random seed of the draws.
        make_runs: makes the runs of a point.
        prune: whether to stop runs that are worse than the median of the others at the same validation.

    Attributes:
        earlier: runs of the points that earlier starts asked for.

    Raises:
        LinguistError: Optuna is not installed, or the study cannot be opened.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        axes: Mapping[str, Axis],
        *,
        trials: int,
        jobs: int,
        seed: int,
        make_runs: MakeRuns,
        prune: bool,
    ) -> None:
        self._optuna = optuna = _import_optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._axes, self._trials, self._make_runs, self._prune = axes, trials, make_runs, prune
        self._study = _open_study(optuna, folder, prune)
        before = self._study.trials
        # A sampler that restarts with the same seed would propose the first points again.
        self._study.sampler = make_sampler(optuna, kind, seed + len(before), jobs)
        self._trial_objects: dict[int, Any] = {}
        self._open: dict[int, list[Outcome]] = {}
        self._queue: list[SweepRun] = []
        self._asked = len(before)
        self.earlier = [run for trial in before for run in self._runs_of(trial.number, trial.params)]
        self._running = {trial.number for trial in before if not trial.state.is_finished()}

    def resume(self, ended: Sequence[Outcome], waiting: Sequence[SweepRun]) -> None:
        """Continue with what an earlier start left.

        Args:
            ended: outcomes of its runs, in the order of their rows.
            waiting: its runs that are still to be made.
        """
        self._queue = list(waiting)
        for number in self._running:
            self._open[number] = []
        for outcome in ended:
            if outcome.run.point in self._open:
                self.ended(outcome)

    def next(self) -> SweepRun | None:
        if not self._queue and self._asked < self._trials:
            self._asked += 1
            trial = self._study.ask({key: _distribution(self._optuna, axis) for key, axis in self._axes.items()})
            self._trial_objects[trial.number] = trial
            self._open[trial.number] = []
            self._queue += self._runs_of(trial.number, trial.params)
        return self._queue.pop(0) if self._queue else None

    def ended(self, outcome: Outcome) -> None:
        number = outcome.run.point
        if outcome.status == INTERRUPTED or number not in self._open:
            # The point stays open in the study for the next start.
            return
        found = self._open[number]
        found.append(outcome)
        if len(found) < self._seeds:
            return
        del self._open[number]
        losses = [one.valid_loss for one in found if one.status == FINISHED and one.valid_loss is not None]
        states = self._optuna.trial.TrialState
        if losses:
            self._study.tell(number, sum(losses) / len(losses))
        else:
            pruned = any(one.status == PRUNED for one in found)
            self._study.tell(number, state=states.PRUNED if pruned else states.FAIL)

    def is_losing(self, run: SweepRun, losses: Sequence[float]) -> bool:
        trial = self._trial_objects.get(run.point)
        if not self._prune or trial is None:
            return False
        known = len(self._study.trials[run.point].intermediate_values)
        for ordinal in range(known, len(losses)):
            trial.report(losses[ordinal], ordinal)
        return bool(trial.should_prune())

    def _runs_of(self, number: int, params: Mapping[str, Any]) -> Sequence[SweepRun]:
        values = {}
        for key, axis in self._axes.items():
            value = params[key]
            values[key] = axis.text(value) if isinstance(axis, Interval) else str(value)
        runs = self._make_runs(number, values)
        self._seeds = len(runs)
        return runs


def _open_study(optuna: Any, folder: Path, prune: bool) -> Any:
    path = folder / STUDY_FILE
    if not path.is_file() and (folder / "grid.csv").is_file():
        raise LinguistError(
            f"{path}: is missing, and the search cannot continue without it; start one with a new name="
        )
    median = optuna.pruners.MedianPruner(
        n_startup_trials=STARTUP_POINTS, n_warmup_steps=WARMUP_VALIDATIONS, n_min_trials=2
    )
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{path.absolute()}",
            study_name=STUDY_NAME,
            pruner=median if prune else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        # Reading the trials finds damage that opening does not.
        len(study.trials)
    except Exception as error:
        raise LinguistError(f"{path}: cannot be opened as a study ({type(error).__name__})") from error
    return study


def make_sampler(optuna: Any, kind: str, seed: int, jobs: int) -> Any:
    """Return Optuna's sampler of a kind, `random` or `tpe`."""
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # With several jobs, a point that is still running must count as bad, or the next point lands beside it.
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=5, constant_liar=jobs > 1)


def _distribution(optuna: Any, axis: Axis) -> Any:
    distributions = optuna.distributions
    if isinstance(axis, Choices):
        return distributions.CategoricalDistribution(axis.values)
    if axis.whole:
        return distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return distributions.FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)


def _import_optuna() -> Any:
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise LinguistError(f'sweep=random|tpe: needs pip install "torch-linguist[sweep]" ({error})') from error
