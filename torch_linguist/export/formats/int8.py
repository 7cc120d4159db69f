"""TorchScript with 8-bit weights: a quarter of the size, at a small loss of accuracy."""

from typing import TYPE_CHECKING

from torch_linguist.export.formats.jit import TorchScriptFile

if TYPE_CHECKING:
    from torch import nn

    from torch_linguist.model import LanguageModel


class Int8TorchScriptFile(TorchScriptFile):
    """A quantized copy of a neural model as TorchScript; the file equals the copy, not the original."""

    name = "int8"
    file_name = "model.int8.jit"
    help = "TorchScript with 8-bit weights; neural models"
    description = "TorchScript with 8-bit weights: used like `model.jit`"
    is_exact = False
    takes_mixtures = False
    # The compiler may round an activation to the neighboring integer.
    tolerance = 1e-3

    def network(self, model: "LanguageModel") -> "nn.Module":
        return model.quantized()
