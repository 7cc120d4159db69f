"""From a trained model to files that run elsewhere: TorchScript, torch.export, ONNX, eight-bit integers."""

from torch_linguist.export.comparison import ExportReport, ForeignModel, Speed, compare, measure_speed, perplexities
from torch_linguist.export.loading import LoadedExport, load_jit
from torch_linguist.export.torchscript import ExportedModel, export_jit

__all__ = [
    "ExportReport",
    "ExportedModel",
    "ForeignModel",
    "LoadedExport",
    "Speed",
    "compare",
    "export_jit",
    "load_jit",
    "measure_speed",
    "perplexities",
]
