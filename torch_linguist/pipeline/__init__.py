"""The six steps of a run, from a corpus to an exported model, in one folder."""

from torch_linguist.pipeline.plan import Plan
from torch_linguist.pipeline.run import Run, run
from torch_linguist.pipeline.tuning import UNTUNED_WEIGHT_DECAY

__all__ = ["UNTUNED_WEIGHT_DECAY", "Plan", "Run", "run"]
