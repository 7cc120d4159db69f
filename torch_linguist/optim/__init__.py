"""Optimizers, learning-rate schedules and weight averages."""

from torch_linguist.optim.lazy_adamw import LazyAdamW
from torch_linguist.optim.muon import Muon
from torch_linguist.optim.optimizers import build_optimizer
from torch_linguist.optim.schedules import Constant, Cosine, Linear, OneCycle, Plateau, Schedule, WarmupStableDecay
from torch_linguist.optim.sgd import SGD
from torch_linguist.optim.weight_average import WeightAverage

__all__ = [
    "SGD",
    "Constant",
    "Cosine",
    "LazyAdamW",
    "Linear",
    "Muon",
    "OneCycle",
    "Plateau",
    "Schedule",
    "WarmupStableDecay",
    "WeightAverage",
    "build_optimizer",
]
