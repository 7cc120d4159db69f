"""Output layers: from hidden vectors to log-probabilities over the vocabulary.

Shape legend: B batch, T time, V vocabulary, D embedding (the width of the hidden vector given), N = B * T.
"""

from abc import abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.model.outputs.linear_cross_entropy import linear_cross_entropy


def refuse_training_loss(label_smoothing: float, z_loss: float) -> None:
    """Raise an error if an additional loss is requested.

    Raises:
        ConfigError: one of the values is not 0.
    """
    for name, value in (("label_smoothing", label_smoothing), ("z_loss", z_loss)):
        if value:
            raise ConfigError(f"trainer.{name}={value}: needs model.output=full, or set trainer.{name}=0")


class OutputLayer(nn.Module):
    """Maps hidden vectors [..., D] to logits [..., V], and directly to the nll of given targets.

    Attributes:
        may_skip_weights: whether a training step may leave a weight without a gradient.
        samples_vocabulary: whether a training step computes the logits of a sample of the types only.
        is_affine: whether its logits, or those of each softmax, are an affine function of the hidden vector.
    """

    is_affine: bool = True
    may_skip_weights: bool = False
    samples_vocabulary: bool = False

    @abstractmethod
    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits, float32 (or float64) [..., V], of hidden vectors [..., D]."""

    @abstractmethod
    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return the nll in nats, float32 (or float64) [N], of targets [N] after hidden vectors [N, D]."""

    @abstractmethod
    def start_at(self, log_probabilities: Tensor) -> bool:
        """Set the biases such that a hidden vector of zeros predicts these log-probabilities [V].

        Returns:
            Whether the layer has biases; without any, nothing changes.
        """

    @torch.no_grad()
    def scale_biases(self, factor: float) -> None:
        """Multiply all biases by a factor."""
        for name, parameter in self.named_parameters():
            if name.rpartition(".")[2].endswith("bias"):
                parameter.mul_(factor)

    def order_by(self, token_counts: Tensor) -> None:
        """Sort the vocabulary by the occurrences of each token [V], if the layer works on ranks."""

    def use_sparse_gradients(self, enabled: Callable[[nn.Parameter], bool]) -> None:
        """Choose whether the weight has sparse gradients; see `LanguageModel.use_sparse_gradients`."""

    def draw_sample(self, targets: Tensor, generator: torch.Generator, hidden: Tensor | None = None) -> None:
        """Draw a sample for the targets [N] after hidden vectors [N, D]; see `LanguageModel.draw_sample`."""

    def set_training_loss(self, label_smoothing: float, z_loss: float) -> None:
        """Set what the training loss adds to the nll; see `LanguageModel.set_training_loss`."""
        refuse_training_loss(label_smoothing, z_loss)

    def vocabulary_parameters(self) -> list[str]:
        """Return the names of the weights that have a row for each token.

        Raises:
            LinguistError: the rows of the layer are not those of the tokens.
        """
        raise LinguistError("an adaptive softmax has no row for each token; set model.output=full or sampled")

    @abstractmethod
    def linear_layers(self) -> "LinearOutput":
        """Return a copy that consists of `nn.Linear` modules and computes logits only, for quantization."""


class FullOutput(OutputLayer):
    """A linear layer and a softmax over the whole vocabulary, with the loss fused into the matrix product.

    Args:
        vocab_size: V.
        input_size: D.
        tied: weight [V, D] of the embedding to share; None for a weight of its own.
        bias: whether each logit has a bias. Without one, the layer is that of Llama and most newer models, and a
            training starts from uniform probabilities instead of the unigram distribution.

    Attributes:
        has_bias: whether the bias is trained; otherwise it stays zero.
        label_smoothing: smoothing of the training loss; see `linear_cross_entropy`.
        z_loss: factor of the z-loss of the training loss; see `linear_cross_entropy`.
    """

    bias: Tensor

    def __init__(self, vocab_size: int, input_size: int, tied: nn.Parameter | None = None, bias: bool = True) -> None:
        super().__init__()
        if tied is None:
            self.weight = nn.Parameter(torch.empty(vocab_size, input_size).normal_(std=0.02))
        else:
            self.weight = tied
        self.has_bias: bool = bias
        if bias:
            self.bias = nn.Parameter(torch.zeros(vocab_size))
        else:
            # Zeros that nothing trains: the loss and every exporter need no second path.
            self.register_buffer("bias", torch.zeros(vocab_size))
        self.label_smoothing: float = 0.0
        self.z_loss: float = 0.0

    def forward(self, hidden: Tensor) -> Tensor:
        return widened(F.linear(hidden, self.weight, self.bias))

    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return linear_cross_entropy(hidden, self.weight, self.bias, targets)
        return linear_cross_entropy(
            hidden, self.weight, self.bias, targets, label_smoothing=self.label_smoothing, z_loss=self.z_loss
        )

    @torch.no_grad()
    def start_at(self, log_probabilities: Tensor) -> bool:
        if self.has_bias:
            self.bias.copy_(log_probabilities)
        return self.has_bias

    def set_training_loss(self, label_smoothing: float, z_loss: float) -> None:
        self.label_smoothing, self.z_loss = label_smoothing, z_loss

    def vocabulary_parameters(self) -> list[str]:
        return [name for name, _ in self.named_parameters(recurse=False)]

    def linear_layers(self) -> "LinearOutput":
        return LinearOutput(linear(self.weight, self.bias), torch.arange(len(self.weight)))


class RankedOutput(OutputLayer):
    """An output layer that sorts the vocabulary by frequency internally; ids outside stay as they are."""

    rank_of_id: Tensor
    id_of_rank: Tensor

    def register_ranks(self, vocab_size: int) -> None:
        """Add the buffers of the order, which starts as that of the ids."""
        self.register_buffer("rank_of_id", torch.arange(vocab_size))
        self.register_buffer("id_of_rank", torch.arange(vocab_size))

    def order_by(self, token_counts: Tensor) -> None:
        """Sort the vocabulary by descending frequency, then by id.

        A sorted vocabulary stays as it is: the weights may belong to ranks, so a new order would scramble them.
        """
        if not torch.equal(self.id_of_rank, torch.arange(len(self.id_of_rank), device=self.id_of_rank.device)):
            return
        order = torch.argsort(token_counts.to(self.id_of_rank.device), descending=True, stable=True)
        self.id_of_rank.copy_(order)
        self.rank_of_id[order] = torch.arange(len(order), device=order.device)


class LinearOutput(nn.Module):
    """Logits of a full or an adaptive softmax, computed by `nn.Linear` modules alone.

    Args:
        head: linear layer of the head: its tokens, then one row for each cluster.
        rank_of_id: rank of each token, int64 [V].
        projections: linear layer to the width of each cluster.
        tails: linear layer to the tokens of each cluster.
    """

    def __init__(
        self,
        head: nn.Linear,
        rank_of_id: Tensor,
        projections: nn.ModuleList | None = None,
        tails: nn.ModuleList | None = None,
    ) -> None:
        super().__init__()
        self.head = head
        self.projections = nn.ModuleList() if projections is None else projections
        self.tails = nn.ModuleList() if tails is None else tails
        self.head_size: int = head.out_features - len(self.tails)
        self.register_buffer("rank_of_id", rank_of_id)

    rank_of_id: Tensor

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits [..., V] of hidden vectors [..., D]."""
        head = torch.log_softmax(self.head(hidden), dim=-1)
        parts = [head[..., : self.head_size]]
        for index, (projection, tail) in enumerate(zip(self.projections, self.tails)):  # noqa: B905  (TorchScript)
            within = torch.log_softmax(tail(projection(hidden)), dim=-1)
            parts.append(within + head[..., self.head_size + index : self.head_size + index + 1])
        return torch.cat(parts, dim=-1).index_select(-1, self.rank_of_id)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a linear layer with a copy of a weight [V, D] and a bias [V]."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
    return layer


def widened(features: Tensor) -> Tensor:
    """Return features in float32 if they are narrower (autocast); float64 stays."""
    return features if features.dtype == torch.float64 else features.float()
