"""8-bit integers for weights and activations: a quarter of the size, and integer products.

Every row of a weight matrix and every token's activation vector has its own scale, its largest absolute value / 127.
The logits of a text therefore do not depend on the other texts of a batch or on how the text is cut into calls.

Shape legend: B batch, T time, V vocabulary, D and E widths of input and output, H hidden.
"""

import copy
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch_linguist.model.neural import NeuralLanguageModel
    from torch_linguist.model.outputs.output import OutputLayer


class QuantizedModel(nn.Module):
    """A quantized copy of a neural model, with `forward` and `initial_state` of the contract.

    Args:
        model: the model to copy.
    """

    def __init__(self, model: "NeuralLanguageModel") -> None:
        super().__init__()
        self.vocab_size: int = model.vocab_size
        self.context_length: int = model.context_length
        # The quantized embedding does not have the type of the state, so the state for a batch of one is kept.
        self.start: list[Tensor] = [tensor.detach().cpu().clone() for tensor in model.initial_state(1)]
        network = copy.deepcopy(model).float().cpu().eval()
        network.output = cast("OutputLayer", network.output.linear_layers())
        _quantize_children(network)
        self.network = network

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits [B, T, V] after tokens [B, T], and the new state."""
        logits, new_state = self.network(tokens, state)
        return logits, new_state

    @torch.jit.export
    def initial_state(self, batch_size: int) -> list[Tensor]:
        """Return the state before the first token."""
        return [tensor.repeat_interleave(batch_size, dim=1) for tensor in self.start]


class Int8Linear(nn.Module):
    """A linear layer with integer weights [E, D].

    Args:
        weight: float weight [E, D].
        bias: bias [E]; None for none.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        quantized, scale = quantize_rows(weight.detach())
        self.register_buffer("weight", quantized)
        self.register_buffer("scale", scale.squeeze(1))
        self.register_buffer("bias", torch.zeros(len(weight)) if bias is None else bias.detach().clone())

    def forward(self, features: Tensor) -> Tensor:
        """Map features [..., D] to [..., E]."""
        rows, scale = quantize_rows(features.reshape(-1, features.shape[-1]))
        product = torch._int_mm(rows, self.weight.t()).to(torch.float32) * scale * self.scale + self.bias
        return product.view(features.shape[:-1] + product.shape[-1:])


class Int8Embedding(nn.Module):
    """An embedding with integer weights [V, D]."""

    weight: Tensor
    scale: Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        quantized, scale = quantize_rows(embedding.weight.detach())
        self.register_buffer("weight", quantized)
        self.register_buffer("scale", scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the vectors [..., D] of tokens [...]."""
        return self.weight[tokens].to(torch.float32) * self.scale[tokens]


class _Int8Recurrent(nn.Module):
    """The two linear layers of a single-layer recurrent module.

    Args:
        layer: time-major `nn.RNN`, `nn.LSTM` or `nn.GRU` with one layer.
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.from_input = Int8Linear(layer.get_parameter("weight_ih_l0"), layer.get_parameter("bias_ih_l0"))
        self.from_hidden = Int8Linear(layer.get_parameter("weight_hh_l0"), layer.get_parameter("bias_hh_l0"))
        self.relu: bool = layer.mode == "RNN_RELU"


class Int8LSTM(_Int8Recurrent):
    """`nn.LSTM`, one layer."""

    def forward(self, features: Tensor, past: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map features [T, B, D] and h, c [1, B, H] to the hidden vectors [T, B, H] and the last h, c."""
        hidden, cell = past[0][0], past[1][0]
        outputs: list[Tensor] = []
        for gates in self.from_input(features):
            entry, forget, new, output = (gates + self.from_hidden(hidden)).chunk(4, dim=1)
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(entry) * torch.tanh(new)
            hidden = torch.sigmoid(output) * torch.tanh(cell)
            outputs.append(hidden)
        return torch.stack(outputs), (hidden.unsqueeze(0), cell.unsqueeze(0))


class Int8GRU(_Int8Recurrent):
    """`nn.GRU`, one layer."""

    def forward(self, features: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Map features [T, B, D] and h [1, B, H] to the hidden vectors [T, B, H] and the last h."""
        hidden = past[0]
        outputs: list[Tensor] = []
        for gates in self.from_input(features):
            reset, update, new = gates.chunk(3, dim=1)
            hidden_reset, hidden_update, hidden_new = self.from_hidden(hidden).chunk(3, dim=1)
            update = torch.sigmoid(update + hidden_update)
            new = torch.tanh(new + torch.sigmoid(reset + hidden_reset) * hidden_new)
            hidden = (1.0 - update) * new + update * hidden
            outputs.append(hidden)
        return torch.stack(outputs), hidden.unsqueeze(0)


class Int8RNN(_Int8Recurrent):
    """`nn.RNN`, one layer."""

    def forward(self, features: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Map features [T, B, D] and h [1, B, H] to the hidden vectors [T, B, H] and the last h."""
        hidden = past[0]
        outputs: list[Tensor] = []
        for gate in self.from_input(features):
            total = gate + self.from_hidden(hidden)
            hidden = torch.relu(total) if self.relu else torch.tanh(total)
            outputs.append(hidden)
        return torch.stack(outputs), hidden.unsqueeze(0)


_RECURRENT: dict[type[nn.Module], type[_Int8Recurrent]] = {nn.LSTM: Int8LSTM, nn.GRU: Int8GRU, nn.RNN: Int8RNN}


def quantize_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of a matrix [N, D] as int8, and the scale of each row [N, 1]."""
    # A row of zeros needs a scale too.
    scale = values.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127.0
    return torch.round(values / scale).to(torch.int8), scale


def _quantize_children(module: nn.Module) -> None:
    """Replace the linear, embedding and recurrent layers inside a module."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child.weight, child.bias))
        elif isinstance(child, nn.Embedding):
            setattr(module, name, Int8Embedding(child))
        elif isinstance(child, nn.RNNBase):
            setattr(module, name, _RECURRENT[type(child)](child))
        else:
            _quantize_children(child)
