"""The loop over tokens: the state is carried, so a token costs the same however many came before.

Shape legend: B batch (samples drawn side by side), T time, V vocabulary, P tokens of the prompt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from torch_linguist.errors import LinguistError
from torch_linguist.generation.sampling import Sampling, draw
from torch_linguist.model import LanguageModel, State, device_of

PROMPT_CHUNK = 256
"""Tokens of a prompt that are read at a time: their logits [T, V] take memory, and only the last ones are needed."""


@dataclass(frozen=True, eq=False)
class Step:
    """One more token of each sample.

    Attributes:
        tokens: ids, int64 [B].
        log_probabilities: of every token under the model itself, before any filter, float32 [B, V].
    """

    tokens: Tensor
    log_probabilities: Tensor


def read_prompt(model: LanguageModel, prompt: Sequence[int], batch_size: int = 1) -> tuple[Tensor, State]:
    """The logits after a prompt [B, V] and the state there, the prompt read once and repeated.

    Args:
        model: any model, in eval mode.
        prompt: ids, at least one.
        batch_size: B.

    Raises:
        LinguistError: the prompt is empty, or holds an id that the model has not.
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
    """Tokens without end; whoever asks for them says when it is enough.

    Args:
        model: any model; it is left in the mode it was in.
        prompt: ids, at least one.
        sampling: how each token is chosen.
        num_samples: B, drawn side by side.
        seed: of the draws; None for a fresh one. No other random state is touched.
        banned: ids that are never drawn.

    Yields:
        The next token of each sample.

    Raises:
        LinguistError: the prompt is empty or holds an id that the model has not.
    """
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    device, mode = device_of(model), model.training
    model.eval()
    try:
        logits, state = read_prompt(model, prompt, num_samples)
        seen = torch.tensor([list(prompt)]).repeat(num_samples, 1)
        while True:
            log_probabilities = torch.log_softmax(logits.float().cpu(), dim=-1)
            allowed = log_probabilities
            if banned:
                allowed = allowed.clone()
                allowed[:, list(banned)] = -torch.inf
            tokens = draw(allowed, sampling, generator, seen)
            yield Step(tokens[:, 0], log_probabilities)
            if sampling.repetition_penalty != 1:
                seen = torch.cat([seen, tokens], dim=1)
            stepped, state = model(tokens.to(device), state)
            logits = stepped[:, -1]
    finally:
        model.train(mode)


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
    """Continues a prompt of ids.

    Args:
        model: any model.
        prompt: ids, at least one.
        max_tokens: ids that are added.
        sampling: how each is chosen; None draws from the whole distribution.
        num_samples: continuations B.
        seed: of the draws; None for a fresh one.
        banned: ids that are never drawn.

    Returns:
        The new ids, B lists of `max_tokens`.
    """
    steps = generation_steps(model, prompt, sampling or Sampling(), num_samples=num_samples, seed=seed, banned=banned)
    columns = [step.tokens for step in islice(steps, max_tokens)]
    return [[int(token) for token in row] for row in torch.stack(columns, dim=1)]
