"""Linear interpolation of models: the probability of a token is the weighted mean of the components' probabilities.

Shape legend: B batch, T time, V vocabulary, K components, N tokens.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from torch_linguist.errors import ConfigError
from torch_linguist.model.base import LanguageModel


class Mixture(LanguageModel):
    """Linear interpolation of models with the same vocabulary.

    The state consists of the components' states, one after another. `context_length` is the longest bounded context of
    a component, so that such a component is scored in windows.

    Args:
        components: models with the same vocabulary and normalized probabilities, at least one.
        weights: weight of each component, at least 0, adding up to one; None for equal weights.

    Raises:
        ConfigError: the components or the weights do not fit.

    Example:
        >>> mixture = Mixture([model, model], weights=[0.3, 0.7])
        >>> abs(score(mixture, corpus.test).loss - score(model, corpus.test).loss) < 1e-6
        True
    """

    log_weights: Tensor
    if TYPE_CHECKING:  # TorchScript reads annotations and knows none for a list of modules.
        components: list[LanguageModel]

    def __init__(self, components: Sequence[LanguageModel], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not components:
            raise ConfigError("a mixture needs at least one component")
        sizes = [component.vocab_size for component in components]
        if len(set(sizes)) > 1:
            raise ConfigError(
                f"components of vocabularies of {sizes} types cannot be mixed: train them with one tokenizer"
            )
        if not all(component.is_normalized for component in components):
            raise ConfigError("smoothing=stupid_backoff cannot be mixed: its scores are not probabilities")
        self.vocab_size = sizes[0]
        self.context_length = max(component.context_length for component in components)
        self.components = cast("list[LanguageModel]", nn.ModuleList(components))
        self.state_sizes = [len(component.initial_state(1)) for component in components]
        self.register_buffer("log_weights", torch.zeros(len(components), dtype=torch.float64))
        self.set_weights([1 / len(components)] * len(components) if weights is None else weights)

    def set_weights(self, weights: Sequence[float]) -> None:
        """Replace the weights, for example by those of `fit_weights`.

        Raises:
            ConfigError: the number of weights is wrong, one is negative, or they do not add up to one.
        """
        if len(weights) != len(self.components):
            raise ConfigError(f"weights={list(weights)} must be {len(self.components)}, one a component")
        if not all(weight >= 0 for weight in weights) or not math.isclose(sum(weights), 1, abs_tol=1e-6):
            raise ConfigError(f"weights={list(weights)} must be at least 0 and add up to 1")
        self.log_weights = torch.tensor(weights, dtype=torch.float64).log().to(self.log_weights)

    @property
    def weights(self) -> list[float]:
        """Weight of each component."""
        return [float(weight) for weight in self.log_weights.exp()]

    def mixture(self) -> list[tuple[LanguageModel, float]]:
        return list(zip(self.components, self.weights, strict=True))

    def initial_state(self, batch_size: int) -> list[Tensor]:
        state: list[Tensor] = []
        for component in self.components:
            state.extend(component.initial_state(batch_size))
        return state

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        mixed: list[Tensor] = []
        new_state: list[Tensor] = []
        begin = 0
        for place, component in enumerate(self.components):
            end = begin + self.state_sizes[place]
            logits, component_state = component(tokens, state[begin:end])
            log_prob = torch.log_softmax(logits, dim=-1) + self.log_weights[place].to(logits.dtype)
            # One at a time, because K distributions [B, T, V] may not fit into memory.
            mixed = [log_prob] if place == 0 else [torch.logaddexp(mixed[0], log_prob)]
            new_state.extend(component_state)
            begin = end
        return mixed[0], new_state

    def nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        parts, new_state = self.component_nll(tokens, targets, state)
        return -torch.logsumexp(self.log_weights.to(parts.dtype)[:, None, None] - parts, dim=0), new_state

    def component_nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the nll [K, B, T] of the targets under each component alone, and the new state."""
        parts: list[Tensor] = []
        new_state: list[Tensor] = []
        begin = 0
        for place, component in enumerate(self.components):
            end = begin + self.state_sizes[place]
            nll, component_state = component.nll(tokens, targets, state[begin:end])
            parts.append(nll)
            new_state.extend(component_state)
            begin = end
        dtype = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
        return torch.stack([part.to(dtype) for part in parts]), new_state


class Population(Mixture):
    """A mixture of models of one class and one set of arguments, which a checkpoint can hold.

    Args:
        target: dotted path of the members' class, which must be part of a package that is imported already.
        arguments: arguments of the members' constructor.
        count: number of members, at least one.

    Raises:
        ConfigError: the class is not a known model.

    Example:
        >>> arguments = {"vocab_size": 100, "embedding_dim": 8, "hidden_size": 8}
        >>> len(Population("torch_linguist.model.LSTM", arguments, count=2).components)
        2
    """

    def __init__(self, target: str, arguments: Mapping[str, Any], count: int) -> None:
        module, _, name = target.rpartition(".")
        # Nothing is imported: a checkpoint from others must not choose the code to load.
        member = getattr(sys.modules.get(module), name, None)
        if not (isinstance(member, type) and issubclass(member, LanguageModel)):
            raise ConfigError(f"target={target[:120]}: not a model that is imported")
        super().__init__([member(**arguments) for _ in range(count)])

    @classmethod
    def of(cls, members: Sequence[LanguageModel], weights: Sequence[float]) -> "Population":
        """Return the mixture of trained models of one class and one set of arguments; it shares their weights."""
        member = type(members[0])
        found = cls(f"{member.__module__}.{member.__qualname__}", members[0].arguments, 1)
        found.arguments["count"] = len(members)
        Mixture.__init__(found, members, weights)
        return found


def mixture_nll(nll: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the nll [N] of a mixture, given the nll [K, N] of its components."""
    shares = torch.tensor(weights, dtype=torch.float64, device=nll.device)
    return -torch.logsumexp(shares.log()[:, None] - nll.double(), dim=0)


def fit_weights(nll: Tensor, tolerance: float = 1e-9, max_iterations: int = 1000) -> list[float]:
    """Return the weights that maximize the likelihood of a text, by expectation-maximization (Jelinek & Mercer 1980).

    The log-likelihood is concave in the weights, so the starting point does not matter.

    Args:
        nll: nll of the same tokens under each component, in nats [K, N]; from the validation split.
        tolerance: gain in nats per token below which the iteration stops.
        max_iterations: largest number of iterations.

    Returns:
        K weights that add up to one.

    Raises:
        ConfigError: the nll is not finite, or not [K, N] with at least one token.
    """
    if nll.dim() != 2 or nll.numel() == 0 or not torch.isfinite(nll).all():
        raise ConfigError(
            f"nll of shape {list(nll.shape)} must be finite and [components, tokens], with one token at least"
        )
    scores = -nll.double()
    # Scaling each token changes no posterior and keeps improbable tokens above zero.
    likelihoods = torch.exp(scores - scores.amax(dim=0))
    weights = torch.full((len(scores),), 1 / len(scores), dtype=torch.float64, device=nll.device)
    before = -math.inf
    for _ in range(max_iterations):
        mixed = weights @ likelihoods
        now = float(mixed.log().mean())
        if now - before < tolerance:
            break
        before = now
        weights = weights * (likelihoods @ mixed.reciprocal()) / mixed.numel()
        weights = weights / weights.sum()
    return [float(weight) for weight in weights]
