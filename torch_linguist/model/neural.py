"""Base class of the neural families: input embedding, hidden layers, output layer.

Shape legend: B batch, T time, V vocabulary, D embedding, H hidden, N = B * T.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.model.base import LanguageModel
from torch_linguist.model.dropout import Dropout, LockedDropout
from torch_linguist.model.outputs.adaptive_softmax import AdaptiveOutput
from torch_linguist.model.outputs.mixture_of_softmaxes import MixtureOutput
from torch_linguist.model.outputs.output import FullOutput, OutputLayer
from torch_linguist.model.outputs.sampled_softmax import SampledOutput
from torch_linguist.model.quantization import QuantizedModel
from torch_linguist.model.stock_architecture import ExportSpecification

OUTPUTS = ("auto", "full", "adaptive", "sampled")

SAMPLED_HEAD = 512
"""Number of types that the sampled softmax always includes, unless `cutoffs` sets it."""

SMALL_VOCABULARY = 1024
"""Largest vocabulary for which `output=auto` is the full softmax, because sampling saves no time. Checkpoints of such
models rely on this number."""

UNSEEN_COUNT = 0.5
"""Pseudo-count of every token, so that none is impossible."""

START_LENGTH = 2.0
"""Length of the vectors that an embedding starts from, relative to the mean length of the random ones."""


class NeuralLanguageModel(LanguageModel):
    """Embedding -> `encode`, which a subclass implements -> output layer.

    Args:
        vocab_size: V.
        embedding_dim: D.
        encoded_size: width H of the vectors that `encode` returns.
        dropout: dropout rate of the embedded and of the encoded features.
        tied: whether the output shares the embedding's weight (Press & Wolf 2017); `encoded_size` must then equal D.
        output: `full`, `adaptive`, `sampled` or `auto`; see `make_output`.
        cutoffs: ranks at which the clusters of the adaptive softmax begin, or the one rank from which the sampled
            softmax samples; None chooses by V.
        locked_dropout: whether a sequence keeps one dropout mask over time.
        output_bias: whether the output adds a bias to each logit; False needs `full` or `sampled`.
        num_softmaxes: number of softmaxes that are mixed; see `MixtureOutput`.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        encoded_size: int,
        dropout: float,
        tied: bool,
        output: str,
        cutoffs: Sequence[int] | None,
        locked_dropout: bool = False,
        output_bias: bool = True,
        num_softmaxes: int = 1,
    ) -> None:
        super().__init__()
        if vocab_size < 1:
            raise LinguistError(f"vocab_size={vocab_size}: must be at least 1")
        if not 0 <= dropout < 1:
            raise LinguistError(f"model.dropout={dropout}: must be at least 0 and less than 1")
        if tied and encoded_size != embedding_dim:
            raise LinguistError(
                f"model.tied=true: the output's width {encoded_size} must equal model.embedding_dim={embedding_dim}; "
                f"set model.projection_size={embedding_dim} or model.tied=false"
            )
        self.vocab_size: int = vocab_size
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        # A norm before the output, as in the Transformer, returns long vectors; their logits must start small.
        nn.init.normal_(self.embedding.weight, std=0.1 if locked_dropout or not tied else 0.02)
        self.dropout = LockedDropout(dropout, time_axis=1) if locked_dropout else Dropout(dropout)
        shared = self.embedding.get_parameter("weight") if tied else None
        self.output = make_output(output, vocab_size, encoded_size, cutoffs, shared, output_bias)
        if num_softmaxes < 1:
            raise LinguistError(f"model.num_softmaxes={num_softmaxes}: must be at least 1")
        if num_softmaxes > 1:
            self.output = MixtureOutput(self.output, encoded_size, num_softmaxes)
        self.may_skip_weights = self.output.may_skip_weights
        self.samples_vocabulary = self.output.samples_vocabulary

    has_hidden = True

    @property
    def input_embedding(self) -> nn.Embedding | None:
        return self.embedding

    @abstractmethod
    def encode(self, embedded: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]: ...

    def embedded(self, tokens: Tensor) -> Tensor:
        """Return the embeddings [B, T, D] of tokens [B, T] as `encode` reads them."""
        features: Tensor = self.dropout(self.embedding(tokens))
        return features

    def hidden(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        encoded, new_state = self.encode(self.embedded(tokens), state)
        return self.dropout(encoded), new_state

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        hidden, new_state = self.hidden(tokens, state)
        return self.output(hidden), new_state

    def nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        hidden, new_state = self.hidden(tokens, state)
        return self.hidden_nll(hidden, targets), new_state

    def hidden_nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return self.output.nll(hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)).view_as(targets)

    def prepare_vocabulary(self, token_counts: Tensor) -> None:
        self.output.order_by(token_counts)

    def start_at_unigram(self, token_counts: Tensor) -> bool:
        counts = token_counts.double() + UNSEEN_COUNT
        return self.output.start_at((counts / counts.sum()).log().to(self.embedding.weight))

    @torch.no_grad()
    def scale_logits(self, factor: float) -> bool:
        weight = self.last_weight()
        if weight is None or not self.output.is_affine:
            return False
        weight.mul_(factor)
        self.output.scale_biases(factor)
        return True

    def last_weight(self) -> nn.Parameter | None:
        """Return a weight to which the logits without their biases are proportional; None if there is none."""
        if isinstance(self.output, FullOutput) and self.output.weight is not self.embedding.weight:
            return self.output.weight
        return None

    def hidden_matrices(self) -> list[tuple[nn.Parameter, int]]:
        outside = {id(weight) for part in (self.embedding, self.output) for weight in part.parameters()}
        return [(weight, 1) for weight in self.parameters() if weight.dim() == 2 and id(weight) not in outside]

    def vocabulary_parameters(self) -> list[str]:
        names = self.output.vocabulary_parameters()
        return ["embedding.weight", *(f"output.{name}" for name in names)]

    def use_sparse_gradients(self, enabled: Callable[[nn.Parameter], bool]) -> None:
        super().use_sparse_gradients(enabled)
        self.output.use_sparse_gradients(enabled)

    def draw_sample(self, targets: Tensor, generator: torch.Generator, hidden: Tensor | None = None) -> None:
        rows = None if hidden is None else hidden.reshape(-1, hidden.shape[-1])
        self.output.draw_sample(targets.reshape(-1), generator, rows)

    def set_training_loss(self, label_smoothing: float, z_loss: float) -> None:
        self.output.set_training_loss(label_smoothing, z_loss)

    def export_specification(self) -> ExportSpecification:
        return ExportSpecification(traceable=True)

    def quantized(self) -> nn.Module:
        return QuantizedModel(self)

    @torch.no_grad()
    def start_embedding(self, vectors: Tensor) -> None:
        weight = self.embedding.weight
        scaled = vectors.to(weight) * weight.norm(dim=1).mean() * START_LENGTH
        weight.copy_(torch.where(vectors.any(dim=1, keepdim=True).to(weight.device), scaled, weight))


MOST_LAYERS = 1000
LARGEST_SIZE = 2**24


def check_sizes(**sizes: int) -> None:
    """Check the sizes of a model before anything of it is built.

    Raises:
        LinguistError: a size is less than 1 or larger than in any model of use.
    """
    for name, value in sizes.items():
        if value < 1:
            raise LinguistError(f"model.{name}={value}: must be at least 1")
        largest = MOST_LAYERS if name == "num_layers" else LARGEST_SIZE
        if value > largest:
            raise LinguistError(f"model.{name}={value}: must be between 1 and {largest:,}")


def make_output(
    kind: str,
    vocab_size: int,
    input_size: int,
    cutoffs: Sequence[int] | None,
    tied: nn.Parameter | None,
    bias: bool = True,
) -> OutputLayer:
    """Return the output layer named `full`, `adaptive` or `sampled`.

    `auto` is `full` for a small vocabulary, unless `cutoffs` says from where to sample, and `sampled` for any other.

    Raises:
        LinguistError: the name is unknown, the cutoffs do not fit the vocabulary, or the layer needs a bias.
    """
    if kind == "auto":
        kind = "full" if vocab_size <= SMALL_VOCABULARY and cutoffs is None else "sampled"
    if kind == "full":
        return FullOutput(vocab_size, input_size, tied, bias)
    if kind == "sampled":
        return SampledOutput(vocab_size, input_size, tied, _head_size(vocab_size, cutoffs), bias)
    if kind == "adaptive":
        if not bias:
            raise LinguistError(
                "model.output_bias=false: an adaptive softmax needs its biases; set model.output=full or sampled"
            )
        return AdaptiveOutput(vocab_size, input_size, cutoffs, tied=tied)
    raise LinguistError(f"model.output={kind}: must be one of {', '.join(OUTPUTS)}")


def _head_size(vocab_size: int, cutoffs: Sequence[int] | None) -> int:
    """Return the number of types that the sampled softmax always includes."""
    if cutoffs is None:
        return min(SAMPLED_HEAD, vocab_size)
    if len(cutoffs) != 1 or not 0 < cutoffs[0] <= vocab_size:
        raise LinguistError(
            f"model.cutoffs={list(cutoffs)}: model.output=sampled needs one number between 1 and {vocab_size} "
            "(the vocabulary)"
        )
    return cutoffs[0]
