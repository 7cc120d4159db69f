"""The six steps of a run, from a corpus to an exported model, in one folder."""

from torch_linguist.pipeline.plan import Plan
from torch_linguist.pipeline.run import UNTUNED_WEIGHT_DECAY, Run, run

__all__ = ["UNTUNED_WEIGHT_DECAY", "Plan", "Run", "run"]
