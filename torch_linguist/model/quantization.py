"""Dynamic quantization to 8-bit integers: a quarter of the size, with integer products where kernels exist.

Linear layers, LSTM and GRU multiply integers; the embedding is stored as integers row by row. The simple RNN has no
such kernel, so only its embedding and its linear layers shrink.

Shape legend: B batch, T time, V vocabulary.
"""

import copy
import warnings
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch_linguist.model.neural import NeuralLanguageModel
    from torch_linguist.model.output import OutputLayer


class QuantizedModel(nn.Module):
    """A quantized copy of a neural model with `forward` and `initial_state` of the contract.

    Args:
        model: the model to copy and quantize.
    """

    def __init__(self, model: "NeuralLanguageModel") -> None:
        super().__init__()
        self.vocab_size: int = model.vocab_size
        self.context_length: int = model.context_length
        # A quantized embedding cannot tell the type of the state, so a state for a batch of one is kept.
        self.start: list[Tensor] = [tensor.detach().clone() for tensor in model.initial_state(1)]
        network = copy.deepcopy(model).cpu().eval()
        network.output = cast("OutputLayer", network.output.linear_layers())
        self.network = _quantize(network)

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits [B, T, V] after tokens [B, T], and the new state."""
        logits, new_state = self.network(tokens, state)
        return logits, new_state

    @torch.jit.export
    def initial_state(self, batch_size: int) -> list[Tensor]:
        """Return the state before the first token."""
        return [tensor.repeat_interleave(batch_size, dim=1) for tensor in self.start]


def _quantize(network: nn.Module) -> nn.Module:
    from torch.ao import quantization

    with warnings.catch_warnings():
        # torch is moving these functions to the package torchao.
        warnings.simplefilter("ignore")
        kinds = dict.fromkeys((nn.Linear, nn.LSTM, nn.GRU), quantization.default_dynamic_qconfig)
        kinds[nn.Embedding] = quantization.float_qparams_weight_only_qconfig
        quantized: nn.Module = quantization.quantize_dynamic(network, kinds, dtype=torch.qint8)  # type: ignore[no-untyped-call]
    return quantized


__all__ = ["QuantizedModel"]
