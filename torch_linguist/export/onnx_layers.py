"""Recurrent layers as operators of ONNX, for torch's current exporter.

`torch.export` fixes the number of tokens of `nn.RNN`, `nn.LSTM` and `nn.GRU` to that of the example (tried with torch
2.11, 2.13 and 2.15). ONNX has operators of its own for these layers, and the exporter takes them as they are.

Shape legend: B batch, T time, D input, H hidden.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx import ops

GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN_TANH": (0,), "RNN_RELU": (0,)}
"""Positions of ONNX's gates among torch's: ONNX has input, output, forget, cell and update, reset, hidden."""


class OnnxRecurrentLayer(nn.Module):
    """A recurrent layer that is exported as `RNN`, `LSTM` or `GRU` of ONNX; it computes nothing itself.

    Args:
        layer: single layer in one direction, whose weights are copied.
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self._operator, _, activation = layer.mode.partition("_")
        self._hidden_size = layer.hidden_size
        self._attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
        if activation:
            self._attributes["activations"] = [activation.capitalize()]
        elif self._operator == "GRU":
            self._attributes["linear_before_reset"] = 1
        order = GATES[layer.mode]
        input_weight, hidden_weight, input_bias, hidden_bias = (
            torch.cat([layer.get_parameter(f"{name}_l0").detach().chunk(len(order))[gate] for gate in order])[None]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        self.register_buffer("input_weight", input_weight)
        self.register_buffer("hidden_weight", hidden_weight)
        self.register_buffer("bias", torch.cat([input_bias, hidden_bias], dim=1))

    def forward(self, features: Tensor, past: Any) -> tuple[Tensor, Any]:
        """Take features [T, B, D] and the state of the layer; return features [T, B, H] and the new state."""
        state = list(past) if self._operator == "LSTM" else [past]
        length, batch_size, _ = features.shape
        weights = [self.get_buffer(name) for name in ("input_weight", "hidden_weight", "bias")]
        lengths = None  # All rows have the same length.
        features, *new_state = ops.symbolic_multi_out(
            self._operator,
            [features, *weights, lengths, *state],
            self._attributes,
            dtypes=[features.dtype] * (1 + len(state)),
            shapes=[(length, 1, batch_size, self._hidden_size), *([(1, batch_size, self._hidden_size)] * len(state))],
        )
        return features.squeeze(1), tuple(new_state) if self._operator == "LSTM" else new_state[0]


def with_onnx_layers(model: nn.Module) -> nn.Module:
    """Return a copy of a model in which operators of ONNX take the place of the recurrent layers."""
    copied = copy.deepcopy(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.RNNBase):
            copied.set_submodule(name, OnnxRecurrentLayer(module))
    return copied
