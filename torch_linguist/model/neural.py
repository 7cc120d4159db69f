"""What the neural families share: an embedding below, an output layer above, and the loss between them.

Shape legend: B batch, T time, V vocabulary, D embedding, H hidden, N = B * T.
"""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.model.base import LanguageModel
from torch_linguist.model.dropout import LockedDropout
from torch_linguist.model.output import make_output


class NeuralLanguageModel(LanguageModel):
    """Embedding -> `encode` (the family's own part) -> output layer.

    Args:
        vocab_size: V.
        embedding_dim: D.
        encoded_size: width of what `encode` returns.
        dropout: share of the embedding's and of the encoded features that training sets to zero.
        tied: whether the output shares the embedding's weight (Press & Wolf 2017); `encoded_size` must then be D.
        output: `full` or `adaptive`.
        cutoffs: ranks at which the adaptive softmax starts a cluster; None chooses by V.
        locked_dropout: whether a sequence keeps one dropout mask over time.
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
        nn.init.normal_(self.embedding.weight, std=0.02 if tied else 0.1)
        self.dropout = LockedDropout(dropout, time_axis=1) if locked_dropout else nn.Dropout(dropout)
        shared = self.embedding.get_parameter("weight") if tied else None
        self.output = make_output(output, vocab_size, encoded_size, cutoffs, shared)

    @abstractmethod
    def encode(self, embedded: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """From embedded tokens [B, T, D] to hidden vectors [B, T, H] that predict the next token, and the new state."""

    def hidden(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """What the output layer is given after each token: [B, T, H], and the new state."""
        encoded, new_state = self.encode(self.dropout(self.embedding(tokens)), state)
        return self.dropout(encoded), new_state

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        hidden, new_state = self.hidden(tokens, state)
        return self.output(hidden), new_state

    def nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        hidden, new_state = self.hidden(tokens, state)
        return self.hidden_nll(hidden, targets), new_state

    def hidden_nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood of the targets [B, T] in nats, after the hidden vectors [B, T, H]."""
        return self.output.nll(hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)).view_as(targets)

    def prepare_vocabulary(self, token_counts: Tensor) -> None:
        self.output.order_by(token_counts)
