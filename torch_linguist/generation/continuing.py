"""From a prompt to readable continuations: text in, text out.

Shape legend: B batch (samples drawn side by side), V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.generation.beam import beam_search
from torch_linguist.generation.decoding import Step, generation_steps
from torch_linguist.generation.sampling import Sampling
from torch_linguist.generation.streaming import TextStream
from torch_linguist.model import LanguageModel

Listener = Callable[[int, str], None]
"""Told the number of a sample and the text that was added to it."""


@dataclass(frozen=True)
class Choice:
    """One token that was added, and what else it might have been.

    Attributes:
        token: as the vocabulary has it.
        probability: under the model itself, before any filter.
        alternatives: the most probable tokens with their probabilities.
    """

    token: str
    probability: float
    alternatives: list[tuple[str, float]]


@dataclass
class Continuation:
    """What was added to a prompt.

    Attributes:
        prompt: the text that was given.
        new_text: the text that was added.
        ids: the tokens that were added.
        reason: `length`, `eos` or `stop`: what ended it.
        log_probability: of the tokens under the model itself, in nats.
        choices: one a token, where they were asked for.
    """

    prompt: str
    new_text: str = ""
    ids: list[int] = field(default_factory=list)
    reason: str = ""
    log_probability: float = 0.0
    choices: list[Choice] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The prompt and what was added."""
        return f"{self.prompt}{self.new_text}".strip("\n")


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
    """Continues a prompt.

    Args:
        model: any model; it is left in the mode it was in.
        tokenizer: the one the model was trained with.
        prompt: text to continue; an empty one starts at the beginning of a line.
        max_tokens: tokens that are added.
        temperature: see `Sampling`, as the next six.
        top_k: see `Sampling`.
        top_p: see `Sampling`.
        min_p: see `Sampling`.
        typical: see `Sampling`.
        repetition_penalty: see `Sampling`.
        greedy: see `Sampling`.
        num_samples: continuations, drawn side by side.
        seed: of the draws; None for a fresh one each time. No other random state is touched.
        stop: texts before which a continuation ends.
        stop_at_eos: whether it ends with the line.

    Returns:
        Each continuation as readable text, with the prompt.

    Raises:
        LinguistError: an option is out of its range.
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
    """Continues a prompt, tells of each piece as it comes, and keeps what was chosen.

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
        alternatives: how many of the most probable tokens to keep a step; 0 keeps no choices.
        listener: told of each piece of text when it is final.

    Returns:
        B continuations.

    Raises:
        LinguistError: an option is out of its range.
    """
    for name, value in {"max_tokens": max_tokens, "num_samples": num_samples}.items():
        if not 0 < value < math.inf:
            raise LinguistError(f"{name}={value}: must be greater than 0 and finite")
    if alternatives < 0 or any(not text for text in stop):
        raise LinguistError(f"stop={list(stop)}, alternatives={alternatives}: a text to stop at must not be empty")
    prompt_ids = prompt_tokens(tokenizer, prompt)
    writers = [
        _Writer(tokenizer, prompt, prompt_ids, stop, stop_at_eos, listener and _numbered(listener, number))
        for number in range(num_samples)
    ]
    steps = generation_steps(
        model,
        prompt_ids,
        sampling,
        num_samples=num_samples,
        seed=seed,
        # A model has next to no idea of what a word is that it never saw: it should not say <unk>.
        banned=[tokenizer.unk_id],
    )
    for step in islice(steps, max_tokens):
        for row, writer in enumerate(writers):
            if not writer.done:
                writer.add(step, row, alternatives)
        if all(writer.done for writer in writers):
            break
    steps.close()  # type: ignore[attr-defined]
    return [writer.finish("length") for writer in writers]


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
    """The most probable continuations by beam search, the best first.

    Args:
        model: see `generate`.
        tokenizer: see `generate`.
        prompt: see `generate`.
        beams: see `beam_search`.
        max_tokens: see `beam_search`.
        stop: texts before which the found continuations are cut.
        stop_at_eos: whether a continuation ends with the line.
        length_penalty: see `beam_search`.
    """
    prompt_ids = prompt_tokens(tokenizer, prompt)
    found = beam_search(
        model,
        prompt_ids,
        beams=beams,
        max_tokens=max_tokens,
        stop=[tokenizer.eos_id] if stop_at_eos else [],
        banned=[tokenizer.unk_id],
        length_penalty=length_penalty,
    )
    results = []
    for hypothesis in found:
        writer = _Writer(tokenizer, prompt, prompt_ids, stop, stop_at_eos, None)
        for token in hypothesis.ids:
            if not writer.done:
                writer.write(token)
        result = writer.finish("length")
        result.log_probability = hypothesis.log_probability
        results.append(result)
    return results


def prompt_tokens(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids a prompt is read as: after the end of an earlier line, as in training."""
    return [tokenizer.eos_id, *tokenizer.encode(prompt)]


def _numbered(listener: Listener, number: int) -> Callable[[str], None]:
    return lambda piece: listener(number, piece)


class _Writer:
    """One continuation on its way: its text, what of it is final, and whether it has come to its end."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: str,
        prompt_ids: Sequence[int],
        stop: Sequence[str],
        stop_at_eos: bool,
        tell: Callable[[str], None] | None,
    ) -> None:
        self.done = False
        self._tokenizer = tokenizer
        self._stop, self._stop_at_eos, self._tell = stop, stop_at_eos, tell
        self._stream = TextStream(tokenizer)
        for token in prompt_ids:
            self._stream.push(token)
        # The joiner puts the blank after a prompt of words itself.
        self._result = Continuation(prompt.rstrip(" ") if tokenizer.kind == "word" else prompt)
        self._told = 0

    def add(self, step: Step, row: int, alternatives: int) -> None:
        """Takes the token of a step."""
        token = int(step.tokens[row])
        log_probability = float(step.log_probabilities[row, token])
        self._result.log_probability += log_probability
        if alternatives:
            best = step.log_probabilities[row].topk(min(alternatives, step.log_probabilities.shape[1]))
            others = zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
            self._result.choices.append(
                Choice(
                    shown_token(self._tokenizer, token),
                    math.exp(log_probability),
                    [(shown_token(self._tokenizer, other), probability) for other, probability in others],
                )
            )
        self.write(token)

    def write(self, token: int) -> None:
        """Adds a token's text and looks whether that ends the continuation."""
        result = self._result
        result.ids.append(token)
        if self._stop_at_eos and token == self._tokenizer.eos_id:
            result.new_text += self._stream.finish()
            self._end("eos")
            return
        result.new_text += self._stream.push(token)
        # It may have begun in what was held back.
        places = [place for place in (result.new_text.find(text) for text in self._stop) if place >= 0]
        if places:
            result.new_text = result.new_text[: min(places)]
            self._end("stop")
            return
        self._speak(len(result.new_text) - self._possible_stop())

    def finish(self, reason: str) -> Continuation:
        """The whole continuation, which may have ended earlier for a reason of its own."""
        if not self.done:
            self._result.new_text += self._stream.finish()
            self._end(reason)
        return self._result

    def _end(self, reason: str) -> None:
        self.done, self._result.reason = True, reason
        self._speak(len(self._result.new_text))

    def _possible_stop(self) -> int:
        """Characters at the end that may turn out to begin a text to stop at, and are not shown yet."""
        text = self._result.new_text
        lengths = [
            length for wanted in self._stop for length in range(1, len(wanted)) if text.endswith(wanted[:length])
        ]
        return max(lengths, default=0)

    def _speak(self, end: int) -> None:
        if self._tell is not None and end > self._told:
            self._tell(self._result.new_text[self._told : end])
        self._told = max(self._told, end)


def shown_token(tokenizer: Tokenizer, token: int) -> str:
    """A token as a person reads it: its text where it is part of a word, its name where it has none."""
    if tokenizer.kind == "word" or token in (tokenizer.eos_id, tokenizer.unk_id):
        return tokenizer.tokens[token]
    return tokenizer.decode([token])
