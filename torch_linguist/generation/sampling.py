"""Chooses the next token: repetition penalty, filters, and the draw.

Shape legend: B batch (samples drawn side by side), V vocabulary, P tokens so far.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_linguist.errors import LinguistError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The filters apply in this order, each to what the previous one has left.

    Attributes:
        repetition_penalty: divisor of the positive logits, and factor of the negative ones, of every token that
            occurred already, the prompt included (CTRL, Keskar et al. 2019); 1 for none. Some models return
            log-probabilities as logits (adaptive softmax, n-gram); all of these are negative.
        temperature: divisor of the logits; below 1 more predictable, above 1 more varied.
        top_k: number of most probable tokens to keep; 0 keeps all (Fan et al. 2018).
        top_p: probability mass; the fewest most probable tokens that reach it are kept; 1 keeps all (Holtzman et al.
            2020).
        min_p: share of the highest probability that a token needs; 0 keeps all (Nguyen et al. 2024).
        typical: probability mass; the fewest tokens that reach it, those with a surprisal closest to the entropy first;
            1 keeps all (Meister et al. 2023).
        greedy: whether the most probable token is taken instead of a draw.

    Raises:
        LinguistError: a value is out of range.

    Example:
        >>> Sampling(temperature=0.8, top_p=0.9).top_k
        0
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical: float = 1.0
    repetition_penalty: float = 1.0
    greedy: bool = False

    def __post_init__(self) -> None:
        for name in ("temperature", "repetition_penalty"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise LinguistError(f"{name}={value}: must be greater than 0 and finite{_HINTS[name]}")
        if self.top_k < 0:
            raise LinguistError(f"top_k={self.top_k}: must be at least 0 (0 keeps all)")
        for name in ("top_p", "typical"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise LinguistError(f"{name}={value}: must be greater than 0 and at most 1 (1 keeps all)")
        if not 0 <= self.min_p <= 1:
            raise LinguistError(f"min_p={self.min_p}: must lie between 0 and 1 (0 keeps all)")


_HINTS = {"temperature": "; use greedy for the most probable token", "repetition_penalty": " (1 for none)"}


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator | None, seen: Tensor | None = None) -> Tensor:
    """Draw one id from each row.

    Args:
        logits: logits [B, V], on the CPU.
        sampling: how the ids are chosen.
        generator: random generator of the draws; None for torch's default.
        seen: ids so far, int64 [B, P], for the repetition penalty.

    Returns:
        Ids, int64 [B, 1].

    Example:
        >>> logits = torch.tensor([[1.0, 3.0, 2.0]])
        >>> draw(logits, Sampling(greedy=True), None)
        tensor([[1]])
    """
    kept = filtered_logits(logits, sampling, seen)
    if sampling.greedy:
        return kept.argmax(dim=-1, keepdim=True)
    return torch.multinomial(torch.softmax(kept, dim=-1), 1, generator=generator)


def filtered_logits(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """Return the logits of the sampling distribution: at most 0, and minus infinity for tokens that cannot be drawn.

    Args:
        logits: logits [B, V].
        sampling: penalty and filters.
        seen: see `draw`.

    Example:
        >>> filtered_logits(torch.tensor([[1.0, 3.0, 2.0]]), Sampling(top_k=2))
        tensor([[-inf, 0., -1.]])
    """
    return filter_logits(
        logits if seen is None else penalized_logits(logits, sampling.repetition_penalty, seen),
        sampling.temperature,
        sampling.top_k,
        sampling.top_p,
        sampling.min_p,
        sampling.typical,
    )


def penalized_logits(logits: Tensor, penalty: float, seen: Tensor) -> Tensor:
    """Return logits [B, V] with those of the ids seen [B, P] divided by the penalty, or multiplied if negative."""
    if penalty == 1.0:
        return logits
    own = logits.gather(1, seen)
    return logits.scatter(1, seen, torch.where(own > 0, own / penalty, own * penalty))


def filter_logits(logits: Tensor, temperature: float, top_k: int, top_p: float, min_p: float, typical: float) -> Tensor:
    """Apply the filters of `Sampling` in their order. TorchScript compiles this function, so exported models agree."""
    if 0 < top_k < logits.size(-1):
        smallest = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
    # With the largest logit at zero, no temperature overflows; below the smallest normal float32 it may count as zero.
    logits = logits - logits.amax(dim=-1, keepdim=True)
    logits = logits / max(temperature, 1.1754943508222875e-38)
    if top_p < 1.0:
        logits = nucleus(logits, -logits, top_p)
    if min_p > 0.0:
        logits = logits.masked_fill(logits < math.log(min_p), -math.inf)
    if typical < 1.0:
        surprisal = -torch.log_softmax(logits, dim=-1)
        terms = torch.where(surprisal.isinf(), torch.zeros_like(surprisal), surprisal * torch.exp(-surprisal))
        distance = (surprisal - terms.sum(dim=-1, keepdim=True)).abs()
        # Tokens that are excluded already must come last.
        logits = nucleus(logits, distance.masked_fill(surprisal.isinf(), math.inf), typical)
    return logits


def nucleus(logits: Tensor, order: Tensor, mass: float) -> Tensor:
    """Keep the fewest tokens, by ascending `order`, that reach `mass` together; at least one."""
    ranked = torch.argsort(order, dim=-1, stable=True)
    probabilities = torch.softmax(logits, dim=-1).gather(1, ranked)
    before = torch.cumsum(probabilities, dim=-1) - probabilities
    surplus = before >= mass
    surplus[:, 0] = False
    return logits.masked_fill(torch.zeros_like(surplus).scatter(1, ranked, surplus), -math.inf)
