"""Sweeps: many runs over lists of values or a search space, one row of results each."""

from torch_linguist.sweep.outcomes import Outcome, Point, SweepRun
from torch_linguist.sweep.sweep import SweepResult, run_sweep
from torch_linguist.sweep.sweep_settings import GridPoints, SearchSpace, SweepSettings, TrainingProgram

__all__ = [
    "GridPoints",
    "Outcome",
    "Point",
    "SearchSpace",
    "SweepResult",
    "SweepRun",
    "SweepSettings",
    "TrainingProgram",
    "run_sweep",
]
