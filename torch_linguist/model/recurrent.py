"""Recurrent language models: Elman RNN, LSTM, GRU.

Shape legend: B batch, T time, V vocabulary, D embedding, H hidden, L layers.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.model.mogrifier import MogrifierLSTM
from torch_linguist.model.recurrent_base import RecurrentLanguageModel
from torch_linguist.model.stock_architecture import ExportSpecification


class LSTM(RecurrentLanguageModel):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), with forget gates biased to one. State: [h, c].

    See `RecurrentLanguageModel` for the other arguments and errors.

    Args:
        mogrifier_rounds: rounds in which input and hidden vector gate each other before each step; see `MogrifierLSTM`.
            The step loop then replaces the fused kernels.
        mogrifier_rank: rank of the matrices of these gates; None for full matrices.
        capped_input_gate: whether the input gate is at most one minus the forget gate; see `MogrifierLSTM`.

    Example:
        >>> network = LSTM(vocab_size=100, embedding_dim=8, hidden_size=16)
        >>> logits, state = network(torch.zeros(2, 5, dtype=torch.long), network.initial_state(2))
        >>> logits.shape, [tuple(part.shape) for part in state]
        (torch.Size([2, 5, 100]), [(1, 2, 16), (1, 2, 16)])
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
        mogrifier_rounds: int = 0,
        mogrifier_rank: int | None = None,
        capped_input_gate: bool = False,
    ) -> None:
        self.has_own_cell: bool = mogrifier_rounds != 0 or capped_input_gate
        self._cell_options = (mogrifier_rounds, mogrifier_rank, capped_input_gate)
        super().__init__(
            vocab_size,
            embedding_dim,
            hidden_size,
            num_layers,
            dropout,
            tied,
            output,
            cutoffs,
            projection_size,
            weight_dropout,
            output_bias,
            embedding_dropout,
            activation_penalty,
            temporal_penalty,
            num_softmaxes,
        )

    def new_layer(self, input_size: int, hidden_size: int) -> nn.Module:
        if self.has_own_cell:
            return MogrifierLSTM(input_size, hidden_size, *self._cell_options)
        return nn.LSTM(input_size, hidden_size)

    def export_specification(self) -> ExportSpecification:
        return ExportSpecification() if self.has_own_cell else super().export_specification()

    def quantized(self) -> nn.Module:
        if self.has_own_cell:
            raise LinguistError("--quantize: has no form of model.mogrifier_rounds and capped_input_gate; use --jit")
        return super().quantized()

    def initial_state(self, batch_size: int) -> list[Tensor]:
        return [self._zeros(batch_size), self._zeros(batch_size)]

    def encode(self, embedded: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        features = embedded.transpose(0, 1)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            features = self._enter(features)
        hiddens: list[Tensor] = []
        cells: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            if index > 0:
                features = self.between(features)
            past = (state[0][index : index + 1], state[1][index : index + 1])
            if torch.jit.is_scripting():  # type: ignore[attr-defined]
                features, (hidden, cell) = layer(features, past)
            else:
                features, hidden, cell = self._run(layer, features, past)
            hiddens.append(hidden)
            cells.append(cell)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            features = self._leave(features)
        return self.projection(features).transpose(0, 1), [torch.cat(hiddens), torch.cat(cells)]

    @torch.jit.unused
    def _run(self, layer: nn.Module, features: Tensor, past: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(layer, MogrifierLSTM) and self._passes_weights(features):
            features, (hidden, cell) = layer.read(features, past, self._weights(layer, features)[1])
            return features, hidden, cell
        if self._passes_weights(features):
            weights = self._weights(layer, features)
            return torch.lstm(features, past, weights, True, 1, 0.0, True, False, False)
        features, (hidden, cell) = layer(features, past)
        return features, hidden, cell


class _SingleStateModel(RecurrentLanguageModel):
    """Base class of the families whose state is one tensor, [h]."""

    def initial_state(self, batch_size: int) -> list[Tensor]:
        return [self._zeros(batch_size)]

    def encode(self, embedded: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        features = embedded.transpose(0, 1)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            features = self._enter(features)
        hiddens: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            if index > 0:
                features = self.between(features)
            past = state[0][index : index + 1]
            if torch.jit.is_scripting():  # type: ignore[attr-defined]
                features, hidden = layer(features, past)
            else:
                features, hidden = self._run(layer, features, past)
            hiddens.append(hidden)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            features = self._leave(features)
        return self.projection(features).transpose(0, 1), [torch.cat(hiddens)]

    @torch.jit.unused
    def _run(self, layer: nn.Module, features: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        if self._passes_weights(features):
            kernels = {"GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}
            recurrent = cast(nn.RNNBase, layer)
            weights = self._weights(recurrent, features)
            return kernels[recurrent.mode](features, past, weights, True, 1, 0.0, True, False, False)
        features, hidden = layer(features, past)
        return features, hidden


class GRU(_SingleStateModel):
    """Gated recurrent unit (Cho et al. 2014), in cuDNN's variant: reset gate after the product. State: [h].

    See `RecurrentLanguageModel` for the arguments and errors.

    Example:
        >>> network = GRU(vocab_size=100, embedding_dim=8, hidden_size=16)
        >>> logits, state = network(torch.zeros(2, 5, dtype=torch.long), network.initial_state(2))
        >>> logits.shape, [tuple(part.shape) for part in state]
        (torch.Size([2, 5, 100]), [(1, 2, 16)])
    """

    def new_layer(self, input_size: int, hidden_size: int) -> nn.Module:
        return nn.GRU(input_size, hidden_size)


class RNN(_SingleStateModel):
    """Simple recurrent network (Elman 1990; as a language model Mikolov et al. 2010). State: [h].

    See `RecurrentLanguageModel` for the other arguments. With `relu` the recurrent weight starts at the identity (Le et
    al. 2015), which keeps its gradients from vanishing.

    Args:
        nonlinearity: `tanh` or `relu`.

    Raises:
        LinguistError: a value is out of range, or tied weights do not fit.

    Example:
        >>> network = RNN(vocab_size=100, embedding_dim=8, hidden_size=16)
        >>> logits, state = network(torch.zeros(2, 5, dtype=torch.long), network.initial_state(2))
        >>> logits.shape, [tuple(part.shape) for part in state]
        (torch.Size([2, 5, 100]), [(1, 2, 16)])
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
        nonlinearity: str = "tanh",
        output_bias: bool = True,
        embedding_dropout: float = 0.0,
        activation_penalty: float = 0.0,
        temporal_penalty: float = 0.0,
        num_softmaxes: int = 1,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise LinguistError(f"model.nonlinearity={nonlinearity}: must be tanh or relu")
        self.nonlinearity: str = nonlinearity
        super().__init__(
            vocab_size,
            embedding_dim,
            hidden_size,
            num_layers,
            dropout,
            tied,
            output,
            cutoffs,
            projection_size,
            weight_dropout,
            output_bias,
            embedding_dropout,
            activation_penalty,
            temporal_penalty,
            num_softmaxes,
        )

    def new_layer(self, input_size: int, hidden_size: int) -> nn.Module:
        return nn.RNN(input_size, hidden_size, nonlinearity=self.nonlinearity)
