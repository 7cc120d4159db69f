"""The loop, and the stages of a run that are built on it."""

from torch_linguist.trainer.check import CheckResult, check_untrained
from torch_linguist.trainer.checkpoint import load_model, read_checkpoint, save_checkpoint
from torch_linguist.trainer.events import Observer, Observers
from torch_linguist.trainer.fit import Fit, FitResult
from torch_linguist.trainer.grid import GridResult, run_grid
from torch_linguist.trainer.lazy_adamw import LazyAdamW
from torch_linguist.trainer.loop import Loop
from torch_linguist.trainer.lr_finder import LRFindResult, find_learning_rate, range_test
from torch_linguist.trainer.overfit import OverfitResult, overfit
from torch_linguist.trainer.schedules import Constant, Cosine, Linear, OneCycle, Plateau, Schedule
from torch_linguist.trainer.settings import (
    STAGES,
    CheckpointSettings,
    CheckSettings,
    GridSettings,
    LRFindSettings,
    OverfitSettings,
    SampleSettings,
    ScoreSettings,
    TrainerSettings,
)
from torch_linguist.trainer.setup import Setup
from torch_linguist.trainer.sgd import SGD
from torch_linguist.trainer.train import train

__all__ = [
    "SGD",
    "STAGES",
    "CheckResult",
    "CheckSettings",
    "CheckpointSettings",
    "Constant",
    "Cosine",
    "Fit",
    "FitResult",
    "GridResult",
    "GridSettings",
    "LRFindResult",
    "LRFindSettings",
    "LazyAdamW",
    "Linear",
    "Loop",
    "Observer",
    "Observers",
    "OneCycle",
    "OverfitResult",
    "OverfitSettings",
    "Plateau",
    "SampleSettings",
    "Schedule",
    "ScoreSettings",
    "Setup",
    "TrainerSettings",
    "check_untrained",
    "find_learning_rate",
    "load_model",
    "overfit",
    "range_test",
    "read_checkpoint",
    "run_grid",
    "save_checkpoint",
    "train",
]
