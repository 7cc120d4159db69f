"""The contract that every language model obeys, from the n-gram to the Transformer.

Shape legend, used in every module of this package:
    B batch, T time, V vocabulary, D embedding, H hidden, L layers, A attention heads, N = B * T.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.model.outputs.output import refuse_training_loss
from torch_linguist.model.recorded_arguments import recording
from torch_linguist.model.stock_architecture import ExportSpecification, StockArchitecture


class LanguageModel(nn.Module, ABC):
    """Maps batches of token ids to next-token log-probabilities, with an explicit state between calls.

    A new model implements `forward`, `nll` and `initial_state`. Everything else has a default that suits a model
    without the capability; other code asks these attributes and never checks the type of a model. The constructor takes
    plain arguments (numbers, strings, lists), which are kept in `arguments`: a checkpoint builds the model from them.

    Attributes:
        vocab_size: number of token types V.
        context_length: number of tokens that a prediction can see, 0 if the state carries an unbounded past.
        history_length: number of past tokens that the state holds as ids (n-gram); None for any other state.
        is_counted: whether the model is fitted by counting (`fit_counts`), not by gradients.
        accepts_gaps: whether `nll` accepts a token of -1, a gap: later tokens are predicted without those before it.
        is_normalized: whether the probabilities of all tokens add up to one.
        has_hidden: whether `nll` equals `hidden_nll` of `hidden`, so that callers may use the two steps separately.
        has_attention: whether `attention_weights` returns a tensor.
        may_skip_weights: whether a training step may leave a weight without gradient; several processes search for it.
        samples_vocabulary: whether a training step computes the logits of a sample of the tokens only.
        is_trained: whether weights were loaded, so that starting values must not replace them.
        arguments: plain arguments of the constructor call.

    Example:
        >>> tokens = torch.tensor([[0, 2, 3]])
        >>> nll, _ = model.nll(tokens[:, :-1], tokens[:, 1:], model.initial_state(1))
        >>> nll.shape  # Nats of each target, [B, T].
        torch.Size([1, 2])
    """

    vocab_size: int
    context_length: int = 0
    history_length: int | None = None
    is_counted: bool = False
    accepts_gaps: bool = False
    is_normalized: bool = True
    has_hidden: bool = False
    has_attention: bool = False
    may_skip_weights: bool = True
    samples_vocabulary: bool = False
    is_trained: bool = False
    arguments: dict[str, Any]

    # TorchScript would compile these properties.
    __jit_unused_properties__: ClassVar[list[str]] = ["input_embedding"]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = recording(cls.__init__)  # type: ignore[method-assign]
        if "nll" in cls.__dict__ and "has_hidden" not in cls.__dict__:
            # A loss of its own need not be that of the inherited hidden vectors.
            cls.has_hidden = False

    @abstractmethod
    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Predict the token after each input token.

        Args:
            tokens: ids, int64 [B, T].
            state: result of `initial_state` or of an earlier call.

        Returns:
            Unnormalized log-probabilities (logits) [B, T, V], and the state after the last token.
        """

    @abstractmethod
    def nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the negative log-likelihood of the targets; training and scoring use this method.

        The result equals the cross-entropy of `forward`'s logits. Implementations never hold [N, V] in float32.

        Args:
            tokens: ids, int64 [B, T].
            targets: the id that follows each token, int64 [B, T].
            state: result of `initial_state` or of an earlier call.

        Returns:
            nll in nats, float32 (or float64) [B, T], and the state after the last token.
        """

    def window_nll(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the nll [B, T] of texts that start from the initial state and whose new state nothing needs."""
        return self.nll(tokens, targets, self.initial_state(len(tokens)))[0]

    @abstractmethod
    def initial_state(self, batch_size: int) -> list[Tensor]:
        """Return the state before the first token, with B on axis 1 of each tensor."""

    @property
    def input_embedding(self) -> nn.Embedding | None:
        """Embedding of the input tokens; None if the model has none or does not take embedded tokens (`encode`)."""
        return None

    def encode(self, embedded: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map embedded tokens [B, T, D] to the hidden vectors [B, T, H] that predict the next token, and the new state.

        Raises:
            LinguistError: the model has no `input_embedding`.
        """
        raise self._lacks("embedding")

    def hidden(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the input of the output layer after each token, [B, T, H], and the new state.

        Raises:
            LinguistError: the model has no hidden vectors (`has_hidden` is False).
        """
        raise self._lacks("hidden vectors")

    def last_hidden(self, tokens: Tensor, state: list[Tensor], count: int) -> tuple[Tensor, list[Tensor]]:
        """Return the hidden vectors of the last tokens only.

        Args:
            tokens: ids [B, T].
            state: state before the tokens.
            count: number of hidden vectors, at least one.

        Returns:
            Hidden vectors [B, min(count, T), H], and the state after all tokens.

        Raises:
            LinguistError: see `hidden`.
        """
        hidden, new_state = self.hidden(tokens, state)
        return hidden[:, -count:], new_state

    def hidden_nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return the nll in nats of targets [B, T] after hidden vectors [B, T, H].

        Raises:
            LinguistError: see `hidden`.
        """
        raise self._lacks("hidden vectors")

    def forward_padded(self, tokens: Tensor, state: list[Tensor], padding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Predict the token after one more token of texts of different lengths; return what `forward` does.

        Args:
            tokens: ids [B, 1].
            state: a key/value cache whose first positions are empty in some rows.
            padding: number of empty positions of each row [B].

        Raises:
            LinguistError: the model has no cache that grows (`export_specification().cache_axis` is None).
        """
        raise self._lacks("key/value cache")

    def mixture(self) -> "list[tuple[LanguageModel, float]]":
        """Return the components of a linear mixture with their weights; empty for any other model."""
        return []

    def attention_weights(self, tokens: Tensor) -> Tensor | None:
        """Return how much each token attends to each earlier one, in every layer and head.

        Args:
            tokens: ids [T], at most `context_length` of them.

        Returns:
            float64 [L, A, T, T], each row a distribution over the tokens up to its own; None without attention.

        Raises:
            LinguistError: there are no tokens, or more than fit the context.
        """
        return None

    def prepare_vocabulary(self, token_counts: Tensor) -> None:
        """Sort the vocabulary by frequency, if the model needs it. Called once before training.

        Args:
            token_counts: occurrences of each token in the training split, int64 [V].
        """

    def start_at_unigram(self, token_counts: Tensor) -> bool:
        """Make the untrained model predict the unigram distribution, if its output layer has a bias.

        Called once, after the check of the untrained model and before training. It saves the first hundreds of updates.

        Args:
            token_counts: occurrences of each token in the training split, int64 [V].

        Returns:
            Whether there is such a bias; without one, the model is left as it is.
        """
        return False

    def scale_logits(self, factor: float) -> bool:
        """Multiply the logits of every prediction by a factor, in the weights.

        Returns:
            Whether the model has weights that do so; without them, it is left as it is.
        """
        return False

    def start_embedding(self, vectors: Tensor) -> None:
        """Replace the random vectors of the input embedding.

        Args:
            vectors: vectors of length one [V, D]; a zero vector keeps the random one.

        Raises:
            LinguistError: the model has no `input_embedding`.
        """
        raise self._lacks("embedding")

    def fit_counts(self, ids: NDArray[np.unsignedinteger], eos_id: int, save: Callable[[], None] | None = None) -> None:
        """Count a stream and estimate the model from the counts (models with `is_counted`).

        Args:
            ids: token ids [N], possibly memory-mapped.
            eos_id: token that the first one is predicted from.
            save: called with the model fitted, before the files are deleted from which a killed process continues.

        Raises:
            LinguistError: the model is trained by gradients.
        """
        raise LinguistError(f"a {type(self).__name__} is trained by gradients, not by counting")

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the weights by depth: the embedding, each hidden layer, and the rest, which is nearest the output."""
        embedding = [] if self.input_embedding is None else list(self.input_embedding.parameters())
        stacks = [child for child in self.children() if isinstance(child, nn.ModuleList)]
        layers = [list(layer.parameters()) for layer in stacks[0]] if stacks else []
        below = {id(weight) for group in (embedding, *layers) for weight in group}
        rest = [weight for weight in self.parameters() if id(weight) not in below]
        return [group for group in (embedding, *layers, rest) if group]

    def vocabulary_parameters(self) -> list[str]:
        """Return the names of the weights that have a row for each token.

        Raises:
            LinguistError: rows and tokens do not correspond in this model.
        """
        raise self._lacks("a weight with a row for each token")

    def undecayed_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that weight decay spares by default: embeddings, norms and biases."""
        tables = [module for module in self.modules() if isinstance(module, nn.Embedding)]
        embeddings = {id(parameter) for table in tables for parameter in table.parameters()}
        return [parameter for parameter in self.parameters() if parameter.dim() < 2 or id(parameter) in embeddings]

    def hidden_matrices(self) -> list[tuple[nn.Parameter, int]]:
        """Return the weight matrices between embedding and output, each with the number of matrices stacked in it."""
        return []

    def use_sparse_gradients(self, enabled: Callable[[nn.Parameter], bool]) -> None:
        """Choose which weights have sparse gradients.

        Args:
            enabled: called with each weight matrix that training reads row by row; True makes its gradient sparse.
        """
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                module.sparse = enabled(module.get_parameter("weight"))

    def sparse_tables(self) -> list[nn.Parameter]:
        """Return the weights whose gradient is sparse, at least in part; see `use_sparse_gradients`."""
        return [
            module.get_parameter("weight")
            for module in self.modules()
            if getattr(module, "sparse", False) and isinstance(module.weight, nn.Parameter)
        ]

    def draw_sample(self, targets: Tensor, generator: Generator, hidden: Tensor | None = None) -> None:
        """Draw at random what all processes of a data-parallel training must draw alike in the next step.

        Args:
            targets: targets of the global batch, int64 [B, T]; the same in all processes.
            generator: source of randomness in the same state in all processes.
            hidden: hidden vectors [B, T, D] before the targets, whose likely types a sampled softmax then computes too.
        """

    def set_training_loss(self, label_smoothing: float, z_loss: float) -> None:
        """Set what the training loss adds to the negative log-likelihood; scoring never changes.

        Args:
            label_smoothing: share of the target's probability that is spread over the vocabulary.
            z_loss: factor of the squared log-partition function.

        Raises:
            ConfigError: the model does not support a value other than 0.
        """
        refuse_training_loss(label_smoothing, z_loss)

    def disable_dropout(self) -> None:
        """Set every dropout rate to zero."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """Load weights, as `torch.nn.Module.load_state_dict`; the model then counts as trained."""
        found = super().load_state_dict(*arguments, **options)
        self.is_trained = True
        return found

    def export_specification(self) -> ExportSpecification:
        """Return what exporters need to know about the model."""
        return ExportSpecification()

    def stock_architecture(self) -> StockArchitecture:
        """Return the model as an architecture that other programs implement.

        Raises:
            LinguistError: the model has no such form; the message says why.
        """
        raise LinguistError(f"a {type(self).__name__} has no form as Llama or Mistral; use model=transformer")

    def quantized(self) -> nn.Module:
        """Return a copy with 8-bit weights that has `forward` and `initial_state` of the contract.

        Raises:
            LinguistError: the model has no weights to quantize.
        """
        raise LinguistError(f"--quantize: a {type(self).__name__} has no weights to quantize; use --jit")

    def num_parameters(self) -> int:
        """Return the number of trainable parameters, counting a tied weight once."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def _lacks(self, what: str) -> LinguistError:
        return LinguistError(f"a {type(self).__name__} has no {what}; use rnn, lstm, gru or transformer")
