"""Which of the next tokens may be drawn, and the draw.

Shape legend: B batch (samples drawn side by side), V vocabulary, P tokens so far.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_linguist.errors import LinguistError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The filters apply in this order, each on what the one before has left.

    Attributes:
        repetition_penalty: multiplies the log-probability of every token that occurred already, the prompt's included;
            1 for none. The idea is Keskar's et al. 2019 (CTRL), who divide or multiply logits by their sign; done on
            log-probabilities it does not depend on a constant in the logits.
        temperature: divides the logits; below 1 plays safe, above 1 dares.
        top_k: only the k most probable tokens; 0 for all (Fan et al. 2018).
        top_p: only the fewest tokens that together have at least this probability; 1 for all (Holtzman et al. 2020).
        min_p: only tokens with at least this share of the most probable one's probability; 0 for all (Nguyen et al.
            2024).
        typical: only the tokens whose surprisal is nearest to the expected one, the fewest that together have at least
            this probability; 1 for all (Meister et al. 2023).
        greedy: the most probable token instead of a draw.

    Raises:
        LinguistError: a value is out of its range.
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


_HINTS = {"temperature": "; for the most probable token take greedy", "repetition_penalty": " (1 for none)"}


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator | None, seen: Tensor | None = None) -> Tensor:
    """One id from each row.

    Args:
        logits: [B, V], on the CPU.
        sampling: how.
        generator: of the draws; None for torch's own.
        seen: ids so far, int64 [B, P], for the repetition penalty.

    Returns:
        Ids, int64 [B, 1].
    """
    kept = filtered_logits(logits, sampling, seen)
    if sampling.greedy:
        return kept.argmax(dim=-1, keepdim=True)
    return torch.multinomial(torch.softmax(kept, dim=-1), 1, generator=generator)


def filtered_logits(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """The logits that are drawn from, minus infinity where a token may not be drawn.

    Args:
        logits: [B, V].
        sampling: how.
        seen: see `draw`.

    Returns:
        Logits [B, V], at most 0.
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
    """Log-probabilities [B, V], those of the ids seen [B, P] multiplied by the penalty; TorchScript compiles it."""
    if penalty == 1.0:
        return logits
    log_probabilities = torch.log_softmax(logits, dim=-1)
    return log_probabilities.scatter(1, seen, log_probabilities.gather(1, seen) * penalty)


def filter_logits(logits: Tensor, temperature: float, top_k: int, top_p: float, min_p: float, typical: float) -> Tensor:
    """The filters of `Sampling` but the penalty, in their order; TorchScript compiles it, so an export draws alike."""
    if 0 < top_k < logits.size(-1):
        smallest = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
    # The largest at zero, so that no temperature, however low, carries a logit past a float; a number below the
    # smallest normal one of float32 may count as zero.
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
        # What is excluded already must come last.
        logits = nucleus(logits, distance.masked_fill(surprisal.isinf(), math.inf), typical)
    return logits


def nucleus(logits: Tensor, order: Tensor, mass: float) -> Tensor:
    """Keeps the fewest tokens, by ascending `order`, that together have at least `mass`; one at least."""
    ranked = torch.argsort(order, dim=-1, stable=True)
    probabilities = torch.softmax(logits, dim=-1).gather(1, ranked)
    before = torch.cumsum(probabilities, dim=-1) - probabilities
    surplus = before >= mass
    surplus[:, 0] = False
    return logits.masked_fill(torch.zeros_like(surplus).scatter(1, ranked, surplus), -math.inf)
