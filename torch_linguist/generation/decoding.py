"""The loop over tokens. The state is carried, so the cost of a token does not depend on the length of the text.

Shape legend: B batch (samples drawn side by side), T time, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from torch_linguist.errors import LinguistError
from torch_linguist.generation.sampling import Sampling, draw
from torch_linguist.model import LanguageModel, State, device_of, evaluating

PROMPT_CHUNK = 256
"""Prompt tokens read at a time: their logits [T, V] take memory, and only the last ones are needed."""


@dataclass(frozen=True, eq=False)
class Step:
    """One new token of each sample.

    Attributes:
        tokens: ids, int64 [B].
        log_probabilities: log-probability of every token under the model itself, before any filter, float32 [B, V].

    Example:
        >>> step = next(generation_steps(model, [corpus.tokenizer.eos_id], Sampling(), seed=1))
        >>> torch.allclose(step.log_probabilities.exp().sum(), torch.tensor(1.0))
        True
    """

    tokens: Tensor
    log_probabilities: Tensor


def read_prompt(model: LanguageModel, prompt: Sequence[int], batch_size: int = 1) -> tuple[Tensor, State]:
    """Read a prompt once, and return the logits [B, V] and the state after it, repeated for each sample.

    Raises:
        LinguistError: the prompt is empty or contains an invalid id.
    """
    if not prompt:
        raise LinguistError("prompt: holds no token; begin with <eos>, the end of the line before")
    if not 0 <= min(prompt) <= max(prompt) < model.vocab_size:
        raise LinguistError(f"prompt: ids must lie between 0 and {model.vocab_size - 1}, the model's vocabulary")
    device = device_of(model)
    state = model.initial_state(1)
    logits = torch.empty(0)
    for begin in range(0, len(prompt), PROMPT_CHUNK):
        tokens = torch.tensor([list(prompt[begin : begin + PROMPT_CHUNK])], device=device)
        logits, state = model(tokens, state)
    repeated = [tensor.repeat_interleave(batch_size, dim=1) for tensor in state]
    return logits[:, -1].repeat(batch_size, 1), repeated


@torch.inference_mode()
def generation_steps(
    model: LanguageModel,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    num_samples: int = 1,
    seed: int | None = None,
    banned: Sequence[int] = (),
) -> Iterator[Step]:
    """Generate tokens without end; the caller decides when to stop.

    Args:
        model: any model; its mode (train or eval) is restored afterwards.
        prompt: ids, at least one.
        sampling: how each token is chosen.
        num_samples: number B of samples, drawn side by side.
        seed: seed of the draws; None for a fresh one. No other random state changes.
        banned: ids that are never drawn.

    Yields:
        The next token of each sample.

    Raises:
        LinguistError: the prompt is empty or contains an invalid id.

    Example:
        >>> step = next(generation_steps(model, [corpus.tokenizer.eos_id], Sampling(), num_samples=3, seed=1))
        >>> step.tokens.shape, step.log_probabilities.shape[1] == corpus.tokenizer.vocab_size
        (torch.Size([3]), True)
    """
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    device, penalized = device_of(model), sampling.repetition_penalty != 1
    with evaluating(model):
        logits, state = read_prompt(model, prompt, num_samples)
        seen = torch.tensor([list(prompt)]).repeat(num_samples, 1)
        while True:
            logits = logits.float().cpu()
            log_probabilities = torch.log_softmax(logits, dim=-1)
            # The penalty depends on the sign of the logits themselves.
            allowed = (logits if penalized else log_probabilities).clone()
            allowed[:, list(banned)] = -torch.inf
            tokens = draw(allowed, sampling, generator, seen)
            yield Step(tokens[:, 0], log_probabilities)
            if penalized:
                seen = torch.cat([seen, tokens], dim=1)
            stepped, state = model(tokens.to(device), state)
            logits = stepped[:, -1]


def generate_ids(
    model: LanguageModel,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    sampling: Sampling | None = None,
    num_samples: int = 1,
    seed: int | None = None,
    banned: Sequence[int] = (),
) -> list[list[int]]:
    """Continue a prompt of ids.

    Args:
        model: see `generation_steps`.
        prompt: see `generation_steps`.
        max_tokens: number of ids to generate.
        sampling: how each id is chosen; None draws from the whole distribution.
        num_samples: see `generation_steps`.
        seed: see `generation_steps`.
        banned: see `generation_steps`.

    Returns:
        The new ids, B lists of `max_tokens`.

    Example:
        >>> ids = generate_ids(model, [corpus.tokenizer.eos_id], max_tokens=4, num_samples=3, seed=1)
        >>> len(ids), len(ids[0])
        (3, 4)
    """
    steps = generation_steps(model, prompt, sampling or Sampling(), num_samples=num_samples, seed=seed, banned=banned)
    columns = [step.tokens for step in islice(steps, max_tokens)]
    return [[int(token) for token in row] for row in torch.stack(columns, dim=1)]
