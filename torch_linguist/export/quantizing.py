"""Eight-bit integers for the weights: a quarter of the size, computed where they are multiplied (dynamic quantisation).

Linear layers, LSTM and GRU take integers on both sides, the embedding is kept in integers row by row. The simple RNN
has no such kernel: of it only the embedding and the linear layers shrink.

Shape legend: B batch, T time, V vocabulary, D width of the hidden vectors.
"""

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.export.comparing import ExportReport
from torch_linguist.export.torchscript import write_jit
from torch_linguist.model import LanguageModel
from torch_linguist.model.adaptive_softmax import AdaptiveOutput
from torch_linguist.model.neural import NeuralLanguageModel
from torch_linguist.model.output import FullOutput

SAME_KERNELS = 1e-3
"""Nats within which the file must equal the quantised model that it was made from."""


class _LinearOutput(nn.Module):
    """An output layer made of linear layers alone, which quantisation knows; logits only."""

    def __init__(self, output: nn.Module) -> None:
        super().__init__()
        self.projections = nn.ModuleList()
        self.tails = nn.ModuleList()
        if isinstance(output, FullOutput):
            self.head_size: int = output.weight.shape[0]
            self.head = _linear(output.weight, output.bias)
            order = torch.arange(self.head_size)
        elif isinstance(output, AdaptiveOutput):
            self.head_size = output.head_size
            self.head = _linear(output._head_weight(), output.head_bias)
            self.projections, self.tails = copy.deepcopy(output.projections), copy.deepcopy(output.tails)
            order = output.rank_of_id.clone()
        else:
            raise LinguistError(f"--quantize: does not know the output layer {type(output).__name__}")
        self.register_buffer("rank_of_id", order)

    rank_of_id: Tensor

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [B, T, V] of hidden vectors [B, T, D]."""
        head = torch.log_softmax(self.head(hidden), dim=-1)
        parts = [head[..., : self.head_size]]
        for index, (projection, tail) in enumerate(zip(self.projections, self.tails)):  # noqa: B905  (TorchScript)
            within = torch.log_softmax(tail(projection(hidden)), dim=-1)
            parts.append(within + head[..., self.head_size + index : self.head_size + index + 1])
        return torch.cat(parts, dim=-1).index_select(-1, self.rank_of_id)


class QuantizedModel(nn.Module):
    """A quantised model with what is left of the contract: `forward` and `initial_state`.

    Args:
        model: a neural model; a copy of it is quantised.

    Raises:
        LinguistError: the model has no weights to quantise.
    """

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        if not isinstance(model, NeuralLanguageModel):
            raise LinguistError(f"--quantize: a {type(model).__name__} has no weights that could become integers")
        self.vocab_size: int = model.vocab_size
        self.context_length: int = model.context_length
        # The parts of a state, with a batch of one; a quantised embedding could not say their type.
        self.start: list[Tensor] = [tensor.detach().clone() for tensor in model.initial_state(1)]
        network = copy.deepcopy(model).cpu().eval()
        network.output = _LinearOutput(network.output)  # type: ignore[assignment]
        self.network = _quantize(network)

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits [B, T, V] after tokens [B, T], and the new state."""
        logits, new_state = self.network(tokens, state)
        return logits, new_state

    @torch.jit.export
    def initial_state(self, batch_size: int) -> list[Tensor]:
        """The state before any token."""
        return [tensor.repeat_interleave(batch_size, dim=1) for tensor in self.start]


def export_int8(
    model: LanguageModel, tokenizer: Tokenizer, path: Path, settings: Mapping[str, Any] | None = None
) -> ExportReport:
    """Writes a quantised copy of a model as TorchScript.

    Args:
        model: a neural model; it is left as it was.
        tokenizer: the one it was trained with.
        path: of the file.
        settings: plain types that are kept in the file.

    Returns:
        Where it is, and how close to the quantised (not the original) model.

    Raises:
        LinguistError: the model cannot be quantised, or the file differs from it or cannot be written.
    """
    with torch.no_grad():
        quantized = QuantizedModel(model).eval()
    difference = write_jit(quantized, quantized, tokenizer, path, settings, tolerance=SAME_KERNELS)
    return ExportReport(path, difference, path.stat().st_size / 2**20)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight = nn.Parameter(weight.detach().clone())
    linear.bias = nn.Parameter(bias.detach().clone())
    return linear


def _quantize(network: nn.Module) -> nn.Module:
    from torch.ao import quantization

    with warnings.catch_warnings():
        # torch moves this to a package of its own, torchao, in a later version.
        warnings.simplefilter("ignore")
        kinds = dict.fromkeys((nn.Linear, nn.LSTM, nn.GRU), quantization.default_dynamic_qconfig)
        kinds[nn.Embedding] = quantization.float_qparams_weight_only_qconfig
        quantized: nn.Module = quantization.quantize_dynamic(network, kinds, dtype=torch.qint8)  # type: ignore[no-untyped-call]
    return quantized


__all__ = ["QuantizedModel", "export_int8"]
