"""The stages of a run, one file each.

The names are imported on first use: `order` must stay importable without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_linguist.pipeline.stages.arrangement import arrange, built_in_stages, default_stages
    from torch_linguist.pipeline.stages.check import Check
    from torch_linguist.pipeline.stages.export import ExportStage
    from torch_linguist.pipeline.stages.fit import FitStage
    from torch_linguist.pipeline.stages.grid import Grid
    from torch_linguist.pipeline.stages.initialize import Initialize
    from torch_linguist.pipeline.stages.lr_find import LRFind
    from torch_linguist.pipeline.stages.overfit import Overfit
    from torch_linguist.pipeline.stages.stage import Stage, StageResult

_MODULE_OF = {
    "Check": "check",
    "ExportStage": "export",
    "FitStage": "fit",
    "Grid": "grid",
    "Initialize": "initialize",
    "LRFind": "lr_find",
    "Overfit": "overfit",
    "Stage": "stage",
    "StageResult": "stage",
    "arrange": "arrangement",
    "built_in_stages": "arrangement",
    "default_stages": "arrangement",
}

__all__ = [
    "Check",
    "ExportStage",
    "FitStage",
    "Grid",
    "Initialize",
    "LRFind",
    "Overfit",
    "Stage",
    "StageResult",
    "arrange",
    "built_in_stages",
    "default_stages",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
