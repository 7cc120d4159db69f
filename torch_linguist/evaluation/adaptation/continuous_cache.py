"""The continuous cache: recent words become more likely where the hidden vector resembles the one before them.

Grave et al. 2017, "Improving Neural Language Models with a Continuous Cache": the cache stores each hidden vector with
the token that followed it. Later predictions mix the model's distribution with one over the stored tokens, weighted by
exp(theta * dot product of the hidden vectors). Each token is scored before it enters the cache.

Shape legend: T time, H hidden, N tokens of the stream, S cached tokens, K values of theta.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.data import TokenStream
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.parallel_reading import SHORTEST
from torch_linguist.evaluation.scoring import stream_measures
from torch_linguist.model import LanguageModel, State
from torch_linguist.model.module_modes import autocast

THETAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SHARES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
CHUNK = 256
"""Tokens whose weights over the cache are computed at once."""


class HiddenPart(NamedTuple):
    """Consecutive tokens of a stream.

    Attributes:
        nll: nll of the tokens [T].
        hidden: hidden vector before each token [T, H].
        targets: the tokens, int64 [T].

    Example:
        >>> part = HiddenPart(torch.zeros(2), torch.zeros(2, 8), torch.tensor([3, 4]))
        >>> part.hidden.shape
        torch.Size([2, 8])
    """

    nll: Tensor
    hidden: Tensor
    targets: Tensor


@dataclass(frozen=True)
class CacheSettings:
    """Settings of a continuous cache.

    Attributes:
        size: number of latest tokens in the cache.
        theta: sharpness of the preference for similar hidden vectors.
        share: weight of the cache in the mixture with the model.

    Example:
        >>> CacheSettings(size=100, theta=0.1, share=0.1).share
        0.1
    """

    size: int
    theta: float
    share: float


@dataclass(frozen=True, eq=False)
class CacheComponents:
    """What a cache is mixed from.

    Attributes:
        nll: nll of every token under the model, float64 [N].
        found: probability of every token under the cache for each theta, float64 [K, N]; NaN where the cache is empty.

    Example:
        >>> components = CacheComponents(torch.full((1,), 2.0), torch.ones(1, 1))
        >>> components.mixed(share=0.0).tolist()
        [2.0]
    """

    nll: Tensor
    found: Tensor

    def mixed(self, share: float, row: int = 0) -> Tensor:
        """Return the nll [N] of the mixture of the model and the cache with the theta of a row."""
        if share == 0:
            return self.nll
        mixed = -torch.logaddexp(math.log1p(-share) - self.nll, math.log(share) + self.found[row].log())
        return torch.where(self.found[row].isnan(), self.nll, mixed)


def cached_nll(parts: Iterable[HiddenPart], settings: CacheSettings) -> NDArray[np.float64]:
    """Return the nll [N] of every token of a stream under a model with a continuous cache.

    Args:
        parts: consecutive parts of the stream, from `hidden_parts` or `dynamic_parts`.
        settings: settings of the cache.

    Example:
        >>> network = GRU(corpus.tokenizer.vocab_size, embedding_dim=4, hidden_size=8)
        >>> cached_nll(hidden_parts(network, corpus.test), CacheSettings(100, theta=0.1, share=0.1)).shape
        (14,)
    """
    return cache_components(parts, settings.size, [settings.theta]).mixed(settings.share).numpy()


def tune_cache(
    parts: Iterable[HiddenPart],
    *,
    size: int = 2000,
    thetas: Sequence[float] = THETAS,
    shares: Sequence[float] = SHARES,
) -> tuple[CacheSettings, list[tuple[CacheSettings, float]]]:
    """Try all pairs of theta and share on (the start of) the validation split.

    Args:
        parts: consecutive parts of the split, from `hidden_parts` or `dynamic_parts`.
        size: number of tokens in the cache.
        thetas: values of theta to try.
        shares: shares to try.

    Returns:
        The settings with the lowest loss, and all settings with their loss in nats per token.

    Example:
        >>> network = GRU(corpus.tokenizer.vocab_size, embedding_dim=4, hidden_size=8)
        >>> best, tried = tune_cache(hidden_parts(network, corpus.valid), size=10)
        >>> min(loss for _, loss in tried) == dict(tried)[best]
        True
    """
    components = cache_components(parts, size, thetas)
    tried = [
        (CacheSettings(size, theta, share), float(components.mixed(share, row).mean()))
        for (row, theta), share in itertools.product(enumerate(thetas), shares)
    ]
    return min(tried, key=lambda pair: pair[1])[0], tried


def hidden_parts(
    model: LanguageModel,
    stream: TokenStream,
    max_tokens: int | None = None,
    *,
    stride: int | None = None,
    precision: str = "fp32",
) -> Iterator[HiddenPart]:
    """Read a stream as `score` does and yield each part with its hidden vectors.

    Args:
        model: a model with hidden vectors.
        stream: one split.
        max_tokens: number of tokens to read from the start; None for all.
        stride: see `score`.
        precision: see `score`.

    Raises:
        LinguistError: the model has no hidden vectors; or see `score`.

    Example:
        >>> network = GRU(corpus.tokenizer.vocab_size, embedding_dim=4, hidden_size=8)
        >>> sum(len(part.nll) for part in hidden_parts(network, corpus.test)) == len(corpus.test)
        True
    """
    if not model.has_hidden:
        raise LinguistError(
            f"--cache: a {type(model).__name__} has no hidden vectors to keep; it takes rnn, lstm, gru or transformer"
        )

    def measure(tokens: Tensor, targets: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        with autocast(tokens.device, precision):
            hidden, new_state = model.hidden(tokens, state)
            nll = model.hidden_nll(hidden, targets)
        return (nll, hidden, targets), [new.to(old.dtype) for new, old in zip(new_state, state, strict=True)]

    rough = precision == "bf16"
    parts = stream_measures(model, stream, measure, max_tokens, stride=stride, rough=rough, longest=SHORTEST)
    for nll, hidden, targets in parts:
        yield HiddenPart(nll, hidden, targets)


def cache_components(parts: Iterable[HiddenPart], size: int, thetas: Sequence[float]) -> CacheComponents:
    """Return the nll of the model, and the probability of each token under the cache for K values of theta.

    Raises:
        LinguistError: the size is below 1.

    Example:
        >>> network = GRU(corpus.tokenizer.vocab_size, embedding_dim=4, hidden_size=8)
        >>> cache_components(hidden_parts(network, corpus.test), 10, thetas=(0.1, 1.0)).found.shape
        torch.Size([2, 14])
    """
    if size < 1:
        raise LinguistError(f"--cache={size}: must hold at least 1 token")
    kept: Tensor | None = None
    words = torch.empty(0, dtype=torch.int64)
    losses: list[Tensor] = []
    found: list[Tensor] = []
    for part in parts:
        losses.append(part.nll.double().cpu())
        hidden, targets = part.hidden.float().cpu(), part.targets.cpu()
        for begin in range(0, len(targets), CHUNK):
            chunk, following = hidden[begin : begin + CHUNK], targets[begin : begin + CHUNK]
            kept = chunk if kept is None else torch.cat([kept, chunk])
            words = torch.cat([words, following])
            found.append(_probabilities(chunk, following, kept, words, size, thetas))
            kept, words = kept[-size:], words[-size:]
    return CacheComponents(torch.cat(losses), torch.cat(found, dim=1))


def _probabilities(
    hidden: Tensor, targets: Tensor, kept: Tensor, words: Tensor, size: int, thetas: Sequence[float]
) -> Tensor:
    """Return the probability of the targets under the cache [K, T].

    Args:
        hidden: hidden vectors of the T newest positions [T, H].
        targets: token after each of them [T].
        kept: all hidden vectors, the newest included [S + T, H].
        words: token after each of those [S + T].
        size: size of the cache.
        thetas: K values.
    """
    own = torch.arange(len(words) - len(targets), len(words))[:, None]
    place = torch.arange(len(words))[None, :]
    # A position sees earlier ones, whose next tokens are already known.
    visible = (place < own) & (place >= own - size)
    products = (hidden @ kept.T).masked_fill(~visible, -torch.inf)
    same = words[None, :] == targets[:, None]
    # For the first token the cache is empty: softmax returns NaN, and `mixed` uses the model alone.
    return torch.stack([(torch.softmax(theta * products, dim=1) * same).sum(dim=1).double() for theta in thetas])
