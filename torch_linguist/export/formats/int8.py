"""Eight-bit integers for the weights: a quarter of the size, computed where they are multiplied (dynamic quantization).

Linear layers, LSTM and GRU take integers on both sides, the embedding is kept in integers row by row. The simple RNN
has no such kernel: of it only the embedding and the linear layers shrink.

Shape legend: B batch, T time, V vocabulary, D width of the hidden vectors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from torch_linguist.data import Tokenizer
from torch_linguist.export.comparison import ExportReport
from torch_linguist.export.torchscript import write_jit
from torch_linguist.model import LanguageModel

SAME_KERNELS = 1e-3
"""Nats within which the file must equal the quantized model that it was made from."""


def export_int8(
    model: LanguageModel, tokenizer: Tokenizer, path: Path, settings: Mapping[str, Any] | None = None
) -> ExportReport:
    """Writes a quantized copy of a model as TorchScript.

    Args:
        model: a neural model; it is left as it was.
        tokenizer: the one it was trained with.
        path: of the file.
        settings: plain types that are kept in the file.

    Returns:
        Where it is, and how close to the quantized (not the original) model.

    Raises:
        LinguistError: the model cannot be quantized, or the file differs from it or cannot be written.
    """
    with torch.no_grad():
        quantized = model.quantized().eval()
    difference = write_jit(quantized, quantized, tokenizer, path, settings, tolerance=SAME_KERNELS)
    return ExportReport(path, difference, path.stat().st_size / 2**20)


__all__ = ["export_int8"]
