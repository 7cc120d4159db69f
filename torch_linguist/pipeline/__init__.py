"""A run, from a corpus to an exported model, in one folder.

The names are imported on first use: the order of the stages must stay importable without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_linguist.pipeline.execution import Run, run
    from torch_linguist.pipeline.plan import Plan

_MODULE_OF = {"Plan": "plan", "Run": "execution", "run": "execution"}

__all__ = ["Plan", "Run", "run"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
