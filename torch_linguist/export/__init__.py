"""Writes a trained model to files that other programs load: TorchScript, torch.export, ONNX, 8-bit integers.

The names are loaded on first use, so that listing the formats does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from torch_linguist.export.export_format import CheckedFile, ExportFormat, ExportReport, export_formats

if TYPE_CHECKING:
    from torch_linguist.export.comparison import ExportAdapter, Speed, compare, measure_speed, perplexities
    from torch_linguist.export.exporting import ExportedFile, export_file, export_jit
    from torch_linguist.export.loading import LoadedExport, load_jit

_MODULES = {
    "comparison": ("ExportAdapter", "Speed", "compare", "measure_speed", "perplexities"),
    "exporting": ("ExportedFile", "export_file", "export_jit"),
    "loading": ("LoadedExport", "load_jit"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "CheckedFile",
    "ExportAdapter",
    "ExportFormat",
    "ExportReport",
    "ExportedFile",
    "LoadedExport",
    "Speed",
    "compare",
    "export_file",
    "export_formats",
    "export_jit",
    "load_jit",
    "measure_speed",
    "perplexities",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
