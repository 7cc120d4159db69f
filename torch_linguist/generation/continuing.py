"""Generates text: from a prompt to readable continuations.

Shape legend: B batch (samples drawn side by side), V vocabulary.
"""

import functools
import math
from collections.abc import Callable, Sequence
from itertools import islice

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.generation.beam import beam_search
from torch_linguist.generation.continuation import Continuation, ContinuationWriter
from torch_linguist.generation.decoding import generation_steps
from torch_linguist.generation.sampling import Sampling
from torch_linguist.model import LanguageModel

Listener = Callable[[int, str], None]
"""Called with the number of a sample and a piece of its text."""


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    max_tokens: int = 50,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    typical: float = 1.0,
    repetition_penalty: float = 1.0,
    greedy: bool = False,
    num_samples: int = 1,
    seed: int | None = None,
    stop: Sequence[str] = (),
    stop_at_eos: bool = False,
) -> list[str]:
    """Continue a prompt.

    Args:
        model: any model; its mode (train or eval) is restored afterwards.
        tokenizer: tokenizer that the model was trained with.
        prompt: text to continue; an empty one starts at the beginning of a line.
        max_tokens: number of tokens to generate.
        temperature: divisor of the logits; see `Sampling` for this and the next six.
        top_k: number of most probable tokens to keep; 0 keeps all.
        top_p: probability mass of the most probable tokens to keep; 1 keeps all.
        min_p: share of the highest probability that a token needs; 0 keeps all.
        typical: probability mass of the most typical tokens to keep; 1 keeps all.
        repetition_penalty: divisor of the logits of tokens that occurred already; 1 for none.
        greedy: whether the most probable token is taken instead of a draw.
        num_samples: number of continuations, drawn side by side.
        seed: seed of the draws; None for a fresh one. No other random state changes.
        stop: texts that end a continuation; they are cut off.
        stop_at_eos: whether a continuation ends with the line.

    Returns:
        Each continuation as readable text, with the prompt.

    Raises:
        LinguistError: an option is out of range.

    Example:
        >>> generate(model, corpus.tokenizer, "the cat", max_tokens=2, greedy=True)
        ['the cat sat on']
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, typical, repetition_penalty, greedy)
    found = continue_prompt(
        model,
        tokenizer,
        prompt,
        sampling,
        max_tokens=max_tokens,
        num_samples=num_samples,
        seed=seed,
        stop=stop,
        stop_at_eos=stop_at_eos,
    )
    return [one.text for one in found]


def continue_prompt(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: Sampling,
    *,
    max_tokens: int = 50,
    num_samples: int = 1,
    seed: int | None = None,
    stop: Sequence[str] = (),
    stop_at_eos: bool = False,
    alternatives: int = 0,
    listener: Listener | None = None,
) -> list[Continuation]:
    """Continue a prompt; report pieces of text as they come, and keep the choices made.

    Args:
        model: see `generate`.
        tokenizer: see `generate`.
        prompt: see `generate`.
        sampling: how each token is chosen.
        max_tokens: see `generate`.
        num_samples: see `generate`.
        seed: see `generate`.
        stop: see `generate`.
        stop_at_eos: see `generate`.
        alternatives: number of most probable tokens to keep for each step; 0 keeps no choices.
        listener: called with each piece of text once it is final.

    Returns:
        B continuations.

    Raises:
        LinguistError: an option is out of range.

    Example:
        >>> found = continue_prompt(model, corpus.tokenizer, "the", Sampling(greedy=True), max_tokens=3, alternatives=2)
        >>> found[0].reason, len(found[0].choices)
        ('length', 3)
    """
    _check_options(max_tokens, num_samples, alternatives, stop)
    prompt_ids = prompt_tokens(tokenizer, prompt)
    listeners = [None if listener is None else functools.partial(listener, number) for number in range(num_samples)]
    writers = [ContinuationWriter(tokenizer, prompt, prompt_ids, stop, stop_at_eos, one) for one in listeners]
    # <unk> stands for words that the model has never seen; it is no text.
    banned = [tokenizer.unk_id]
    steps = generation_steps(model, prompt_ids, sampling, num_samples=num_samples, seed=seed, banned=banned)
    for step in islice(steps, max_tokens):
        for row, writer in enumerate(writers):
            if not writer.done:
                writer.add(int(step.tokens[row]), step.log_probabilities[row], alternatives)
        if all(writer.done for writer in writers):
            break
    steps.close()  # type: ignore[attr-defined]
    return [writer.finish("length") for writer in writers]


def _check_options(max_tokens: int, num_samples: int, alternatives: int, stop: Sequence[str]) -> None:
    for name, value in {"max_tokens": max_tokens, "num_samples": num_samples}.items():
        if not 0 < value < math.inf:
            raise LinguistError(f"{name}={value}: must be greater than 0 and finite")
    if alternatives < 0:
        raise LinguistError(f"alternatives={alternatives}: must be at least 0")
    if not all(stop):
        raise LinguistError(f"stop={list(stop)}: a stop text must not be empty")


def continue_by_beam(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    beams: int,
    max_tokens: int = 50,
    stop: Sequence[str] = (),
    stop_at_eos: bool = False,
    length_penalty: float = 1.0,
) -> list[Continuation]:
    """Return the most probable continuations found by beam search, the best first.

    Args:
        model: see `generate`.
        tokenizer: see `generate`.
        prompt: see `generate`.
        beams: see `beam_search`.
        max_tokens: see `beam_search`.
        stop: texts at which the found continuations are cut off.
        stop_at_eos: whether a continuation ends with the line.
        length_penalty: see `beam_search`.

    Raises:
        LinguistError: see `beam_search`.
    """
    prompt_ids = prompt_tokens(tokenizer, prompt)
    hypotheses = beam_search(
        model,
        prompt_ids,
        beams=beams,
        max_tokens=max_tokens,
        stop=[tokenizer.eos_id] if stop_at_eos else [],
        banned=[tokenizer.unk_id],
        length_penalty=length_penalty,
    )
    results = []
    for hypothesis in hypotheses:
        writer = ContinuationWriter(tokenizer, prompt, prompt_ids, stop, stop_at_eos)
        for token in hypothesis.ids:
            if not writer.done:
                writer.write(token)
        result = writer.finish("length")
        result.log_probability = hypothesis.log_probability
        results.append(result)
    return results


def prompt_tokens(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Return the ids of a prompt after the `<eos>` of the line before, as in training."""
    return [tokenizer.eos_id, *tokenizer.encode(prompt)]
