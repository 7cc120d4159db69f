"""Continuations of a prompt, token by token, by any language model.

Shape legend: B batch (samples drawn side by side), T time, V vocabulary.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.model import LanguageModel, device_of


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    max_tokens: int = 50,
    temperature: float = 1.0,
    top_k: int = 0,
    num_samples: int = 1,
    seed: int | None = None,
) -> list[str]:
    """Continues a prompt.

    Args:
        model: any model; it is left in the mode it was in.
        tokenizer: the one the model was trained with.
        prompt: text to continue; an empty one starts at the beginning of a line.
        max_tokens: tokens that are added.
        temperature: divides the logits; below 1 plays safe, above 1 dares.
        top_k: only the k most probable tokens are drawn; 0 for all. 1 is greedy.
        num_samples: continuations, drawn side by side.
        seed: of the draws; None for a fresh one each time. No other random state is touched.

    Returns:
        Each continuation as readable text, with the prompt.

    Raises:
        LinguistError: an option is out of its range.
    """
    for name, value in {"max_tokens": max_tokens, "temperature": temperature, "num_samples": num_samples}.items():
        if not 0 < value < math.inf:
            raise LinguistError(f"{name}={value}: must be greater than 0 and finite")
    if top_k < 0:
        raise LinguistError(f"top_k={top_k}: must be at least 0")
    prompt_ids = tokenizer.encode(prompt)
    ids = generate_ids(
        model,
        [tokenizer.eos_id, *prompt_ids],
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        num_samples=num_samples,
        seed=seed,
        # A model has next to no idea of what a word is that it never saw: it should not say <unk>.
        banned=[] if tokenizer.unk_id is None else [tokenizer.unk_id],
    )
    return [tokenizer.decode([*prompt_ids, *row]).strip("\n") for row in ids]


def generate_ids(
    model: LanguageModel,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    num_samples: int = 1,
    seed: int | None = None,
    banned: Sequence[int] = (),
) -> list[list[int]]:
    """Continues a prompt of ids; the state is carried, so the cost of a token does not grow with a recurrent past.

    Args:
        model: any model.
        prompt: ids, at least one.
        max_tokens: ids that are added.
        temperature: divides the logits.
        top_k: only the k most probable ids are drawn; 0 for all.
        num_samples: continuations B.
        seed: of the draws; None for a fresh one.
        banned: ids that are never drawn.

    Returns:
        The new ids, B lists of `max_tokens`.
    """
    device = device_of(model)
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    mode = model.training
    model.eval()
    drawn: list[Tensor] = []
    try:
        with torch.inference_mode():
            state = model.initial_state(num_samples)
            tokens = torch.tensor(prompt, device=device).repeat(num_samples, 1)
            for _ in range(max_tokens):
                logits, state = model(tokens, state)
                last = logits[:, -1].float().cpu()
                last[:, list(banned)] = -torch.inf
                tokens = draw(last, temperature, top_k, generator).to(device)
                drawn.append(tokens)
    finally:
        model.train(mode)
    return [[int(token) for token in row] for row in torch.cat(drawn, dim=1)]


def draw(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator | None) -> Tensor:
    """One id from each row.

    Args:
        logits: [B, V], on the CPU.
        temperature: divides them.
        top_k: only the k largest take part; 0 for all.
        generator: of the draws; None for torch's own.

    Returns:
        Ids, int64 [B, 1].
    """
    if 0 < top_k < logits.shape[-1]:
        smallest = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    # The largest at zero, so that no temperature, however low, carries a logit past a float.
    logits = logits - logits.amax(dim=-1, keepdim=True)
    # A number below the smallest normal one may count as zero.
    probabilities = torch.softmax(logits / max(temperature, torch.finfo(logits.dtype).tiny), dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator)
