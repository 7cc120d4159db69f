"""What the recurrent language models share: the stack of layers, their dropout and their initialization.

The layers are single-layer `nn.RNN`, `nn.LSTM` and `nn.GRU` modules with `LockedDropout` between them: such a training
resumes exactly on every device, and the fused kernels (oneDNN, cuDNN) still run over the whole sequence.

Shape legend: B batch, T time, V vocabulary, D embedding, H hidden, L layers.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.model.dropout import LockedDropout, WordDropout, dropout
from torch_linguist.model.neural import NeuralLanguageModel, check_sizes
from torch_linguist.model.stock_architecture import ExportSpecification

HALF_DEVICES = ("cuda",)
"""Devices whose recurrent layers autocast runs in float16, even where it is to use bfloat16."""

GRADIENT_SCALE = 1024.0
"""Factor of the gradients inside such layers: float16 would round those of a mean over a large batch to zero. A power
of two changes nothing else."""


class RecurrentLanguageModel(NeuralLanguageModel):
    """Base class of RNN, LSTM and GRU: a stack of layers whose state tensors are [L, B, H].

    Args:
        vocab_size: V.
        embedding_dim: D.
        hidden_size: H.
        num_layers: L.
        dropout: dropout rate after the embedding, between the layers and before the output; one mask per sequence.
        tied: whether the output shares the embedding's weight.
        output: `full`, `adaptive` or `sampled` softmax; `auto` chooses, see `make_output`.
        cutoffs: see `NeuralLanguageModel`.
        projection_size: width of a linear layer before the output; None for the embedding's width if tied weights need
            it, else for no such layer.
        weight_dropout: share of the recurrent weights that a training pass sets to zero, one mask for all time steps
            (Merity et al. 2018, "Regularizing and optimizing LSTM language models"). The fused kernels still run.
        output_bias: whether the output adds a bias to each logit; False needs `full` or `sampled`.
        embedding_dropout: share of the vocabulary that a training pass drops from the input; see `WordDropout`.
        activation_penalty: factor of the mean square of the output layer's input, after dropout, in the training loss
            ("activation regularization", Merity et al. 2018).
        temporal_penalty: factor of the mean square of the change of that input, before dropout, from one token to the
            next in the training loss ("temporal activation regularization").
        num_softmaxes: number of softmaxes that are mixed; see `MixtureOutput`.

    Raises:
        LinguistError: a value is out of range, or tied weights do not fit.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int = 400,
        hidden_size: int = 640,
        num_layers: int = 1,
        dropout: float = 0.1,
        tied: bool = True,
        output: str = "auto",
        cutoffs: Sequence[int] | None = None,
        projection_size: int | None = None,
        weight_dropout: float = 0.0,
        output_bias: bool = True,
        embedding_dropout: float = 0.0,
        activation_penalty: float = 0.0,
        temporal_penalty: float = 0.0,
        num_softmaxes: int = 1,
    ) -> None:
        check_sizes(
            embedding_dim=embedding_dim,
            hidden_size=hidden_size,
            num_layers=num_layers,
            projection_size=1 if projection_size is None else projection_size,
        )
        layers = [self.new_layer(size, hidden_size) for size in [embedding_dim] + [hidden_size] * (num_layers - 1)]
        for name, rate in {"weight_dropout": weight_dropout, "embedding_dropout": embedding_dropout}.items():
            if not 0 <= rate < 1:
                raise LinguistError(f"model.{name}={rate}: must be at least 0 and less than 1")
        penalties = {"activation_penalty": activation_penalty, "temporal_penalty": temporal_penalty}
        for name, factor in penalties.items():
            if not factor >= 0:
                raise LinguistError(f"model.{name}={factor}: must be at least 0")
        if projection_size is None and tied and hidden_size != embedding_dim:
            projection_size = embedding_dim
        encoded_size = projection_size or hidden_size
        super().__init__(
            vocab_size,
            embedding_dim,
            encoded_size,
            dropout,
            tied,
            output,
            cutoffs,
            locked_dropout=True,
            output_bias=output_bias,
            num_softmaxes=num_softmaxes,
        )
        self.word_dropout = WordDropout(embedding_dropout, vocab_size)
        self.activation_penalty: float = activation_penalty
        self.temporal_penalty: float = temporal_penalty
        self.num_layers: int = num_layers
        self.hidden_size: int = hidden_size
        self.layers = nn.ModuleList(layers)
        self.between = LockedDropout(dropout, time_axis=0)
        self.weight_dropout: float = weight_dropout
        self.projection: nn.Module = nn.Identity()
        if projection_size is not None:
            self.projection = nn.Linear(hidden_size, projection_size, bias=False)
        for layer in layers:
            _initialize(cast(nn.RNNBase, layer))

    @abstractmethod
    def new_layer(self, input_size: int, hidden_size: int) -> nn.Module:
        """Return one layer, time-major."""

    has_hidden = True
    has_own_cell: bool = False

    def nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if not self.training or (self.activation_penalty == 0.0 and self.temporal_penalty == 0.0):
            return super().nll(tokens, targets, state)
        encoded, new_state = self.encode(self.embedded(tokens), state)
        dropped = self.dropout(encoded)
        nll = self.hidden_nll(dropped, targets) + self.activation_penalty * dropped.float().square().mean()
        if tokens.shape[1] > 1:
            nll = nll + self.temporal_penalty * encoded.float().diff(dim=1).square().mean()
        return nll, new_state

    def embedded(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.dropout(self.word_dropout(self.embedding(tokens), tokens))
        return embedded

    def export_specification(self) -> ExportSpecification:
        # The mode of an nn.RNN holds its nonlinearity too.
        kernel = cast(nn.RNNBase, self.layers[0]).mode.split("_")[0].lower()
        return ExportSpecification(traceable=True, recurrent_kernel=kernel)

    def last_weight(self) -> nn.Parameter | None:
        return (
            self.projection.get_parameter("weight") if isinstance(self.projection, nn.Linear) else super().last_weight()
        )

    def hidden_matrices(self) -> list[tuple[nn.Parameter, int]]:
        gates = {
            id(weight): len(weight) // self.hidden_size
            for layer in self.layers
            for name, weight in layer.named_parameters()
            if name.startswith("weight_")
        }
        return [(matrix, gates.get(id(matrix), count)) for matrix, count in super().hidden_matrices()]

    @torch.jit.unused
    def _enter(self, features: Tensor) -> Tensor:
        """Return the input of the layers; its gradient leaves the scale of float16."""
        return _scaled_gradient(features, 1 / GRADIENT_SCALE) if self._scales_gradients(features) else features

    @torch.jit.unused
    def _leave(self, features: Tensor) -> Tensor:
        """Return the output of the layers; its gradient takes the scale of float16 before it is rounded."""
        if not self._scales_gradients(features):
            return features
        return _scaled_gradient(features.to(torch.get_autocast_dtype(features.device.type)), GRADIENT_SCALE)

    def _weights(self, layer: nn.Module, features: Tensor) -> list[Tensor]:
        """Return the weights in the order of torch's kernels, with dropout applied to the recurrent one."""
        recurrent = dropout(layer.get_parameter("weight_hh_l0"), self.weight_dropout, self.training)
        names = ("bias_ih_l0", "bias_hh_l0")
        weights = [layer.get_parameter("weight_ih_l0"), recurrent, *map(layer.get_parameter, names)]
        if not self._scales_gradients(features):
            return weights
        return [_scaled_gradient(weight, 1 / GRADIENT_SCALE) for weight in weights]

    def _scales_gradients(self, features: Tensor) -> bool:
        device = features.device.type
        rounded = device in HALF_DEVICES and torch.is_autocast_enabled(device)
        return rounded and torch.is_grad_enabled() and not self.has_own_cell

    def disable_dropout(self) -> None:
        super().disable_dropout()
        self.weight_dropout = 0.0

    def _passes_weights(self, features: Tensor) -> bool:
        """Return whether the kernel takes changed weights in place of the layer's."""
        return (self.training and self.weight_dropout > 0.0) or self._scales_gradients(features)

    def _zeros(self, batch_size: int) -> Tensor:
        return self.embedding.weight.new_zeros(self.num_layers, batch_size, self.hidden_size)


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        return outer[0] * ctx.factor, None


def _scaled_gradient(tensor: Tensor, factor: float) -> Tensor:
    return cast(Tensor, _ScaledGradient.apply(tensor, factor))  # type: ignore[no-untyped-call]


def _initialize(layer: nn.RNNBase) -> None:
    """Initialize a layer: orthogonal recurrent weights for each gate (identity for ReLU), biases 0, forget gates 1."""
    for name, parameter in layer.named_parameters():
        if name.startswith("weight_hh"):
            for gate in torch.split(parameter.data, layer.hidden_size):
                if layer.mode == "RNN_RELU":
                    nn.init.eye_(gate)
                else:
                    nn.init.orthogonal_(gate)
        elif name.startswith("bias"):
            nn.init.zeros_(parameter)
            if layer.mode == "LSTM" and name.startswith("bias_ih"):
                parameter.data[layer.hidden_size : 2 * layer.hidden_size] = 1.0
